local support = require("spec.lua.app.faults.support")
local runtime = require("weir.runtime")
local tasks = require("weir.task")

-- WEIR_SOAK_SECONDS and WEIR_SOAK_SEED say for how long, and how the faults fall. The seed is in every failure; what
-- it does not decide is the time that things take.
local GIVEN = tonumber(os.getenv("WEIR_SOAK_SECONDS"))
local SECONDS = GIVEN or 5
local SEED = math.tointeger(tonumber(os.getenv("WEIR_SOAK_SEED"))) or os.time() % 1000000

local BROKERS = { "memory", "durable", "nats" }

local function highest(service)
  local id = 0
  for each in pairs(service:all("p")) do
    id = math.max(id, math.tointeger(each))
  end
  return id
end

-- Jobs that were published and are neither done nor dead.
local function missing(service)
  local done, dead, list = service:all("h"), service:all("d"), {}
  for id in pairs(service:all("p")) do
    if not done[id] and not dead[id] then
      list[#list + 1] = id
    end
  end
  table.sort(list)
  return list
end

describe("an application under random faults", function()
  support.each_broker(BROKERS, function(new_service)
    it("handles or buries everything that was published", function()
      local label = ("WEIR_SOAK_SEED=%d WEIR_SOAK_SECONDS=%g"):format(SEED, SECONDS)
      local random = SEED
      local function roll(sides)
        random = (random * 1103515245 + 12345) % 0x80000000
        return (random >> 8) % sides
      end
      local service = new_service("restless.lua")
      local lives = 0
      local deadline = runtime.now() + SECONDS / #BROKERS
      repeat
        service:read()
        -- Numbers of a publish that was under way are not used again.
        lives = lives + 1
        local program = service:start({ SEED = SEED, LIFE = lives, FIRST = highest(service) + 100 })
        -- It dies by its own hand, or after so many lines it is told to end, or killed.
        local signal, lines = roll(2) == 0 and "sigterm" or "sigkill", #service.lines + 20 + roll(800)
        while not program.status and #service.lines < lines do
          service:read()
          tasks.sleep(0.002)
        end
        program:kill(signal)
        local status, _, err = program:wait(20)
        assert(status == 137 or status == 143, ("%s: status %d:\n%s"):format(label, status, err))
      until runtime.now() > deadline and lives >= 3 and next((service:all("d")))

      local program = service:start({ SEED = SEED, FIRST = 0, CALM = true })
      local ok = pcall(service.until_true, service, program, function()
        return #missing(service) == 0
      end)
      local left = missing(service)
      assert(ok, ("%s: %d jobs are missing, such as %s; after %d lives"):format(label, #left, left[1], lives))
      service:stop(program)
      local published, done, dead = service:all("p"), service:all("h"), service:all("d")
      for id in pairs(published) do
        assert(done[id] or dead[id], label)
      end
      assert(lives > 1 and next(done) and next(dead), label)
      if GIVEN then
        local text = "  %s: %d lives, %d published, %d done, %d dead"
        print(text:format(label, lives, support.size(published), support.size(done), support.size(dead)))
      end
    end)
  end)
end)
