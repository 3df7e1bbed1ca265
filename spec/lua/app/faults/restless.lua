--- The service of the soak: it publishes jobs without end, and everything that can happen to one does, by chance.
--
-- What happens to the job ID at its attempt N is decided by SEED, ID and N alone; the process also kills itself by
-- chance, at any moment of a message. With CALM it publishes nothing and does not kill itself. It says `p ID`, `h ID`
-- when the store has the job, `d ID` for its dead letter.
local ledger = require("spec.lua.app.faults.ledger")
local place = require("spec.lua.app.faults.place")
local weir = require("weir")

local SEED, FIRST, CALM = weir.env("SEED", 1), weir.env("FIRST", 1), weir.env("CALM", false)
local LIFE = weir.env("LIFE", 1) -- the number of this process
-- One of so many moments is the last one.
local MOMENTS = 400

local function dice(id, attempt, sides, salt)
  local text = ("%d %d %d %s"):format(SEED, id, attempt, salt)
  local hash = 2166136261
  for i = 1, #text do
    hash = ((hash ~ text:byte(i)) * 16777619) & 0xffffffff
  end
  hash = (hash ~ (hash >> 15)) * 2246822519 & 0xffffffff
  return (hash >> 8) % sides
end

-- Moments differ from one process to the next, or a message whose moment is the last one would kill them all.
local function moment(id, what)
  if not CALM and dice(id, LIFE, MOMENTS, what) == 0 then
    place.die()
  end
end

local app = weir.app("restless", "1", {
  retry = { max_attempts = 3, backoff = { initial = 0.005, factor = 2, jitter = 0.5 } },
  dead_letter = place.name("dead"),
  timeout = 0.5,
})
app:broker(place.broker({ memory = { store = { sync = false } } }))

local happenings = {
  [0] = function()
    error("no")
  end,
  function()
    return nil, { code = "mine" }
  end,
  function()
    return weir.retry({ after = 0.002 })
  end,
  function()
    return false
  end,
  function()
    weir.sleep(0.01)
  end,
}

-- Whether it fails at each attempt.
local function is_hopeless(id)
  return dice(id, 0, 20, "hopeless") == 0
end

app:subscriber(place.target("jobs"), {
  name = "jobs",
  workers = { 4, by = "key" },
  reply = place.name("done"),
  publish_middleware = {
    function(out, next)
      local ok, err = next(out)
      moment(out.value, "replied")
      return ok, err
    end,
  },
}, function(id, ctx)
  moment(id, "taken")
  if is_hopeless(id) then
    error("hopeless")
  end
  local happening = happenings[dice(id, ctx.attempt, 12, "happening")]
  if happening then
    local result, err = happening()
    if result ~= nil or err then
      return result, err
    end
  end
  moment(id, "ended")
  return id
end)

local LAST = { retry = { max_attempts = false }, dead_letter = false }

app:subscriber(place.target("done"), LAST, function(id)
  moment(id, "stored")
  ledger.say("h", id)
end)

app:subscriber(place.target("dead"), LAST, function(id)
  ledger.say("d", id)
end)

local jobs = app:publisher({ to = place.name("jobs") })

app:on("started", function()
  weir.spawn(function()
    local id = FIRST
    while not CALM and jobs:publish(id, { key = tostring(id % 16) }) do
      ledger.say("p", id)
      moment(id, "published")
      id = id + 1
      weir.sleep(0.0005)
    end
  end)
end)

return app
