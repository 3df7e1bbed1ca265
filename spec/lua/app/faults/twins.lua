--- A service with two handlers of one name.
local ledger = require("spec.lua.app.faults.ledger")
local place = require("spec.lua.app.faults.place")
local weir = require("weir")

local app = weir.app("twins", "1")
app:broker(place.broker())

app:subscriber(place.target("jobs"), { name = "jobs" }, function() end)
app:subscriber(place.target("others"), { name = "jobs" }, function() end)

app:on("startup", function()
  ledger.say("started")
end)

return app
