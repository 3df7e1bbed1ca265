local errors = require("weir.errors")
local policy = require("weir.app.policy")

local function half()
  return 0.5
end

-- What is decided about a failure of a class at an attempt.
local function decide(rules, class, attempt, more)
  local failure = { class = class, error = errors.new(class, "failed") }
  for name, value in pairs(more or {}) do
    failure[name] = value
  end
  return policy.decide(rules, failure, attempt or 1, half)
end

describe("the delay before a retry", function()
  it("doubles from half a second to a minute by default", function()
    assert.equal(0.5, policy.delay(nil, 1, half))
    assert.equal(1, policy.delay(nil, 2, half))
    assert.equal(2, policy.delay("exponential", 3, half))
    assert.equal(60, policy.delay(nil, 30, half))
  end)

  it("stays the same with a constant backoff, and is none without", function()
    assert.equal(policy.delay("constant", 1, half), policy.delay("constant", 9, half))
    assert.equal(0, policy.delay("none", 5, half))
  end)

  it("is as its fields say", function()
    local backoff = { initial = 2, factor = 3, max = 20, jitter = 0 }
    assert.equal(2, policy.delay(backoff, 1, half))
    assert.equal(6, policy.delay(backoff, 2, half))
    assert.equal(18, policy.delay(backoff, 3, half))
    assert.equal(20, policy.delay(backoff, 4, half))
  end)

  it("varies by the jitter and no more", function()
    local backoff = { initial = 10, jitter = 0.2 }
    assert.equal(8, policy.delay(backoff, 1, function()
      return 0
    end))
    assert.is_true(math.abs(policy.delay(backoff, 1, function()
      return 1 - 1e-9
    end) - 12) < 1e-6)
  end)

  it("is finite after any number of attempts", function()
    assert.equal(60, policy.delay({ jitter = 0 }, 1e6, half))
    assert.equal(60, policy.delay({ initial = 0, jitter = 0 }, 1e6, half))
  end)
end)

describe("a failure", function()
  it("is retried by default, and dropped after five attempts", function()
    for attempt = 1, 4 do
      local action, delay, reason = decide(nil, "error", attempt)
      assert.equal("retry", action)
      assert.is_true(delay > 0)
      assert.equal("error", reason)
    end
    local action, delay, reason = decide({}, "error", 5)
    assert.same({ "drop", nil, "exhausted" }, { action, delay, reason })
  end)

  it("becomes a dead letter after the last attempt where there is a place for it", function()
    local action, _, reason = decide({ dead_letter = { to = "dead" } }, "timeout", 5)
    assert.equal("dead_letter", action)
    assert.equal("exhausted", reason)
  end)

  it("is retried without end where the policy says so", function()
    assert.equal("retry", (decide({ retry = { max_attempts = false } }, "error", 1e6)))
  end)

  it("of decoding or of the schema is no use to retry", function()
    for _, class in ipairs({ "decode", "schema", "no_handler" }) do
      assert.equal("drop", (decide({}, class)))
      assert.equal("dead_letter", (decide({ dead_letter = { to = "dead" } }, class)))
    end
  end)

  it("gets the action of its class", function()
    local rules = { on_failure = { decode = "stop", timeout = "drop", error = "ack" } }
    assert.equal("stop", (decide(rules, "decode")))
    assert.equal("drop", (decide(rules, "timeout")))
    assert.equal("ack", (decide(rules, "error")))
    assert.equal("ack", (decide(rules, "whatever")))
    assert.equal("ack", (decide(rules, "unknown_outcome")))
  end)

  it("gets the one action of all", function()
    for _, class in ipairs({ "error", "decode", "timeout" }) do
      assert.equal("stop", (decide({ on_failure = "stop" }, class)))
    end
    assert.equal("retry", (decide({ on_failure = "retry" }, "decode", 1)))
    assert.equal("drop", (decide({ on_failure = "retry" }, "decode", 5)))
  end)

  it("gets the action of its code in retry.on before all others", function()
    local rules = { retry = { on = { full = "drop", ["*"] = "stop" } }, on_failure = { full = "ack", error = "ack" } }
    assert.equal("drop", (decide(rules, "full")))
    assert.equal("stop", (decide(rules, "other")))
    assert.equal("drop", (decide({ retry = { on = { ["*"] = "stop" } } }, "decode")))
  end)

  it("is decided by a function, which may say when", function()
    local seen = {}
    local rules = {
      retry = {
        on = function(err, ctx)
          seen[1], seen[2] = err, ctx
          return "retry", 7
        end,
      },
    }
    local err, ctx = errors.new("busy", "x"), {}
    local action, delay = decide(rules, "busy", 1, { error = err, ctx = ctx })
    assert.same({ "retry", 7 }, { action, delay })
    assert.equal(err, seen[1])
    assert.equal(ctx, seen[2])
  end)

  it("is decided as if there were no function where that has no answer, raises or returns nonsense", function()
    local function with(fn)
      return policy.decide({ retry = { on = fn }, on_failure = { error = "drop" } }, { class = "error" }, 1, half)
    end
    assert.equal("drop", (with(function() end)))
    local action, _, reason = with(function()
      error("broken")
    end)
    assert.equal("drop", action)
    assert.matches("retry.on failed: .*broken", reason)
    action, _, reason = with(function()
      return "explode"
    end)
    assert.equal("drop", action)
    assert.matches("no action: explode", reason)
    local _, delay = policy.decide({ retry = { on = function()
      return "retry", -5
    end } }, { class = "error" }, 1, half)
    assert.equal(0.5, delay)
  end)

  it("that is exhausted gets the action for that", function()
    local rules = { dead_letter = { to = "dead" }, on_failure = { exhausted = "stop" } }
    assert.equal("stop", (decide(rules, "error", 5)))
    rules.on_failure.exhausted = "retry"
    assert.equal("dead_letter", (decide(rules, "error", 5)))
  end)

  it("without a place for dead letters is dropped in place of becoming one", function()
    assert.equal("drop", (decide({ dead_letter = false, on_failure = { error = "dead_letter" } }, "error")))
  end)
end)

describe("a retry that the handler asked for", function()
  it("comes when it said, and counts as any other", function()
    local rules = { on_failure = { error = "drop" }, retry = { max_attempts = 3, on = { ["*"] = "drop" } } }
    local action, delay = decide(rules, "retry", 2, { after = 9 })
    assert.same({ "retry", 9 }, { action, delay })
    assert.equal("drop", (decide(rules, "retry", 3, { after = 9 })))
  end)
end)

describe("an answer that could not be published", function()
  it("is retried, whatever is done about handlers that fail, and never acknowledged", function()
    for _, rules in ipairs({
      { on_failure = "ack" },
      { on_failure = { error = "ack" } },
      { retry = { on = { publish = "ack" } } },
      { retry = { on = { ["*"] = "ack" } } },
    }) do
      assert.equal("retry", (decide(rules, "publish", 1)))
      assert.not_equal("ack", (decide(rules, "publish", 5)))
    end
  end)
end)

describe("the class of an error", function()
  it("is its code, where it has one that is a string", function()
    assert.equal("full", policy.class_of(errors.new("full")))
    assert.equal("mine", policy.class_of({ code = "mine" }))
    assert.equal("error", policy.class_of({ code = 5 }))
    assert.equal("error", policy.class_of("text"))
    assert.equal("error", policy.class_of(nil))
  end)
end)
