local outcome = require("weir.outcome")

describe("an outcome", function()
  it("is known by its kind", function()
    assert.equal("ack", outcome.kind(outcome.ack()))
    assert.equal("retry", outcome.kind(outcome.retry()))
    assert.equal("drop", outcome.kind(outcome.drop("why")))
    assert.equal("fail", outcome.kind(outcome.fail("why")))
    assert.equal("reply", outcome.kind(outcome.reply(1)))
    assert.equal("outputs", outcome.kind(outcome.outputs({ a = 1 })))
  end)

  it("is no other value", function()
    for _, value in ipairs({ true, 1, "ack", { kind = "ack" }, print }) do
      assert.is_nil(outcome.kind(value))
    end
    assert.is_nil(outcome.kind(nil))
  end)

  it("carries what it was given", function()
    assert.equal(5, outcome.retry({ after = 5 }).after)
    assert.equal("why", outcome.retry({ reason = "why" }).reason)
    assert.equal("why", outcome.drop("why").reason)
    assert.same({ to = "a", headers = { b = "c" } }, outcome.reply(1, { to = "a", headers = { b = "c" } }).options)
  end)

  it("says what it is", function()
    assert.equal("weir.outcome: retry", tostring(outcome.retry()))
  end)

  it("refuses what it cannot mean, naming the nearest option", function()
    assert.error_matches(function()
      outcome.retry({ afer = 1 })
    end, "unknown option 'afer'.*did you mean 'after'")
    for _, after in ipairs({ -1, math.huge, 0 / 0 }) do
      assert.error_matches(function()
        outcome.retry({ after = after })
      end, "'after' must be a number of seconds")
    end
    assert.error_matches(outcome.fail, "an error is expected")
    assert.error_matches(outcome.reply, "a value is expected")
    assert.error_matches(function()
      outcome.outputs({})
    end, "names of outputs")
    assert.error_matches(function()
      outcome.outputs({ "a" })
    end, "names of outputs")
  end)
end)
