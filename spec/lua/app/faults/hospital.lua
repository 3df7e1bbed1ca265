--- A service whose messages do it harm: what each does is in its payload, `{ id, does }`.
--
-- It publishes the payloads of the file PAYLOADS, one of each line, and says `p LINE`, `h ID ATTEMPT` when
-- harm begins, `good ID ATTEMPT` when there is none, `d PAYLOAD CODE ATTEMPT` for a dead letter.
local ledger = require("spec.lua.app.faults.ledger")
local place = require("spec.lua.app.faults.place")
local weir = require("weir")

local app = weir.app("hospital", "1", {
  retry = { max_attempts = 2, backoff = { initial = 0.01, factor = 1, jitter = 0 } },
  dead_letter = place.name("dead"),
  shutdown_timeout = weir.env("SHUTDOWN", 15),
})
local broker = app:broker(place.broker({ memory = { store = { sync = false } } }))

local Patient = weir.schema({ properties = { id = "integer", does = "string" } })

local harm = {}

function harm.raise()
  error({ not_even = "a string" })
end

function harm.loop()
  while true do
    pcall(function()
      while true do
      end
    end)
  end
end

function harm.hang()
  weir.sleep(3600)
end

function harm.stay()
  while true do
    weir.sleep(3600)
  end
end

function harm.answer()
  return { nobody = "asked" }
end

function harm.nonsense()
  return false
end

function harm.overflow()
  local function deeper()
    return 1 + deeper()
  end
  return deeper()
end

function harm.memory()
  return ("x"):rep(1e17)
end

app:subscriber(place.target("patients"), {
  name = "patients",
  schema = Patient,
  timeout = weir.env("TIMEOUT", 0.2),
  workers = weir.env("WORKERS", 8),
}, function(patient, ctx)
  local does = harm[patient.does]
  ledger.say(does and "h" or "good", patient.id, ctx.attempt)
  return does and does()
end)

app:subscriber(place.target("dead"), { name = "dead", codec = "raw", dead_letter = false }, function(payload, ctx)
  ledger.say("d", payload, ctx.headers["weir-error-code"], ctx.headers["weir-attempt"])
end)

app:on("started", function()
  local publisher = broker:publisher()
  for line in io.lines((os.getenv("PAYLOADS"))) do
    assert(publisher:publish(place.name("patients"), line, { ["content-type"] = "application/json" }))
    ledger.say("p", line)
  end
end)

return app
