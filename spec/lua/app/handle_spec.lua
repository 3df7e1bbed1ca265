local errors = require("weir.errors")
local handle = require("weir.app.handle")
local header_schema = require("weir.app.header_schema")
local outcome = require("weir.outcome")
local pipe = require("spec.lua.app.pipe")
local schema = require("weir.schema")
local weir = require("weir")
local run = pipe.run

local NO_WAIT = { retry = { backoff = "none", max_attempts = 3 } }
local DROP = { retry = { max_attempts = 1 } }
local DEAD = { retry = { backoff = "none", max_attempts = 3 }, dead_letter = { to = "dead" } }

-- Runs a handler on one message and returns what was counted once that has come to `name`.
local function outcome_of(opts, fn, name, value)
  local stats, seen
  run(function(t)
    local running = t:start("in", opts, fn)
    t:send("in", value or { n = 1 })
    t:counted(running, name, 1)
    t.settle()
    stats, seen = running:stats(), t
    assert.equal(0, running:drain(1))
  end)
  return stats, seen
end

describe("a handler", function()
  it("gets the decoded value and a context that knows the message", function()
    run(function(t)
      local got
      local running = t:start("orders", function(value, ctx)
        got = {
          value = value,
          name = ctx.name,
          attempt = ctx.attempt,
          key = ctx.key,
          header = ctx.headers.a,
          id = ctx.message_id,
          correlation = ctx.correlation_id,
          state = ctx.state.answer,
          payload = ctx.payload,
          handler = ctx.handler,
          broker = ctx.broker,
          app = ctx.app.title,
          unknown = ctx.unknown,
        }
        ctx.mine = "set"
        got.mine = ctx.mine
        assert(ctx.time and ctx.position and ctx.fields and ctx.log and ctx.message)
        assert.matches("weir.context%(orders, orders%)", tostring(ctx))
      end)
      t:send("orders", { n = 1 }, { a = "b", ["partition-key"] = "k", ["message-id"] = "m1" })
      t:counted(running, "ack", 1)
      assert.same({
        value = { n = 1 },
        name = "orders",
        attempt = 1,
        key = "k",
        header = "b",
        id = "m1",
        correlation = "m1",
        state = 42,
        payload = '{"n":1}',
        handler = "orders",
        broker = "main",
        app = "spec",
        mine = "set",
      }, got)
    end)
  end)

  it("acknowledges with nothing, true or weir.ack()", function()
    for _, fn in ipairs({
      function() end,
      function()
        return true
      end,
      function()
        return outcome.ack()
      end,
      function(_, ctx)
        return ctx and outcome.ack()
      end,
    }) do
      local stats = outcome_of({}, fn, "ack")
      assert.equal(1, stats.ack)
      assert.equal(0, stats.retry + stats.drop)
    end
  end)

  it("fails by raising, with nil and an error, with an error, and with weir.fail", function()
    for _, fn in ipairs({
      function()
        error("broken")
      end,
      function()
        error({ code = "mine" })
      end,
      function()
        error()
      end,
      function()
        error(setmetatable({}, {
          __tostring = function()
            error("unprintable")
          end,
        }))
      end,
      function()
        return nil, "broken"
      end,
      function()
        return nil, errors.new("broken", "x")
      end,
      function()
        return errors.new("broken", "x")
      end,
      function()
        return outcome.fail("broken")
      end,
      function()
        weir.sleep(0.001)
        error("broken after a wait")
      end,
    }) do
      local stats = outcome_of({ policy = NO_WAIT }, fn, "drop")
      assert.equal(0, stats.ack)
      assert.equal(2, stats.retry)
      assert.equal(2, stats.redeliveries)
      assert.equal(1, stats.drop)
    end
  end)

  it("that went into a recursion without end is traced no further than its last calls", function()
    local function deeper()
      return 1 + deeper()
    end
    local ok, result = xpcall(deeper, handle.raised)
    assert.is_false(ok)
    assert.matches("stack overflow", result.error)
    local _, lines = result.traceback:gsub("\n", "")
    assert.equal(11, lines)
    assert.matches("^stack traceback:\n\t[^\n]*handle_spec.lua:%d+\n.*\n\t%.%.%.$", result.traceback)
  end)

  it("goes on with the next message after one that raised", function()
    run(function(t)
      local values = {}
      local running = t:start("in", { policy = { on_failure = "drop" } }, function(value)
        if value.n % 2 == 0 then
          error("even")
        end
        values[#values + 1] = value.n
      end)
      for n = 1, 6 do
        t:send("in", { n = n })
      end
      t:counted(running, "drop", 3)
      assert.same({ 1, 3, 5 }, values)
      assert.equal(6, running:stats().consumed)
      assert.equal(3, running:stats().ack)
      assert.equal(6, t.metrics:value("weir_messages_consumed_total"))
      assert.equal(3, t.metrics:value("weir_messages_processed_total", { outcome = "ack" }))
      assert.equal(3, t.metrics:value("weir_messages_processed_total", { outcome = "drop" }))
    end)
  end)

  it("drops with weir.drop, and there is no dead letter of it", function()
    run(function(t)
      local dead = t:spy("dead")
      local running = t:start("in", { policy = DEAD }, function()
        return outcome.drop("not for us")
      end)
      t:send("in", {})
      t:counted(running, "drop", 1)
      t.settle()
      assert.equal(0, #dead)
      assert.is_true(t:logged("not for us"))
    end)
  end)

  it("is told the attempt, which rises", function()
    local attempts = {}
    outcome_of({ policy = NO_WAIT }, function(_, ctx)
      attempts[#attempts + 1] = ctx.attempt
      return nil, "again"
    end, "drop")
    assert.same({ 1, 2, 3 }, attempts)
  end)

  it("that answers with what it has no place for fails as unknown_outcome", function()
    for _, value in ipairs({ "text", 5, { 1 }, false }) do
      local classes = {}
      local stats, t = outcome_of({ policy = { retry = { on = function(err)
        classes[#classes + 1] = err.code
        return "drop"
      end } } }, function()
        return value
      end, "drop")
      assert.same({ "unknown_outcome" }, classes)
      assert.equal(0, stats.ack)
      assert.is_true(t:logged("unknown_outcome"))
    end
  end)

  it("that yields by itself fails, also with a timeout, and the next message is handled", function()
    for _, timeout in ipairs({ false, 5 }) do
      run(function(t)
        local running = t:start("in", { timeout = timeout or nil, policy = DROP }, function(value)
          if value.n == 1 then
            coroutine.yield()
          end
        end)
        t:send("in", { n = 1 })
        t:send("in", { n = 2 })
        t:counted(running, "drop", 1)
        t:counted(running, "ack", 1)
        assert.is_true(t:logged("a task called coroutine.yield()"))
      end)
    end
  end)

  it("that raises a table without a text is logged with its fields", function()
    local _, t = outcome_of({ policy = DROP }, function()
      error({ reason = "no stock", item = 5, list = {} })
    end, "drop")
    assert.is_true(t:logged([[{ item = 5, reason = \"no stock\", ... }]]))
  end)

  it("that misuses an outcome in its last line is not blamed on weir", function()
    local _, t = outcome_of({ policy = DROP, source = "app.lua:5" }, function()
      return weir.retry({ afer = 1 })
    end, "drop")
    assert.is_true(t:logged('error="weir.retry: unknown option'))
    assert.is_true(t:logged("source=app.lua:5"))
    assert.is_false(t:logged("handle.lua"))
  end)

  it("that names an output or a place wrongly is told so", function()
    local _, t = outcome_of({ policy = DROP, outputs = { billing = "b" } }, function()
      return weir.outputs({ biling = 1 })
    end, "drop")
    assert.is_true(t:logged("no output 'biling'; did you mean 'billing'?"))
    _, t = outcome_of({ policy = DROP, reply = "b" }, function()
      return print
    end, "drop")
    assert.is_true(t:logged("what the handler answered could not be published to 'b': "))
  end)

  it("that answers with false fails even where it has a place for replies", function()
    local stats = outcome_of({ reply = "out", policy = { on_failure = "drop" } }, function()
      return false
    end, "drop")
    assert.equal(1, stats.drop)
  end)

  it("whose policy acknowledges failures is done with them", function()
    local stats = outcome_of({ policy = { on_failure = "ack" } }, function()
      error("never mind")
    end, "ack")
    assert.equal(1, stats.ack)
  end)

  it("whose policy stops gives the message back and ends the service with the error", function()
    run(function(t)
      local running = t:start("in", { policy = { on_failure = "stop" } }, function()
        error(errors.new("fatal", "no more"))
      end)
      t:send("in", {})
      t:until_true(function()
        return #t.stops == 1
      end)
      assert.equal("fatal", t.stops[1].code)
      assert.equal("in", t.stops[1].handler)
      assert.equal(1, running:stats().returned)
      assert.equal("failed", running:stats().state)
      running:close(1)
      local again = assert(t.broker:subscribe(running.registration.descriptor))
      assert.equal("{}", assert(again:next(1)).payload)
    end)
  end)
end)

describe("a message that cannot be read", function()
  it("is dropped with an error in the log where there are no dead letters", function()
    local called = false
    local stats, t = outcome_of({ policy = NO_WAIT }, function()
      called = true
    end, "drop", "{not json")
    assert.is_false(called)
    assert.same({ 1, 1, 0 }, { stats.drop, stats.decode_failures, stats.retry })
    assert.is_true(t:logged("error"))
    assert.equal(1, t.metrics:value("weir_decode_failures_total"))
  end)

  it("becomes a dead letter with its payload untouched and the reason beside it", function()
    run(function(t)
      local dead = t:spy("dead")
      local running = t:start("in", { policy = DEAD }, function() end)
      t:send("in", "\0{bad", { ["content-type"] = "application/json", mine = "kept" })
      t:counted(running, "dead_letter", 1)
      t:until_true(function()
        return #dead == 1
      end)
      assert.equal("\0{bad", dead[1].payload)
      local headers = dead[1].headers
      assert.equal("kept", headers.mine)
      assert.equal("decode", headers["weir-error-code"])
      assert.is_string(headers["weir-error"])
      assert.equal("in", headers["weir-original-destination"])
      assert.equal("1", headers["weir-attempt"])
      assert.equal("in", headers["weir-handler"])
      assert.matches("^1970%-01%-12T13:46:40.000Z$", headers["weir-first-failure"])
      assert.equal(headers["weir-first-failure"], headers["weir-dead-lettered"])
    end)
  end)

  it("is one that the schema refuses, too, and the field is named", function()
    run(function(t)
      local dead = t:spy("dead")
      local order = schema({ type = "object", properties = { id = { type = "integer" } } })
      local running = t:start("in", { schema = order, policy = DEAD }, function() end)
      t:send("in", { id = "x" })
      t:send("in", { id = 5 })
      t:counted(running, "dead_letter", 1)
      t:counted(running, "ack", 1)
      t.settle()
      assert.equal("schema", dead[1].headers["weir-error-code"])
      assert.matches("id", dead[1].headers["weir-error"])
      assert.equal(1, running:stats().decode_failures)
    end)
  end)

  it("is one whose headers the schema refuses, before its handler or a filter sees it", function()
    run(function(t)
      local dead, seen = t:spy("dead"), {}
      local headers = header_schema.new({ properties = { Tenant = "string", tries = "integer?" } })
      local running = t:start("in", { header_schema = headers, policy = DEAD }, function(_, ctx)
        seen[#seen + 1] = ctx.headers.tries
      end)
      t:send("in", 1, { tenant = "blue", tries = "3", ["message-id"] = "m" })
      t:send("in", 1, { tenant = "blue", tries = "x" })
      t:send("in", 1)
      t:send("in", 1)
      t:counted(running, "dead_letter", 3)
      t:counted(running, "ack", 1)
      t.settle()
      assert.same({ "3" }, seen)
      assert.equal("schema", dead[1].headers["weir-error-code"])
      assert.matches("headers: tries: must be an integer, not a string", dead[1].headers["weir-error"])
      assert.matches("headers: tenant: is missing", dead[2].headers["weir-error"])
      assert.equal(3, running:stats().decode_failures)
    end)
  end)

  it("may be retried if the policy says so, and ends after the last attempt", function()
    local stats = outcome_of({
      policy = { retry = { backoff = "none", max_attempts = 4 }, on_failure = { decode = "retry" } },
    }, function() end, "drop", "{")
    assert.equal(3, stats.retry)
  end)
end)

describe("the codec", function()
  it("is that of the content type, where the message has one that is known", function()
    run(function(t)
      local values = {}
      local running = t:start("in", { codec = "msgpack" }, function(value)
        values[#values + 1] = value.a
      end)
      t:send("in", '{"a":1}', { ["content-type"] = "application/json; charset=utf-8" })
      t:send("in", '{"a":2}', { ["content-type"] = "application/vnd.thing+json" })
      t:send("in", "\x81\xa1a\x03", { ["content-type"] = "application/msgpack" })
      t:send("in", "\x81\xa1a\x04", { ["content-type"] = "text/plain" })
      t:send("in", "\x81\xa1a\x05")
      t:send("in", "\xa1aa\x06", { ["content-type"] = "application/cbor" })
      t:counted(running, "ack", 6)
      assert.same({ 1, 2, 3, 4, 5, 6 }, values)
    end)
  end)

  it("raw hands out the bytes whatever the content type", function()
    for _, timeout in ipairs({ false, 5 }) do
      run(function(t)
        local got
        local running = t:start("in", { codec = "raw", timeout = timeout }, function(value)
          got = value
        end)
        t:send("in", '{"a":1}', { ["content-type"] = "application/json" })
        t:counted(running, "ack", 1)
        assert.equal('{"a":1}', got)
      end)
    end
  end)

  it("remembers no more content types than a peer may make up", function()
    run(function(t)
      local running = t:start("in", function() end)
      for i = 1, 600 do
        t:send("in", "{}", { ["content-type"] = "x/" .. i })
      end
      t:counted(running, "ack", 600)
    end)
  end)
end)

describe("filters", function()
  local function filtered(log)
    local function note(name)
      return function(value)
        log[#log + 1] = ("%s%d"):format(name, value.n)
      end
    end
    return {
      { id = "a", fn = note("a"), filter = function(ctx)
        return ctx.headers.kind == "a"
      end },
      { id = "b", fn = note("b"), filter = function(_, value)
        return value.n > 5
      end },
      { id = "rest", fn = note("rest") },
    }
  end

  it("choose the handler by headers or value; the one without is for the rest", function()
    run(function(t)
      local log = {}
      local running = t:start("in", { handlers = filtered(log) })
      t:send("in", { n = 1 }, { kind = "a" })
      t:send("in", { n = 9 })
      t:send("in", { n = 2 })
      t:counted(running, "ack", 3)
      assert.same({ "a1", "b9", "rest2" }, log)
    end)
  end)

  it("that let nobody have it leave a failure of its own", function()
    run(function(t)
      local dead = t:spy("dead")
      local handlers = filtered({})
      handlers[3] = nil
      handlers[2].policy = DEAD
      local running = t:start("in", { handlers = handlers })
      t:send("in", { n = 1 })
      t:counted(running, "dead_letter", 1)
      t.settle()
      assert.equal("no_handler", dead[1].headers["weir-error-code"])
    end)
  end)

  it("that raise are failures of their handler", function()
    run(function(t)
      local handlers = { { id = "a", fn = print, policy = NO_WAIT, filter = function()
        error("filter is broken")
      end }, { id = "rest", fn = print } }
      local running = t:start("in", { handlers = handlers })
      t:send("in", {})
      t:counted(running, "drop", 1)
      assert.is_true(t:logged("filter is broken"))
    end)
  end)
end)

describe("middleware", function()
  it("goes around the handler, the first outermost, and may change value and answer", function()
    run(function(t)
      local log = {}
      local function around(name)
        return function(value, ctx, next)
          log[#log + 1] = name .. " in " .. ctx.name
          value.seen = (value.seen or "") .. name
          local result = next(value, ctx)
          log[#log + 1] = name .. " out"
          return result
        end
      end
      local running = t:start("in", { middleware = { around("a"), around("b") } }, function(value)
        log[#log + 1] = "handler " .. value.seen
      end)
      t:send("in", {})
      t:counted(running, "ack", 1)
      assert.same({ "a in in", "b in in", "handler ab", "b out", "a out" }, log)
    end)
  end)

  it("may answer without the handler, and fails as the handler would", function()
    local stats = outcome_of({ middleware = { function()
      return outcome.drop("refused")
    end } }, function()
      error("never called")
    end, "drop")
    assert.equal(1, stats.drop)
    stats = outcome_of({ policy = NO_WAIT, middleware = { function()
      error("broken")
    end } }, function() end, "drop")
    assert.equal(2, stats.retry)
  end)
end)

describe("settling by hand", function()
  it("takes the place of what happens at the end", function()
    run(function(t)
      local results = {}
      local running = t:start("in", function(_, ctx)
        results[1] = ctx:ack()
        local _, err = ctx:ack()
        results[2] = err.code
        _, err = ctx:nack()
        results[3] = err.code
      end)
      t:send("in", {})
      t:counted(running, "ack", 1)
      t.settle()
      assert.same({ true, "settled", "settled" }, results)
      assert.equal(1, running:stats().ack)
    end)
  end)

  it("gives back with a delay", function()
    run(function(t)
      local calls = 0
      local running = t:start("in", function(_, ctx)
        calls = calls + 1
        if calls == 1 then
          assert.is_true(ctx:nack({ delay = 10 }))
        end
      end)
      t:send("in", {})
      t:counted(running, "retry", 1)
      t.settle()
      assert.equal(1, calls)
      t:advance(10)
      t:counted(running, "ack", 1)
    end)
  end)

  it("is not undone by a failure later in the handler", function()
    run(function(t)
      local running = t:start("in", { policy = DEAD }, function(_, ctx)
        ctx:ack()
        error("too late")
      end)
      t:send("in", {})
      t:counted(running, "ack", 1)
      t:until_true(function()
        return t:logged("after it had settled")
      end)
      assert.equal(0, running:stats().retry)
    end)
  end)

  it("may come after the end of a handler that is manual; until then the message is not done", function()
    run(function(t)
      local kept = {}
      local running = t:start("in", { manual = true }, function(_, ctx)
        kept[#kept + 1] = ctx
      end)
      t:send("in", {})
      t:send("in", {})
      t:until_true(function()
        return #kept == 2
      end)
      assert.equal(2, running:drain(0))
      assert.is_true(kept[1]:ack())
      assert.is_true(kept[1].message ~= nil)
      assert.equal(1, running:drain(0))
      running:close(0)
      assert.equal(1, running:stats().ack)
      local again = assert(t.broker:subscribe(running.registration.descriptor))
      assert.equal(2, assert(again:next(1)).attempts)
    end)
  end)

  it("of a message whose handler failed is too late", function()
    run(function(t)
      local kept
      local running = t:start("in", { policy = { on_failure = "drop" } }, function(_, ctx)
        kept = ctx
        error("x")
      end)
      t:send("in", {})
      t:counted(running, "drop", 1)
      local ok, err = kept:ack()
      assert.is_nil(ok)
      assert.equal("settled", err.code)
    end)
  end)
end)

describe("what is to be done after the acknowledgement", function()
  it("is done once, after it, off the path of the message", function()
    run(function(t)
      local log = {}
      local running
      running = t:start("in", function(_, ctx)
        ctx:after_ack(function(c)
          log[#log + 1] = "after " .. running:stats().ack .. " " .. c.name
          weir.sleep(0.001)
        end)
        log[#log + 1] = "handled"
      end)
      t:send("in", {})
      t:until_true(function()
        return #log == 2
      end)
      assert.equal(0, running:drain(1))
      assert.same({ "handled", "after 1 in" }, log)
    end)
  end)

  it("is not done when the message fails, and an error in it is logged", function()
    run(function(t)
      local ran = 0
      local running = t:start("in", { policy = NO_WAIT }, function(value, ctx)
        ctx:after_ack(function()
          ran = ran + 1
          error("afterwards")
        end)
        if value.bad then
          error("bad")
        end
      end)
      t:send("in", { bad = true })
      t:counted(running, "drop", 1)
      assert.equal(0, running:drain(1))
      assert.equal(0, ran)
      t:send("in", {})
      t:until_true(function()
        return t:logged("afterwards")
      end)
      assert.equal(1, ran)
    end)
  end)

  it("is done at once where the handler has acknowledged already", function()
    run(function(t)
      local done
      t:start("in", function(_, ctx)
        ctx:ack()
        ctx:after_ack(function()
          done = true
        end)
      end)
      t:send("in", {})
      t:until_true(function()
        return done
      end)
    end)
  end)
end)

describe("an observer", function()
  it("is told of each step, for any kind of handler", function()
    local events = {}
    local function note(name)
      return function(_, ...)
        events[#events + 1] = { name, ... }
      end
    end
    local observer = { received = note("received"), handled = note("handled"), settled = note("settled") }
    run({ observer = observer }, function(t)
      local running = t:start("in", { policy = { on_failure = "drop" } }, function(value)
        if value.bad then
          error("bad")
        end
      end)
      t:send("in", {})
      t:send("in", { bad = true })
      t:send("in", "{")
      t:counted(running, "drop", 2)
      local names = {}
      for i, event in ipairs(events) do
        names[i] = event[1] .. (event[1] == "handled" and " " .. event[5] or event[1] == "settled" and " " .. event[3]
          or "")
      end
      assert.same({
        "received", "handled ack", "settled ack",
        "received", "handled fail", "settled drop",
        "received", "handled fail", "settled drop",
      }, names)
    end)
  end)
end)
