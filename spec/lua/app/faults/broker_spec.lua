local support = require("spec.lua.app.faults.support")

-- Waits until each published job was handled (and its end is one for good), in which process it may be.
local function all_handled(service, program)
  service:until_true(program, function()
    local handled = service:all("a")
    for id in pairs(service:all("p")) do
      if not handled[id] then
        return false
      end
    end
    return true
  end)
end

-- Waits until the program has logged this.
local function logged(program, text)
  program:await(function()
    return program:err():find(text, 1, true)
  end)
end

-- The status and the errors of a program that ends by itself.
local function ends(program)
  local status, _, err = program:wait(20)
  return status, err
end

describe("a broker", function()
  support.each_broker({ "durable", "nats" }, function(new_service, place)
    it("that is down at the start is waited for, and the service starts when it is there", function()
      local service = new_service()
      service.log_level = "info"
      place:restart(function()
        local program = service:start({ LAST = 3 })
        logged(program, "the broker cannot be reached; trying again")
        return program
      end, function(program)
        logged(program, "started")
        service:until_true(program, function()
          return service.count.p == 3
        end)
        all_handled(service, program)
        service:stop(program)
      end)
    end)

    it("that is still down when the time for the start is over ends the service with its name", function()
      local service = new_service()
      local port = place.server.url:match(":(%d+)$")
      place:restart(function()
        local status, err = ends(service:start({ START = 0.2 }))
        assert.equal(1, status)
        assert.matches("the broker '%l+' at [^ ]*" .. port .. " cannot be used: ", err)
        assert.is_nil(service:all("p")[1])
      end, function() end)
    end)

    it("that is killed under load and comes back loses nothing that it had confirmed", function()
      local service = new_service()
      service.log_level = "warn"
      local program = service:start({ LAST = 100000, PAUSE = 0.001, WORKERS = 4 })
      service:await(program, "a", 20)
      place:restart(function()
        logged(program, "the broker is away")
      end, function()
        -- It takes new jobs again, which it did not confirm while it was away.
        service:await(program, "a", 50)
        service:stop(program)
      end)
      program = service:start({ FIRST = 100001, LAST = 100001, WORKERS = 4 })
      service:until_true(program, function()
        return service:all("p")[100001]
      end)
      all_handled(service, program)
      service:stop(program)
    end)
  end)

  support.each_broker({ "nats" }, function(new_service, place)
    it("that refuses the account ends the service at once, and never shows the password", function()
      local service = new_service()
      place:with_password("service", "horse", function(url)
        local status, err = ends(service:start({ URL = url:gsub("//", "//service:wrong-staple@") }))
        assert.equal(1, status)
        assert.matches("cannot be used", err)
        assert.is_nil(err:find("staple", 1, true))
        local program = service:start({ URL = url:gsub("//", "//service:horse@"), LAST = 1 })
        service:await(program, "a", 1)
        service:stop(program)
      end)
    end)
  end)

  support.each_broker({ "durable" }, function(new_service, place)
    it("that refuses the account ends the service at once", function()
      local service = new_service()
      place:with_proxy(function()
        return "401"
      end, function(url)
        local status, err = ends(service:start({ URL = url }))
        assert.equal(1, status)
        assert.matches("cannot be used", err)
      end)
    end)

    it("that does not know the account any more ends the service, and nothing is lost", function()
      local service = new_service()
      local revoked = false
      place:with_proxy(function()
        return revoked and "401" or nil
      end, function(url)
        local program = service:start({ URL = url, LIVE = "long-poll", LAST = 100000 })
        service:await(program, "a", 5)
        revoked = true
        local status, err = ends(program)
        assert.equal(1, status)
        assert.matches("401", err)
      end)
      local program = service:start()
      all_handled(service, program)
      service:stop(program)
    end)
  end)

  support.each_broker({ "memory" }, function(new_service)
    it("whose directory another service has is waited for, until that one is killed", function()
      local service = new_service()
      service.log_level = "warn"
      local first = service:start({ LAST = 2 })
      service:await(first, "a", 2)
      local second = service:start({ FIRST = 3, LAST = 4 })
      logged(second, "the broker cannot be reached; trying again")
      first:kill("sigkill")
      first:wait()
      service:await(second, "a", 2)
      service:stop(second)
      assert.same({ 1, 1, 1, 1 }, (service:all("h")))
    end)

    it("whose directory is none ends the service at once", function()
      local service = new_service()
      local status, err = ends(service:start({ DIR = "/dev/null/state" }))
      assert.equal(1, status)
      assert.matches("cannot be used", err)
    end)

    it("that is full takes no reply, and the message stays until there is room", function()
      local service = new_service("crowded.lua")
      local program = service:start({ LAST = 30, ROOM = 8 })
      service:until_true(program, function()
        return service.count.full and service.count.p == 30
      end)
      service:until_true(program, function()
        local replies = service:all("r")
        for id = 1, 30 do
          if not replies[id] then
            return false
          end
        end
        return true
      end)
      service:stop(program)
    end)
  end)
end)

describe("dead letters", function()
  support.each_broker({ "durable", "nats" }, function(new_service)
    it("that have no place keep their message, which gets there when the place is made", function()
      local service = new_service("graveless.lua")
      local program = service:start()
      service:until_true(program, function()
        return service.count.degraded
      end)
      service:until_true(program, function()
        return service.count.d
      end)
      service:stop(program)
    end)
  end)
end)

describe("two handlers of one name", function()
  support.each_broker(nil, function(new_service)
    it("keep the service from starting, and both are named", function()
      local service = new_service("twins.lua")
      local status, err = ends(service:start())
      assert.equal(1, status)
      assert.matches("twins.lua:%d+: .*twins.lua:%d+", err)
      assert.same({}, service:read())
    end)
  end)
end)
