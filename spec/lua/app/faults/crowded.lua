--- A service whose replies have too little room: it says `p ID`, `full ID` for a reply that is refused, `r ID` for one
-- that came.
local ledger = require("spec.lua.app.faults.ledger")
local place = require("spec.lua.app.faults.place")
local weir = require("weir")

local app = weir.app("crowded", "1", {
  retry = { max_attempts = false, backoff = { initial = 0.01, factor = 1, jitter = 0 } },
})
app:broker(place.broker({ memory = { store = { sync = false } } }))

app:subscriber(place.target("jobs"), {
  name = "jobs",
  reply = place.name("replies"),
  workers = 4,
  publish_middleware = {
    function(out, next)
      local ok, err = next(out)
      if not ok then
        ledger.say(err.code, out.value)
      end
      return ok, err
    end,
  },
}, function(id)
  return id
end)

local replies = { name = place.name("replies"), capacity = { messages = 1 }, overflow = "reject" }

app:subscriber(replies, { name = "replies" }, function(id)
  weir.sleep(0.002)
  ledger.say("r", id)
end)

local jobs = app:publisher({ to = place.name("jobs") })

app:on("started", function()
  for id = 1, weir.env("LAST", 0) do
    assert(jobs:publish(id))
    ledger.say("p", id)
  end
end)

return app
