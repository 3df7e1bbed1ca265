local programs = require("spec.programs")
local scope = require("spec.lua.scope")
local servers = require("spec.lua.nats_server")
local weir = require("weir")

local FILE = "examples/bakery.lua"

after_each(scope.close)

describe(FILE, function()
  it("has its wiring right", function()
    local status, out = programs.run({ "lua5.4", "lua/bin/weir", "run", FILE, "--check" })
    assert.same({ 0, "bakery 1.0.0: the wiring is right\n" }, { status, out })
  end)

  it("bakes what is ordered on NATS, and what was ordered while it was away", function()
    if not servers.available() then
      return pending("nats-server is not installed: spec/setup test")
    end
    local server = servers.start({ jetstream = true })
    scope.finally(function()
      server:stop()
    end)
    local broker = weir.broker(server.url, { jetstream = true })
    assert(broker:connect(10))
    scope.finally(function()
      broker:shutdown(1)
    end)
    local function start()
      local words = { "lua5.4", "lua/bin/weir", "run", FILE, "--log-level", "info", "--env", "BROKER=" .. server.url }
      local program = scope.start(words)
      program:await(function()
        return program:err():find("started")
      end)
      return program
    end
    local function order(id)
      assert(broker:publisher():publish("bakery.orders", ('{"id":"%s","bread":"rye","loaves":2}'):format(id)))
    end
    local first = start()
    order("a")
    -- What comes to it while it ends is kept back by the server until ack_wait is over.
    first:await(function()
      return first:out():find("order a: 2 loaves of rye bread")
    end)
    first:kill("sigterm")
    assert.equal(143, (first:wait()))
    order("b")
    local second = start()
    second:await(function()
      return second:out():find("order b: 2 loaves of rye bread")
    end)
    second:kill("sigint")
    assert.equal(130, (second:wait()))
  end)
end)
