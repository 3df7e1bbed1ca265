local support = require("spec.lua.app.faults.support")

describe("a service that is told to end under load", function()
  support.each_broker(nil, function(new_service)
    it("finishes what it has begun, begins nothing more, and leaves the rest to the next", function()
      local service = new_service()
      local program = service:start({ LAST = 100000, WORKERS = 8, PAUSE = 0.002 })
      service:await(program, "h", 60)
      service:stop(program)
      assert.equal("x", service.lines[#service.lines][1]) -- nothing happened after its end
      local begun, handled, published = service:all("b"), service:all("h"), service:all("p")
      assert.same(begun, handled)
      for id, times in pairs(handled) do
        assert.equal(1, times, "handled twice: " .. id)
      end

      local mark = #service.lines + 1
      program = service:start({ WORKERS = 8 })
      service:until_true(program, function()
        local now = service:all("h", mark)
        for id in pairs(published) do
          if not handled[id] and not now[id] then
            return false
          end
        end
        return true
      end)
      service:stop(program)
      for id in pairs(service:all("h", mark)) do
        assert.is_nil(handled[id], "acknowledged, and handled again: " .. id)
      end
    end)

    it("gives back what does not end in time", function()
      local service = new_service()
      local program = service:start({ LAST = 3, PAUSE = 60, SHUTDOWN = 0.05 })
      service:until_true(program, function()
        return service.count.p == 3 and service.count.b
      end)
      service:stop(program)
      assert.same({}, service:all("a"))
      program = service:start()
      service:until_true(program, function()
        local done = service:all("a")
        return done[1] and done[2] and done[3]
      end)
      service:stop(program)
    end)
  end)
end)
