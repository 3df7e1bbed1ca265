local cjson = require("cjson")
local errors = require("weir.errors")
local header_schema = require("weir.app.header_schema")
local outcome = require("weir.outcome")
local pipe = require("spec.lua.app.pipe")
local publisher = require("weir.app.publisher")
local schema = require("weir.schema")
local trace = require("weir.trace")
local run = pipe.run

local PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

local function one(t, list)
  t:until_true(function()
    return #list >= 1
  end, "a message")
  return list[1]
end

-- A topic that has room for nothing: publishing to it fails.
local function full_topic(t, name)
  local descriptor = assert(t.broker:descriptor({ name = name, group = "g", overflow = "reject",
    capacity = { messages = 1 } }))
  local subscription = assert(t.broker:subscribe(descriptor))
  t:send(name, "in the way")
  return subscription
end

describe("publishing", function()
  it("encodes, and writes the headers that every message should have", function()
    run(function(t)
      local out = t:spy("out")
      assert.is_true(t.publisher:publish({ a = 1 }, { to = "out", headers = { Mine = "x", count = 5 }, key = "k" }))
      local message = one(t, out)
      assert.equal('{"a":1}', message.payload)
      assert.equal("application/json", message.headers["content-type"])
      assert.is_string(message.headers["message-id"])
      assert.is_string(message.headers["correlation-id"])
      assert.is_string(trace.parse(message.headers.traceparent))
      assert.equal("x", message.headers.mine)
      assert.equal("5", message.headers.count)
      assert.equal("k", message.key)
      assert.equal(1, t.metrics:value("weir_messages_published_total", { status = "ok", destination = "out" }))
    end)
  end)

  it("takes ids, the codec and where to answer from the options", function()
    run(function(t)
      local out = t:spy("out")
      assert(t.publisher:publish("bytes", { to = "out", codec = "raw", message_id = "m", correlation_id = "c",
        reply_to = "r" }))
      local message = one(t, out)
      assert.equal("bytes", message.payload)
      local headers = message.headers
      assert.equal("application/octet-stream", headers["content-type"])
      assert.same({ "m", "c", "r" }, { headers["message-id"], headers["correlation-id"], headers["reply-to"] })
    end)
  end)

  it("has settings of a publisher under those of a publish", function()
    run(function(t)
      local out = t:spy("out")
      local mine = t.publisher:with({ to = "out", key = "k", headers = { a = "1", b = "1" } })
      assert(mine:publish(1, { headers = { b = "2" } }))
      local headers = one(t, out).headers
      assert.same({ "1", "2", "k" }, { headers.a, headers.b, headers["partition-key"] })
    end)
  end)

  it("of what cannot be encoded is an error, and counted as none that got out", function()
    run(function(t)
      local ok, err = t.publisher:publish({ f = print }, { to = "out" })
      assert.is_nil(ok)
      assert.equal("encode", err.code)
    end)
  end)

  it("checks the schema", function()
    run(function(t)
      local strict = t.publisher:with({ schema = schema({ type = "object", required = { "id" } }) })
      local ok, err = strict:publish({ x = 1 }, { to = "out" })
      assert.is_nil(ok)
      assert.equal("schema", err.code)
      assert.is_true(strict:publish({ id = 1 }, { to = "out" }))
    end)
  end)

  it("checks the schema of the headers, those that middleware has added, too", function()
    run(function(t)
      local out = t:spy("out")
      local strict = t.publisher:with({
        to = "out",
        header_schema = header_schema.new({
          properties = { tenant = "string", tries = { type = "integer", maximum = 3 } },
        }),
        middleware = { function(message, next)
          message.headers.tenant = message.value == 0 and "x" or nil
          return next(message)
        end },
      })
      local ok, err = strict:publish(1, { headers = { tries = 2 } })
      assert.is_nil(ok)
      assert.same({ "schema", "headers" }, { err.code, err.part })
      assert.equal("headers: tenant: is missing", err.message)
      assert.matches("at most 3, not 4", select(2, strict:publish(0, { headers = { tries = 4 } })).message)
      assert.matches("is missing", select(2, strict:publish_batch({ { value = 1 } })).message)
      assert.is_true(strict:publish(0, { headers = { Tries = 2 } }))
      assert.equal("2", one(t, out).headers.tries)
    end)
  end)

  it("passes on the errors of the broker", function()
    run(function(t)
      full_topic(t, "full")
      local ok, err = t.publisher:publish(1, { to = "full" })
      assert.is_nil(ok)
      assert.equal("full", err.code)
      assert.equal(1, t.metrics:value("weir_messages_published_total", { status = "error" }))
      t.broker:shutdown(1)
      ok, err = t.publisher:publish(1, { to = "out" })
      assert.is_nil(ok)
      assert.equal("closed", err.code)
    end)
  end)

  it("raises for misuse, and says what is meant", function()
    run(function(t)
      for text, call in pairs({
        ["'to' is missing"] = { 1 },
        ["a value is expected"] = { nil, { to = "out" } },
        ["did you mean 'headers'"] = { 1, { to = "out", header = {} } },
        ["'a' must be a string"] = { 1, { to = "out", headers = { a = {} } } },
        ["names of headers are strings"] = { 1, { to = "out", headers = { "a" } } },
        ["unknown codec"] = { 1, { to = "out", codec = "jsn" } },
      }) do
        local ok, err = pcall(function()
          local done = t.publisher:publish(call[1], call[2])
          return done
        end)
        assert.is_false(ok)
        assert.matches("^spec/lua/app/publisher_spec.lua:%d+: ", err)
        assert.is_nil(err:find("/weir/", 1, true), err)
        assert.is_truthy(err:find(text, 1, true), err)
      end
    end)
  end)
end)

