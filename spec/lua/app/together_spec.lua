-- Applications as a whole: in a program of somebody else's, with several brokers, while they change.
local durable = require("spec.lua.durable.support")
local luv = require("luv")
local support = require("spec.lua.app.support")
local weir = require("weir")

local eventually = support.eventually

describe("an application in a program that runs luv's loop itself", function()
  it("starts, handles and stops in tasks", function()
    local app = support.app()
    app:subscriber("in", { reply = "out" }, function(value)
      return value + 1
    end)
    local publisher = app:publisher({ to = "in" })
    local got, stopped
    local timer = luv.new_timer()
    timer:start(1, 0, function()
      timer:close()
      weir.spawn(function()
        local running = assert(app:start())
        local done = weir.channel()
        assert(app:subscriber("out", function(value)
          done:send(value)
        end))
        assert(publisher:publish(1))
        got = done:recv(5)
        stopped = running:stop()
      end)
    end)
    luv.run()
    assert.equal(2, got)
    assert.is_true(stopped)
  end)

  for _, method in ipairs({ "start", "run" }) do
    it("does not go on by itself when a callback could not wait for its " .. method, function()
      local app = support.app()
      app:subscriber("in", function() end)
      local ok, err
      local timer = luv.new_timer()
      timer:start(1, 0, function()
        timer:close()
        ok, err = pcall(app[method], app)
      end)
      luv.run()
      assert.is_false(ok)
      assert.matches("must not block: call weir.spawn", tostring(err), 1, true)
      weir.run(function()
        eventually(function()
          return app:health().state == "stopped"
        end)
      end)
    end)
  end
end)

describe("subscriptions that come and go while messages flow", function()
  it("lose none of a group, and handle none twice", function()
    weir.run(function()
      local app, broker = support.app()
      support.start(app)
      local target = { name = "in", group = "g", durable = true }
      assert(broker:declare(assert(broker:descriptor(target))))
      local publisher = app:publisher({ to = "in" })
      local count, seen, twice = 0, {}, 0
      local feeder = weir.spawn(function()
        for i = 1, 1000 do
          assert(publisher:publish(i))
          if i % 20 == 0 then
            weir.sleep(0.001)
          end
        end
      end)
      local function handler(value)
        weir.sleep(0.0002)
        twice = twice + (seen[value] and 1 or 0)
        count = count + (seen[value] and 0 or 1)
        seen[value] = true
      end
      local ways = { {}, { workers = 3 }, { workers = { 2, by = "key" } } }
      for round = 1, 15 do
        local handle = assert(app:subscriber(target, ways[round % 3 + 1], handler))
        weir.sleep(0.002)
        assert(handle:close())
        handle = assert(app:batch(target, { max = 8 }, function(values)
          for _, value in ipairs(values) do
            handler(value)
          end
        end))
        weir.sleep(0.002)
        assert(handle:close())
      end
      feeder:join()
      assert(app:subscriber(target, { workers = 4 }, handler))
      eventually(function()
        return count == 1000
      end)
      assert.equal(0, twice)
      support.clean()
    end)
  end)
end)

describe("an application with several brokers", function()
  after_each(support.clean)

  it("answers and asks across them, with one correlation id", function()
    weir.run(function()
      local app = weir.app("test", "1", { log = { level = "off" } })
      app:broker("memory:", { label = "a" })
      app:broker("memory:", { label = "b" })
      local got = {}
      app:subscriber("in", {
        outputs = { log = { to = "log", broker = "b" } },
        reply = { to = "result", broker = "b" },
      }, function(value, ctx)
        local more = assert(ctx:request(value, { to = "more", broker = "b" }, 1))
        return weir.outputs({ log = "seen", reply = more })
      end)
      app:subscriber("more", { broker = "b", reply = true }, function(value)
        return value + 1
      end)
      for _, name in ipairs({ "result", "log" }) do
        app:subscriber(name, { broker = "b" }, function(value, ctx)
          got[name] = { value, ctx.correlation_id, ctx.broker, ctx.headers.traceparent:sub(4, 35) }
        end)
      end
      support.start(app)
      local parent = "00-" .. ("a"):rep(32) .. "-" .. ("b"):rep(16) .. "-01"
      local options = { correlation_id = "one", headers = { traceparent = parent } }
      assert(app:publisher({ to = "in" }):publish(1, options))
      eventually(function()
        return got.result and got.log
      end)
      assert.same({ 2, "one", "b", ("a"):rep(32) }, got.result)
      assert.same({ "seen", "one", "b", ("a"):rep(32) }, got.log)
      support.clean()
    end)
  end)

  if durable.available() then
    it("of which one is a server gets replies and dead letters from one to the other", function()
      weir.run(function()
        local server = durable.server({ quiet = true })
        local ok, err = xpcall(function()
          local app = weir.app("test", "1", { log = { level = "off" } })
          app:broker("memory:")
          app:broker("durable+" .. server.url)
          local got = {}
          app:subscriber("in", {
            reply = { to = "results", broker = "durable" },
            retry = { max_attempts = 1 },
            dead_letter = { to = "dead", broker = "durable" },
          }, function(value)
            if value == 2 then
              error("no", 0)
            end
            return value * 10
          end)
          app:subscriber("results", { broker = "durable", reply = { to = "back", broker = "memory" } }, function(value)
            return value + 1
          end)
          app:subscriber("back", function(value)
            got.back = value
          end)
          app:subscriber("dead", { broker = "durable" }, function(value, ctx)
            got.dead = { value, ctx.headers["weir-error"], ctx.headers["weir-original-destination"] }
          end)
          support.start(app)
          local publisher = app:publisher({ to = "in" })
          assert(publisher:publish(1))
          assert(publisher:publish(2))
          eventually(function()
            return got.back and got.dead
          end, 10)
          assert.equal(11, got.back)
          assert.same({ 2, "no", "in" }, got.dead)
        end, debug.traceback)
        support.clean()
        server:stop()
        assert(ok, err)
      end)
    end)
  end
end)
