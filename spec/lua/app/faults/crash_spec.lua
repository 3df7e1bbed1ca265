local support = require("spec.lua.app.faults.support")

-- Runs the service until it has killed itself.
local function crash(service, env)
  local program = service:start(env)
  assert.equal(137, (program:wait(20)), program:err())
  service:read()
  assert.equal("crash", service.lines[#service.lines][1])
end

local function sorted(set)
  local list = {}
  for id in pairs(set) do
    list[#list + 1] = id
  end
  table.sort(list)
  return list
end

local function numbers(from, to)
  local list = {}
  for i = from, to do
    list[#list + 1] = i
  end
  return list
end

describe("a service that is killed", function()
  support.each_broker(nil, function(new_service)
    it("between handler and acknowledgement handles the message again, and nothing that was acknowledged", function()
      local service = new_service()
      crash(service, { LAST = 12, CRASH = "handled", AT = 5 })
      local published = service:all("p")
      assert.same(numbers(1, 5), sorted(service:all("h")))

      local mark = #service.lines + 1
      local program = service:start({ FIRST = 13, LAST = 13 })
      service:until_true(program, function()
        local handled = service:all("a", mark)
        for id in pairs(published) do
          if id >= 5 and not handled[id] then
            return false
          end
        end
        return handled[13]
      end)
      service:stop(program)
      local again = service:all("h", mark)
      for id = 1, 4 do
        assert.is_nil(again[id], "acknowledged, and handled again: " .. id)
      end

      -- What was handled in the end is settled: the next process gets what is new, and that alone.
      mark = #service.lines + 1
      program = service:start({ FIRST = 14, LAST = 14 })
      service:await(program, "a", 1)
      service:stop(program)
      assert.same({ 14 }, sorted(service:all("h", mark)))
    end)

    it("between its reply and the acknowledgement replies again", function()
      local service = new_service()
      crash(service, { LAST = 4, CRASH = "replied", AT = 3 })
      local program = service:start({ FIRST = 5, LAST = 5 })
      service:until_true(program, function()
        local replies, handled = service:all("r"), service:all("a")
        return replies[1] and replies[2] and (replies[3] or 0) >= 2 and replies[5] and handled[3]
      end)
      service:stop(program)
      local replies = service:all("r")
      for id in pairs(service:all("p")) do
        assert.is_truthy(replies[id], "no reply to " .. id)
      end
    end)

    it("between the copy of a message that is to be tried again and the end of the original loses neither", function()
      local service = new_service()
      crash(service, { LAST = 4, CRASH = "copied", AT = 2, FAILS = 2 })
      local mark = #service.lines + 1
      local program = service:start({ COPIES = true, FAILS = 2, FIRST = 5, LAST = 5 })
      -- The copy and the original end each after its last attempt.
      service:until_true(program, function()
        return (service:all("d", mark)[2] or 0) == 2 and service:all("a")[5]
      end)
      service:stop(program)
      local handled = service:all("h")
      for id in pairs(service:all("p")) do
        assert.is_truthy(handled[id], "lost: " .. id)
      end
    end)

    it("between a dead letter and the end of the message writes it again, and keeps no other from it", function()
      local service = new_service()
      crash(service, { LAST = 4, CRASH = "buried", AT = 2, FAILS = 2 })
      local program = service:start({ FAILS = 2, FIRST = 5, LAST = 5 })
      service:until_true(program, function()
        return (service:all("d")[2] or 0) >= 2 and service:all("a")[5]
      end)
      service:stop(program)
      local mark = #service.lines + 1
      program = service:start({ FIRST = 6, LAST = 6 })
      service:await(program, "a", 1)
      service:stop(program)
      assert.same({ 6 }, sorted(service:all("h", mark)))
      assert.same({}, sorted(service:all("d", mark)))
    end)
  end)
end)
