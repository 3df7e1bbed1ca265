--- A service with a place for dead letters that is not there: it says `h ATTEMPT` when its handler fails, `degraded`
-- when it knows that the message cannot be buried, makes the place then, and says `d` when the letter is there.
local ledger = require("spec.lua.app.faults.ledger")
local place = require("spec.lua.app.faults.place")
local weir = require("weir")

local JOBS, DEAD = place.name("jobs"), place.name("dead")

local stream = place.name("dead"):gsub("%.", "-")
local target = place.target("dead")
if place.kind == "nats" then
  target.stream, target.create = stream, { subjects = { DEAD } }
end

local app = weir.app("graveless", "1", { retry = { max_attempts = 1 }, dead_letter = DEAD })
app:broker(place.broker({
  durable = { create = false },
  nats = { jetstream = { stream = JOBS:gsub("%.", "-"), create = { subjects = { JOBS } } } },
}))

app:subscriber(place.target("jobs"), { name = "jobs" }, function(_, ctx)
  ledger.say("h", ctx.attempt)
  error("no")
end)

-- Makes a stream that the application's own broker would not make.
local function make(name)
  if place.kind == "durable" then
    local maker = place.broker()
    assert(maker:connect(5))
    assert(maker:stream(name, 5))
    assert(maker:shutdown(5))
  end
end

app:on("startup", function()
  make(JOBS)
end)

app:on("started", function()
  assert(app:publisher({ to = JOBS }):publish(1))
  weir.spawn(function()
    repeat
      weir.sleep(0.005)
    until app:health().handlers.jobs.state == "degraded"
    ledger.say("degraded")
    make(DEAD)
    assert(app:subscriber(target, { name = "dead", dead_letter = false }, function()
      ledger.say("d")
    end))
  end)
end)

return app