describe("publish middleware", function()
  it("may change what is sent, the outer ones first, and see what comes of it", function()
    run(function(t)
      local out, log = t:spy("out"), {}
      local mine = t.publisher:with({ middleware = {
        function(message, next)
          log[#log + 1] = "a " .. tostring(message.payload)
          message.headers.a = "1"
          local ok, err = next(message)
          log[#log + 1] = "a " .. tostring(ok)
          return ok, err
        end,
        function(message, next)
          log[#log + 1] = "b " .. message.headers.a
          message.value = { changed = true }
          message.to = "out"
          return next(message)
        end,
      } })
      assert.is_true(mine:publish({}, { to = "elsewhere" }))
      assert.equal('{"changed":true}', one(t, out).payload)
      assert.same({ "a nil", "b 1", "a true" }, log)
    end)
  end)

  it("may refuse", function()
    run(function(t)
      local mine = t.publisher:with({ middleware = { function()
        return nil, errors.new("forbidden", "no")
      end } })
      local ok, err = mine:publish({}, { to = "out" })
      assert.is_nil(ok)
      assert.equal("forbidden", err.code)
      mine = t.publisher:with({ middleware = { function() end } })
      ok, err = mine:publish({}, { to = "out" })
      assert.is_nil(ok)
      assert.equal("rejected", err.code)
    end)
  end)
end)

describe("publishing many", function()
  it("has a result for each item", function()
    run(function(t)
      local out = t:spy("out")
      full_topic(t, "full")
      local ok, err, results = t.publisher:publish_batch({
        { value = 1 },
        { value = 2, to = "full" },
        { value = print },
        { value = 4, key = "k" },
      }, { to = "out", headers = { all = "1" } })
      assert.is_nil(ok)
      assert.equal("full", err.code)
      assert.same({ true, "full", "encode", true }, { results[1], results[2].code, results[3].code, results[4] })
      t:until_true(function()
        return #out == 2
      end)
      assert.equal("1", out[1].headers.all)
      assert.equal("k", out[2].key)
      assert.is_true(t.publisher:publish_batch({ { value = 5 } }, { to = "out" }))
      assert.is_true(t.publisher:publish_batch({}))
    end)
  end)

  it("raises for an item that is none", function()
    run(function(t)
      local ok, err = pcall(t.publisher.publish_batch, t.publisher, { 1 }, { to = "out" })
      assert.is_false(ok)
      assert.matches("each item is a table with 'value'", err)
    end)
  end)
end)

describe("a request", function()
  it("is answered by a handler's value, with the correlation id and the trace carried on", function()
    run(function(t)
      t:start("double", function(value)
        return { n = value.n * 2 }
      end)
      t.settle()
      local answer, message = t.publisher:request({ n = 21 }, { to = "double", correlation_id = "c",
        headers = { traceparent = PARENT, tracestate = "a=b" } }, 1)
      assert.equal(42, answer.n)
      assert.equal("c", message.headers["correlation-id"])
      assert.equal((trace.parse(PARENT)), (trace.parse(message.headers.traceparent)))
      assert.equal("a=b", message.headers.tracestate)
      assert.not_equal(PARENT, message.headers.traceparent)
    end)
  end)

  it("that nobody answers in time is an error", function()
    run(function(t)
      t:start("mute", function() end)
      t.settle()
      local answer, err = t.publisher:request(1, { to = "mute" }, 0.01)
      assert.is_nil(answer)
      assert.equal("timeout", err.code)
      answer, err = t.publisher:request(1, { to = "nobody" }, 0.01)
      assert.is_nil(answer)
      assert.equal("no_responders", err.code)
    end)
  end)

  it("can be made by a handler", function()
    run(function(t)
      t:start("inner", function(value)
        return value + 1
      end)
      t:start("outer", function(value, ctx)
        return ctx:request(value, { to = "inner" }, 1)
      end)
      t.settle()
      assert.equal(6, t.publisher:request(5, { to = "outer" }, 1))
    end)
  end)
end)

describe("a transaction", function()
  it("shows nothing before its commit, and nothing after an abort", function()
    run(function(t)
      local out = t:spy("out")
      local transaction = assert(t.publisher:transaction())
      assert(transaction:publish({ n = 1 }, { to = "out" }))
      assert(transaction:publish({ n = 2 }, { to = "out" }))
      t.settle()
      assert.equal(0, #out)
      assert(transaction:commit())
      t:until_true(function()
        return #out == 2
      end)
      assert.is_string(out[1].headers["message-id"])
      transaction = assert(t.publisher:transaction())
      assert(transaction:publish({ n = 3 }, { to = "out" }))
      transaction:abort()
      t.settle()
      assert.equal(2, #out)
      local ok, err = transaction:publish({ n = 4 }, { to = "out" })
      assert.is_nil(ok)
      assert.equal("no_transaction", err.code)
    end)
  end)

  it("is refused by a broker that has none", function()
    run({ without = { "transactions" } }, function(t)
      local transaction, err = t.publisher:transaction()
      assert.is_nil(transaction)
      assert.equal("unsupported", err.code)
    end)
  end)
end)

describe("a reply", function()
  it("goes where the handler's replies go, because of its message", function()
    run(function(t)
      local out = t:spy("out")
      local running = t:start("in", { reply = "out" }, function(value)
        return { got = value.n }
      end)
      t:send("in", { n = 1 }, { ["message-id"] = "m", traceparent = PARENT })
      t:counted(running, "ack", 1)
      local message = one(t, out)
      assert.equal(1, cjson.decode(message.payload).got)
      assert.equal("m", message.headers["correlation-id"])
      assert.equal((trace.parse(PARENT)), (trace.parse(message.headers.traceparent)))
    end)
  end)

  it("may have headers, a key and another place", function()
    run(function(t)
      local other = t:spy("other")
      t:start("in", { reply = "out" }, function()
        return outcome.reply("x", { to = "other", headers = { a = "1" }, key = "k" })
      end)
      t:send("in", {})
      local message = one(t, other)
      assert.equal("1", message.headers.a)
      assert.equal("k", message.key)
    end)
  end)

  it("has a codec of its own where its place says so", function()
    run(function(t)
      local out = t:spy("out")
      t:start("in", { reply = { to = "out", codec = require("weir.codec").get("raw") } }, function()
        return "bytes"
      end)
      t:send("in", {})
      assert.equal("bytes", one(t, out).payload)
    end)
  end)

  it("that nobody asked for is no failure of a handler that answers who asks", function()
    run(function(t)
      local running = t:start("in", { reply = true }, function()
        return { x = 1 }
      end)
      t:send("in", {})
      t:counted(running, "ack", 1)
    end)
  end)

  it("that cannot be published brings the message back, and it is never acknowledged", function()
    run(function(t)
      local full = full_topic(t, "full")
      local calls = 0
      local policy = { on_failure = "ack", retry = { backoff = { initial = 10, jitter = 0 } } }
      local running = t:start("in", { reply = "full", policy = policy }, function()
        calls = calls + 1
        return { x = 1 }
      end)
      t:send("in", {})
      t:counted(running, "retry", 1)
      assert.equal(0, running:stats().ack)
      assert(full:next(1)):ack()
      t:advance(10)
      t:counted(running, "ack", 1)
      assert.equal(2, calls)
      assert.equal('{"x":1}', assert(full:next(1)).payload)
    end)
  end)

  it("is published before the message is acknowledged", function()
    run(function(t)
      local order = {}
      local running
      running = t:start("in", { reply = "out", publish_middleware = { function(out, next)
        order[#order + 1] = "publish " .. running:stats().ack
        return next(out)
      end } }, function()
        return { x = 1 }
      end)
      t:send("in", {})
      t:counted(running, "ack", 1)
      assert.same({ "publish 0" }, order)
    end)
  end)
end)

describe("named outputs", function()
  local OUTPUTS = { audit = "audit", shipping = { to = "ship" } }

  it("go each to its place, with headers where they have some", function()
    run(function(t)
      local audit, ship, out = t:spy("audit"), t:spy("ship"), t:spy("out")
      local running = t:start("in", { outputs = OUTPUTS, reply = "out" }, function(value)
        return outcome.outputs({
          audit = { n = value.n },
          shipping = outcome.reply({ n = 2 }, { headers = { a = "1" } }),
          reply = { n = 3 },
        })
      end)
      t:send("in", { n = 1 })
      t:counted(running, "ack", 1)
      assert.equal(1, cjson.decode(one(t, audit).payload).n)
      assert.equal("1", one(t, ship).headers.a)
      assert.equal(3, cjson.decode(one(t, out).payload).n)
    end)
  end)

  it("that the handler has not are an unknown outcome, and nothing is published", function()
    run(function(t)
      local audit = t:spy("audit")
      local running = t:start("in", { outputs = OUTPUTS, policy = { on_failure = "drop" } }, function()
        return outcome.outputs({ audit = 1, nowhere = 2 })
      end)
      t:send("in", {})
      t:counted(running, "drop", 1)
      t.settle()
      assert.equal(0, #audit)
      assert.is_true(t:logged("no output 'nowhere'"))
    end)
  end)

  it("of which one fails bring the message back", function()
    run(function(t)
      full_topic(t, "full")
      local running = t:start("in", { outputs = { a = "out", b = "full" } }, function()
        return outcome.outputs({ a = 1, b = 2 })
      end)
      t:send("in", {})
      t:counted(running, "retry", 1)
      assert.equal(0, running:stats().ack)
    end)
  end)
end)

describe("a handler that publishes", function()
  it("carries on the correlation and the trace, with its own codec and middleware", function()
    run(function(t)
      local out, seen = t:spy("out"), nil
      t:start("in", { publish_middleware = { function(message, next)
        seen = message.ctx.name
        return next(message)
      end } }, function(_, ctx)
        assert(ctx:publish({ x = 1 }, { to = "out" }))
      end)
      t:send("in", {}, { ["correlation-id"] = "c", traceparent = PARENT })
      local message = one(t, out)
      assert.equal("c", message.headers["correlation-id"])
      assert.equal((trace.parse(PARENT)), (trace.parse(message.headers.traceparent)))
      assert.equal("in", seen)
    end)
  end)

  it("to a broker that is not there gets an error", function()
    run(function(t)
      local failure
      local running = t:start("in", function(_, ctx)
        local _, err = ctx:publish(1, { to = "out", broker = "nowhere" })
        failure = err
      end)
      t:send("in", {})
      t:counted(running, "ack", 1)
      assert.equal("unknown_broker", failure.code)
      assert.matches("nowhere", failure.message)
    end)
  end)
end)

it("says whose publisher it is", function()
  run(function(t)
    assert.equal("weir.app.publisher(main)", tostring(t.publisher))
    assert.is_true(publisher.is(t.publisher))
    assert.is_false(publisher.is({}))
  end)
end)
