local header_schema = require("weir.app.header_schema")
local pipe = require("spec.lua.app.pipe")
local support = require("spec.lua.app.support")
local weir = require("weir")

local run = pipe.run
local NOW = { retry = { max_attempts = 2, backoff = "none" } }

-- A handler with `transactional = true`, and what it is given to do.
local function options(more)
  local all = { transactional = true, outputs = { a = "a", b = "b" }, policy = NOW }
  for name, value in pairs(more or {}) do
    all[name] = value
  end
  return all
end

describe("a transactional handler", function()
  it("publishes nothing when the headers of an output do not fit their schema", function()
    run(function(t)
      local a = t:spy("a")
      local running = t:start("in", options({
        outputs = {
          a = "a",
          b = { to = "b", header_schema = header_schema.new({ properties = { kind = { enum = { "b" } } } }) },
        },
        policy = { retry = { max_attempts = 1 } },
      }), function(value)
        return weir.outputs({ a = value, b = weir.reply(value, { headers = { kind = value.kind } }) })
      end)
      t:send("in", { kind = "x" })
      t:counted(running, "drop", 1)
      assert.equal(0, #a)
      t:send("in", { kind = "b" })
      t:counted(running, "ack", 1)
      t:until_true(function()
        return #a == 1
      end)
    end)
  end)

  it("publishes outputs and what it publishes itself when it ends, before its message is acknowledged", function()
    run(function(t)
      local a, b = t:spy("a"), t:spy("b")
      local during, acknowledged
      t:start("in", options(), function(value, ctx)
        assert(ctx:publish(value, { to = "a" }))
        assert(ctx:publish(value, { to = "b" }))
        t.settle()
        during = #a + #b
        ctx:after_ack(function()
          acknowledged = #a + #b
        end)
        return weir.outputs({ a = value, b = weir.reply(value, { headers = { kind = "b" } }) })
      end)
      t:send("in", { n = 1 }, { ["correlation-id"] = "c" })
      t:until_true(function()
        return acknowledged and #a == 2 and #b == 2
      end)
      assert.equal(0, during)
      assert.equal("b", b[2].headers.kind)
      assert.equal("c", a[1].headers["correlation-id"])
      assert.is_string(a[1].headers.traceparent)
    end)
  end)

  local ways = {
    ["returns an error"] = function()
      return nil, "no"
    end,
    raises = function()
      error("no", 0)
    end,
    ["asks for a retry"] = function()
      return weir.retry()
    end,
    ["answers with an output that it has not"] = function()
      return weir.outputs({ a = 1, c = 1 })
    end,
    ["answers with what cannot be encoded"] = function()
      return weir.outputs({ a = 1, b = print })
    end,
    ["gives the message back"] = function(ctx)
      ctx:nack()
    end,
  }
  for name, fail in pairs(ways) do
    it("publishes nothing when it " .. name, function()
      run(function(t)
        local a, b = t:spy("a"), t:spy("b")
        local running = t:start("in", options(), function(_, ctx)
          assert(ctx:publish("attempt " .. ctx.attempt, { to = "a" }))
          if ctx.attempt == 1 then
            return fail(ctx)
          end
        end)
        t:send("in", "1")
        t:counted(running, "ack", 1)
        t.settle()
        assert.equal(1, #a)
        assert.equal('"attempt 2"', a[1].payload)
        assert.equal(0, #b)
      end)
    end)
  end

  it("publishes nothing of what comes after its timeout", function()
    run({ clock = require("weir.clock") }, function(t)
      local a, ended = t:spy("a"), false
      t:start("in", options({ timeout = 0.01, policy = { retry = { max_attempts = 1 } } }), function(_, ctx)
        ctx:publish(1, { to = "a" })
        weir.sleep(5)
        ctx:publish(2, { to = "a" })
        ended = true
        return weir.outputs({ a = 3 })
      end)
      t:send("in", "1")
      t:until_true(function()
        return ended and t:logged("a message failed")
      end)
      t.settle()
      assert.equal(0, #a)
    end)
  end)

  it("is handled again when the commit fails, and nothing was published", function()
    run(function(t)
      local a = t:spy("a")
      local full = assert(t.broker:subscribe(
        assert(t.broker:descriptor({ name = "b", group = "full", capacity = { messages = 1 }, overflow = "reject" }))))
      t:send("b", "1")
      local running = t:start("in", options({ policy = { retry = { max_attempts = 9, backoff = "constant" } } }),
        function(value)
          return weir.outputs({ a = value, b = value })
        end)
      t:send("in", "1")
      t:counted(running, "retry", 1)
      assert.equal(0, #a)
      assert(full:next(1)):ack()
      t:advance(60)
      t:counted(running, "ack", 1)
      t.settle()
      assert.equal(1, #a)
    end)
  end)

  it("commits before it acknowledges by itself, and publishes at once after that", function()
    run(function(t)
      local a, seen = t:spy("a"), {}
      local running = t:start("in", options(), function(_, ctx)
        ctx:publish(1, { to = "a" })
        assert(ctx:ack())
        t.settle()
        seen[1] = #a
        assert(ctx:publish(2, { to = "a" }))
        t.settle()
        seen[2] = #a
      end)
      t:send("in", "1")
      t:counted(running, "ack", 1)
      t:until_true(function()
        return seen[2]
      end)
      assert.same({ 1, 2 }, seen)
    end)
  end)

  it("publishes what is done after the acknowledgement", function()
    run(function(t)
      local a = t:spy("a")
      t:start("in", options(), function(_, ctx)
        ctx:after_ack(function(same)
          assert(same:publish(1, { to = "a" }))
        end)
      end)
      t:send("in", "1")
      t:until_true(function()
        return #a == 1
      end)
    end)
  end)

  it("publishes to no other broker", function()
    run(function(t)
      local err
      function t.env.publisher_for()
        return t.publisher
      end
      local running = t:start("in", options(), function(_, ctx)
        err = select(2, ctx:publish(1, { to = "a", broker = "other" }))
      end)
      t:send("in", "1")
      t:counted(running, "ack", 1)
      assert.equal("unsupported", err.code)
    end)
  end)

  it("is told of in metrics and to observers when it has committed", function()
    local told = {}
    local observer = {
      published = function(_, to)
        told[#told + 1] = to
      end,
    }
    run({ observer = observer }, function(t)
      local running = t:start("in", options(), function(_, ctx)
        ctx:publish(1, { to = "a" })
        if ctx.attempt == 1 then
          return nil, "no"
        end
        return weir.outputs({ b = 1 })
      end)
      t:send("in", "1")
      t:counted(running, "ack", 1)
      assert.same({ "a", "b" }, told)
      local labels = { app = "spec", broker = "main", destination = "a", status = "ok" }
      assert.equal(1, t.metrics:value("weir_messages_published_total", labels))
    end)
  end)
end)

describe("a transactional batch", function()
  local batch = { batch = { max = 3, linger = 1 } }

  it("publishes what belongs to an element only if that did well", function()
    run(function(t)
      local a = t:spy("a")
      local running = t:start("in", options({ batch = batch.batch, policy = { retry = { max_attempts = 1 } } }),
        function(values, ctx)
          local results = {}
          for i, value in ipairs(values) do
            assert(ctx.items[i]:publish(value, { to = "a" }))
            results[i] = i == 2 and weir.fail("no") or weir.outputs({ a = value })
          end
          t.settle()
          assert(#a == 0)
          return results
        end)
      for i = 1, 3 do
        t:send("in", tostring(i))
      end
      t:counted(running, "ack", 2)
      t.settle()
      local got = {}
      for i, message in ipairs(a) do
        got[i] = message.payload
      end
      assert.same({ "1", "1", "3", "3" }, got)
    end)
  end)

  it("publishes what belongs to all only if it did not fail", function()
    run(function(t)
      local a, b = t:spy("a"), t:spy("b")
      local running = t:start("in", options({ batch = batch.batch }), function(values, ctx)
        assert(ctx:publish(#values, { to = "a" }))
        t.settle()
        assert(#a == 0)
        if ctx.items[1].attempt == 1 then
          return nil, "no"
        end
        return weir.outputs({ b = #values })
      end)
      for i = 1, 3 do
        t:send("in", tostring(i))
      end
      t:counted(running, "ack", 3)
      t.settle()
      assert.is_true(#a >= 1 and #a == #b)
      assert.is_true(#a <= 3)
    end)
  end)
end)

describe("the check of transactional handlers", function()
  after_each(support.clean)

  local function mistakes(app)
    local ok, list = app:check()
    assert.is_nil(ok)
    local texts = {}
    for i, each in ipairs(list) do
      texts[i] = each.message
    end
    return table.concat(texts, "\n")
  end

  it("refuses brokers that have no transactions", function()
    local app = weir.app("test", "1")
    app:broker("durable+http://127.0.0.1:1/")
    app:subscriber("in", { transactional = true }, function() end)
    local text = mistakes(app)
    assert.matches("'in' is transactional, but the broker 'durable' lacks 'transactions'", text, 1, true)
  end)

  it("refuses places on another broker, and handlers that settle by themselves", function()
    local app = support.app()
    app:broker("memory:", { label = "other" })
    app:subscriber("in", {
      transactional = true,
      reply = { to = "x", broker = "other" },
      outputs = { y = { to = "y", broker = "other" }, z = { to = "z", broker = "memory" } },
    }, function() end)
    app:subscriber("in2", { transactional = true, ack = "manual" }, function() end)
    local text = mistakes(app)
    assert.matches("its 'reply' goes to the broker 'other'", text, 1, true)
    assert.matches("its 'outputs.y' goes to the broker 'other'", text, 1, true)
    assert.matches("settles by itself", text, 1, true)
    assert.is_nil(text:find("outputs.z", 1, true))
  end)
end)
