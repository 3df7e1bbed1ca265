local errors = require("weir.errors")
local outcome = require("weir.outcome")
local pipe = require("spec.lua.app.pipe")
local weir = require("weir")

-- In real time, in which batches linger.
local function run(opts, fn)
  if type(opts) == "function" then
    opts, fn = {}, opts
  end
  opts.clock = require("weir.clock")
  return pipe.run(opts, fn)
end

local DROP = { on_failure = "drop" }
local THREE = { max = 3, linger = 0.005 }

local function numbers(values)
  local list = {}
  for i, value in ipairs(values) do
    list[i] = math.floor(value.n)
  end
  return table.concat(list, " ")
end

local function send(t, from, to)
  for n = from, to do
    t:send("in", { n = n })
  end
end

-- Runs a batch handler on messages 1 to 3 and returns what was counted.
local function outcome_of(opts, fn, name, count)
  local stats, test
  run(function(t)
    opts.batch = THREE
    local running = t:start("in", opts, fn)
    send(t, 1, 3)
    t:counted(running, name, count)
    t.settle()
    stats, test = running:stats(), t
    assert.equal(0, stats.in_flight)
  end)
  return stats, test
end

for what, without in pairs({
  ["a broker that has batches"] = {},
  ["a broker that has none"] = { "batch" },
}) do
  describe("batches of " .. what, function()
    it("are never larger than asked for, nor empty, and keep the order", function()
      run({ without = without }, function(t)
        local seen = {}
        local running = t:start("in", { batch = THREE }, function(values, ctx)
          seen[#seen + 1] = numbers(values)
          assert.is_true(ctx.batch)
          assert.equal(#values, ctx.size)
          assert.equal("in", ctx.name)
          assert.is_nil(ctx.headers)
        end)
        send(t, 1, 7)
        t:counted(running, "ack", 7)
        assert.equal("1 2 3 4 5 6 7", table.concat(seen, " "))
        for _, each in ipairs(seen) do
          assert.is_true(#each > 0 and #each <= 5)
        end
      end)
    end)

    it("come with the context of each element", function()
      run({ without = without }, function(t)
        local ids = {}
        local running = t:start("in", { batch = THREE }, function(_, ctx)
          for i, item in ipairs(ctx.items) do
            ids[#ids + 1] = item.headers.id .. item.attempt .. i
          end
        end)
        t:send("in", {}, { id = "a" })
        t:send("in", {}, { id = "b" })
        t:counted(running, "ack", 2)
        assert.is_true(table.concat(ids, " "):find("^a11 b1[12]$") ~= nil)
      end)
    end)
  end)
end

describe("a batch", function()
  it("leaves out what cannot be decoded, which is settled by the policy", function()
    run(function(t)
      local dead, seen = t:spy("dead"), {}
      local running = t:start("in", { batch = THREE, policy = { dead_letter = { to = "dead" } } }, function(values, ctx)
        seen[#seen + 1] = numbers(values)
        assert.equal(#values, #ctx.messages)
        for i, item in ipairs(ctx.items) do
          assert.equal(values[i].n, tonumber(item.payload:match("%d+")))
        end
      end)
      t:send("in", { n = 1 })
      t:send("in", "{")
      t:send("in", { n = 3 })
      t:counted(running, "ack", 2)
      t:counted(running, "dead_letter", 1)
      t.settle()
      assert.equal("1 3", table.concat(seen, " "))
      assert.equal("decode", dead[1].headers["weir-error-code"])
    end)
  end)

  it("of which nothing can be decoded never gets to the handler", function()
    run(function(t)
      local running = t:start("in", { batch = THREE, policy = DROP }, function()
        error("not to be called")
      end)
      t:send("in", "{")
      t:send("in", "[")
      t:counted(running, "drop", 2)
      assert.equal(2, running:stats().decode_failures)
    end)
  end)

  it("has one outcome for all", function()
    assert.equal(3, outcome_of({}, function()
      return true
    end, "ack", 3).ack)
    assert.equal(3, outcome_of({}, function()
      return outcome.ack()
    end, "ack", 3).ack)
    assert.equal(3, outcome_of({}, function()
      return outcome.drop()
    end, "drop", 3).drop)
    assert.equal(3, outcome_of({ policy = DROP }, function()
      return nil, "bad"
    end, "drop", 3).drop)
    assert.equal(3, outcome_of({ policy = DROP }, function()
      error("bad")
    end, "drop", 3).drop)
    assert.equal(3, outcome_of({ policy = { retry = { backoff = "none", max_attempts = 2 } } }, function()
      return outcome.retry()
    end, "drop", 3).retry)
  end)

  it("has an outcome for each element where the handler says so", function()
    run(function(t)
      local dead = t:spy("dead")
      local policy = { retry = { max_attempts = 2, backoff = "none", on = { fatal = "dead_letter" } },
        dead_letter = { to = "dead" } }
      local running = t:start("in", { batch = { max = 6, linger = 0.05 }, policy = policy }, function(values)
        local results = {}
        for i, value in ipairs(values) do
          results[i] = ({
            true,
            outcome.ack(),
            outcome.drop(),
            outcome.retry(),
            errors.new("fatal", "no good"),
            outcome.fail("x"),
          })[math.floor(value.n)]
        end
        return results
      end)
      send(t, 1, 6)
      t:counted(running, "dead_letter", 3)
      assert.equal(2, running:stats().ack)
      assert.equal(1, running:stats().drop)
      assert.equal(2, running:stats().retry)
      t:until_true(function()
        return #dead == 3
      end)
      assert.equal("fatal", dead[1].headers["weir-error-code"])
      assert.equal("1", dead[1].headers["weir-attempt"])
    end)
  end)

  it("takes an element without an outcome as acknowledged", function()
    local stats = outcome_of({}, function(values)
      return { [#values] = outcome.drop() }
    end, "drop", 1)
    assert.equal(3, stats.ack + stats.drop)
  end)

  it("fails as unknown_outcome for a list with what is no element, and for other answers", function()
    for _, answer in ipairs({ { true, true, true, true }, { x = 1 }, { [0] = true }, "text", 7, false }) do
      local stats, t = outcome_of({ policy = DROP }, function()
        return answer
      end, "drop", 3)
      assert.equal(3, stats.drop)
      assert.is_true(t:logged("unknown_outcome"))
    end
  end)

  it("may settle elements by hand", function()
    run(function(t)
      local running = t:start("in", { batch = { max = 2, linger = 0.05 }, policy = DROP }, function(_, ctx)
        assert.is_true(ctx.items[1]:ack())
        local ok, err = ctx:ack()
        assert.is_nil(ok)
        assert.equal("unsupported", err.code)
        error("the other one fails")
      end)
      send(t, 1, 2)
      t:counted(running, "drop", 1)
      assert.equal(1, running:stats().ack)
    end)
  end)

  it("goes through middleware, as the list", function()
    run(function(t)
      local sizes = 0
      local running = t:start("in", { batch = THREE, middleware = { function(values, ctx, next)
        sizes = sizes + #values
        assert.is_true(ctx.batch)
        return next(values, ctx)
      end } }, function() end)
      send(t, 1, 5)
      t:counted(running, "ack", 5)
      assert.equal(5, sizes)
    end)
  end)

  it("has a timeout", function()
    pipe.run(function(t)
      local running = t:start("in", { batch = { max = 2, linger = 0.05 }, timeout = 10, policy = DROP }, function()
        weir.sleep(1000)
      end)
      send(t, 1, 2)
      t:until_true(function()
        return running:stats().in_flight == 2
      end)
      t.settle()
      t:advance(10)
      t:counted(running, "drop", 2)
    end)
  end)

  it("runs what was to be done after the acknowledgement once, and only if all are acknowledged", function()
    run(function(t)
      local after = 0
      local running = t:start("in", { batch = { max = 2, linger = 0.05 }, policy = DROP }, function(values, ctx)
        ctx:after_ack(function()
          after = after + 1
        end)
        return { true, values[1].n > 2 and outcome.drop() or true }
      end)
      send(t, 1, 2)
      t:counted(running, "ack", 2)
      assert.equal(0, running:drain(1))
      assert.equal(1, after)
      send(t, 3, 4)
      t:counted(running, "drop", 1)
      assert.equal(0, running:drain(1))
      assert.equal(1, after)
    end)
  end)

  it("brings elements back alone when their time has come", function()
    pipe.run({ without = { "attempts" } }, function(t)
      local seen = {}
      local policy = { retry = { backoff = { initial = 10, jitter = 0 } } }
      local running = t:start("in", { batch = THREE, policy = policy }, function(values, ctx)
        local results = {}
        for i, item in ipairs(ctx.items) do
          seen[#seen + 1] = ("%d@%d"):format(values[i].n, item.attempt)
          results[i] = item.attempt == 1 and outcome.retry() or true
        end
        return results
      end)
      send(t, 1, 3)
      t:until_true(function()
        return running:stats().held == 3
      end)
      t:advance(10)
      t:counted(running, "ack", 3)
      assert.same({ "1@1", "2@1", "3@1", "1@2", "2@2", "3@2" }, seen)
    end)
  end)

  it("answers with replies for the elements", function()
    run(function(t)
      local out = t:spy("out")
      local running = t:start("in", { batch = THREE, reply = "out" }, function(values)
        local results = {}
        for i, value in ipairs(values) do
          results[i] = { twice = value.n * 2 }
        end
        return results
      end)
      t:send("in", { n = 1 }, { ["correlation-id"] = "c1" })
      t:send("in", { n = 2 }, { ["correlation-id"] = "c2" })
      t:counted(running, "ack", 2)
      t:until_true(function()
        return #out == 2
      end)
      assert.equal("c1", out[1].headers["correlation-id"])
      assert.equal("c2", out[2].headers["correlation-id"])
    end)
  end)

  it("is cancelled and given back at the end", function()
    run(function(t)
      local running = t:start("in", { batch = { max = 2, linger = 0.05 } }, function()
        weir.sleep(1000)
      end)
      send(t, 1, 2)
      t:until_true(function()
        return running:stats().in_flight == 2
      end)
      running:close(0)
      assert.equal(0, running:stats().ack)
      assert.equal(2, running:stats().returned)
    end)
  end)
end)
