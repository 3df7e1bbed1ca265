--- A service that is killed: it takes jobs, answers them, and may die at a certain moment.
--
-- It publishes the jobs FIRST to LAST, and says in its ledger: `p ID` it published one and that was confirmed, `b ID
-- ATTEMPT` its handler has begun, `h ID ATTEMPT` it has ended, `a ID` that was acknowledged for good, `r ID` the reply
-- came, `d ID CODE ATTEMPT` the dead letter came, `x` everything is closed, `crash ID` it is about to die.
--
-- CRASH is the moment: "handled" (the handler has ended, the acknowledgement was not sent), "replied" (the reply is
-- published), "copied" (the copy of a message that is to be tried again is published), "buried" (the dead letter is
-- published); AT is the number of the job at which it happens.
local ledger = require("spec.lua.app.faults.ledger")
local place = require("spec.lua.app.faults.place")
local weir = require("weir")

local CRASH, AT = weir.env("CRASH", ""), weir.env("AT", 0)
local FIRST, LAST = weir.env("FIRST", 1), weir.env("LAST", 0)
local FAILS = weir.env("FAILS", 0) -- the number of the job whose handler fails
local COPIES = weir.env("COPIES", false) -- whether the broker neither counts nor delays, so that there are copies
local PAUSE = weir.env("PAUSE", 0) -- seconds that a handler takes; START, SHUTDOWN: those for that

local say = ledger.say

local app = weir.app("service", "1", {
  retry = { max_attempts = 3, backoff = { initial = 0.02, factor = 1, jitter = 0 } },
  dead_letter = place.name("dead"),
  start_timeout = weir.env("START", 30),
  shutdown_timeout = weir.env("SHUTDOWN", 15),
})
local broker = app:broker(place.broker({ memory = { store = { sync = false } } }))

local function crash(moment, id)
  if CRASH == moment and id == AT then
    place.settle(broker)
    say("crash", id)
    place.die()
  end
end

-- What the application itself publishes, of which no middleware knows: it dies when the broker has it.
local function watch_copies()
  local capabilities, make = broker.capabilities, broker.publisher
  if CRASH == "copied" or COPIES then
    -- The same broker, but one that makes no promises about attempts and delays.
    function broker.capabilities(...)
      local can = capabilities(...)
      can.delay, can.attempts = nil, nil
      return can
    end
  end
  function broker.publisher(...)
    local publisher = make(...)
    local publish = publisher.publish
    function publisher.publish(...)
      local ok, err = publish(...)
      local _, _, payload, headers = ...
      if ok and headers and headers["weir-retry-for"] then
        crash("copied", tonumber(payload))
      elseif ok and headers and headers["weir-error"] then
        crash("buried", tonumber(payload))
      end
      return ok, err
    end
    return publisher
  end
end

if CRASH == "copied" or CRASH == "buried" or COPIES then
  watch_copies()
end

local function around(id, ctx, next)
  local result, err = next(id, ctx)
  crash("handled", id)
  return result, err
end

local function on_reply(out, next)
  local ok, err = next(out)
  if ok then
    crash("replied", out.value)
  end
  return ok, err
end

app:subscriber(place.target("jobs"), {
  name = "jobs",
  reply = place.name("replies"),
  workers = weir.env("WORKERS", 1),
  middleware = { around },
  publish_middleware = { on_reply },
}, function(id, ctx)
  say("b", id, ctx.attempt)
  if PAUSE > 0 then
    weir.sleep(PAUSE)
  end
  ctx:after_ack(function()
    place.settle(broker)
    say("a", id)
  end)
  say("h", id, ctx.attempt)
  if id == FAILS then
    error("no")
  end
  return id
end)

app:subscriber(place.target("replies"), { name = "replies", dead_letter = false }, function(id)
  say("r", id)
end)

app:subscriber(place.target("dead"), { name = "dead", dead_letter = false }, function(id, ctx)
  say("d", id, ctx.headers["weir-error-code"], ctx.headers["weir-attempt"])
end)

local jobs = app:publisher({ to = place.name("jobs") })

-- Publishes until the broker has it; false when there will be no broker any more.
local function publish(id)
  while true do
    local ok, err = jobs:publish(id)
    if ok or err.code == "closed" or err.code == "cancelled" then
      return ok
    end
    weir.sleep(0.01)
  end
end

app:on("started", function()
  weir.spawn(function()
    for id = FIRST, LAST do
      if not publish(id) then
        break
      end
      say("p", id)
    end
  end)
end)

app:on("stopped", function()
  say("x")
end)

return app
