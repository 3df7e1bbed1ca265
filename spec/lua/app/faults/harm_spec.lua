local support = require("spec.lua.app.faults.support")

-- A line each; what becomes of it: the class of the failure, and the attempts.
local HARM = {
  { '{"id":1,', "decode", 1 },
  { "\255\254\1", "decode", 1 },
  { "", "decode", 1 },
  { '{"id":"one","does":"raise"}', "schema", 1 },
  { "[]", "schema", 1 },
  { '{"id":1,"does":"raise"}', "error", 2 },
  { '{"id":2,"does":"loop"}', "timeout", 2 },
  { '{"id":3,"does":"hang"}', "timeout", 2 },
  { '{"id":4,"does":"stay"}', "timeout", 2 },
  { '{"id":5,"does":"answer"}', "unknown_outcome", 2 },
  { '{"id":6,"does":"nonsense"}', "unknown_outcome", 2 },
  { '{"id":7,"does":"memory"}', "error", 2 },
  { '{"id":8,"does":"overflow"}', "error", 2, slow = true },
}
local SLOW = HARM[#HARM][1]

-- Writes the lines of a service's file, each followed by a good one.
local function prescribe(service, payloads)
  local path = service.dir .. "/payloads"
  local file = assert(io.open(path, "wb"))
  for _, payload in ipairs(payloads) do
    file:write(payload, "\n")
  end
  file:close()
  return path
end

local function good(id)
  return ('{"id":%d,"does":"good"}'):format(id)
end

-- Payload to `code` and `attempt`.
local function dead_of(service)
  local dead = {}
  for _, words in ipairs(service.lines) do
    if words[1] == "d" then
      local payload = words[4] and words[2] or ""
      dead[payload] = { code = words[#words - 1], attempt = tonumber(words[#words]) }
    end
  end
  return dead
end

describe("messages that do harm", function()
  support.each_broker(nil, function(new_service, place)
    it("end as dead letters, each for its reason, and keep no other from being handled", function()
      local service = new_service("hospital.lua")
      local payloads, fast = {}, 0
      for i, each in ipairs(HARM) do
        payloads[#payloads + 1] = not each.slow and each[1] or nil
        payloads[#payloads + 1] = good(100 + i)
        fast = fast + (each.slow and 0 or 1)
      end
      local program = service:start({ PAYLOADS = prescribe(service, payloads) })
      service:until_true(program, function()
        return support.size(dead_of(service)) == fast and support.size(service:all("good")) == #HARM
      end)
      service:stop(program)

      -- All of them are settled: what comes now is all that is new.
      local mark = #service.lines + 1
      program = service:start({ PAYLOADS = prescribe(service, { good(1), SLOW, good(2) }), TIMEOUT = 3600 })
      service:until_true(program, function()
        local now = service:all("good", mark)
        return support.size(dead_of(service)) == #HARM and now[1] and now[2]
      end)
      service:stop(program)
      -- A server that waits for acknowledgements sends it again when this machine is slow, and counts that.
      local function as_often(expected, count, what)
        assert.is_true(count == expected or place.kind == "nats" and count > expected, what)
      end
      local now = service:all("good", mark)
      as_often(1, now[1], "good(1)")
      as_often(1, now[2], "good(2)")
      local dead = dead_of(service)
      for _, each in ipairs(HARM) do
        local letter = assert(dead[each[1]], each[1])
        assert.equal(each[2], letter.code)
        as_often(each[3], letter.attempt, each[1])
      end
    end)

    it("and never end, without a timeout, end with the service and come back", function()
      local service = new_service("hospital.lua")
      local program = service:start({
        PAYLOADS = prescribe(service, { '{"id":1,"does":"stay"}', good(2) }),
        TIMEOUT = 3600,
        SHUTDOWN = 0.05,
        WORKERS = 1,
      })
      service:until_true(program, function()
        return service.count.p == 2 and service.count.h == 1
      end)
      service:stop(program)
      program = service:start({ PAYLOADS = prescribe(service, {}) })
      service:until_true(program, function()
        return service.count.d and service.count.good
      end)
      service:stop(program)
    end)
  end)
end)
