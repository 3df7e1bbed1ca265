-- A pipeline: the lines of a log file are validated, enriched, routed and stored, and none is lost on the way.
--
--     weir run examples/pipeline/app.lua
--     weir run examples/pipeline/app.lua --env FILE=/var/log/dpkg.log --env WORKERS=8
--     weir run examples/pipeline/app.lua --env BROKER=nats://127.0.0.1:4222
--
--     lines --> events --> changes --> deliveries --> the store
--       |         |  ^                     |
--       |         v  |                     v
--       |       catalogue          dead (and from there again)
--       v
--     invalid
--
-- It ends when all lines have gone through, with sums that must add up: status 0 only if they do.
local weir = require("weir")

local dpkg = require("dpkg")
local ledger = require("ledger")
local source = require("source")
local store = require("store")

local BROKER = weir.env("BROKER", "memory:")
local WORKERS = weir.env("WORKERS", 4)

-- Names alone say all of it, whatever the broker, if the broker is told once what is meant by them.
local OPTIONS = {
  -- One group takes what comes, and while nobody takes it, it is kept.
  memory = { group = "pipeline" },
  -- Core NATS settles nothing, so a failure could not be given back: names under `pipeline.` belong to a stream, from
  -- which a message is deleted when it is acknowledged. The group keeps its place there, also when this process dies.
  nats = {
    jetstream = {
      stream = "PIPELINE",
      group = "pipeline",
      create = { subjects = { "pipeline.>" }, retention = "workqueue" },
    },
  },
}

local app = weir.app("pipeline", "1.0.0", { description = "Stores the lines of a log, by section." })
local broker = assert(app:broker(weir.broker(BROKER, OPTIONS[BROKER:match("^%a+")])))

local Event = weir.schema({
  title = "Event",
  properties = {
    time = "string",
    action = { type = "string", enum = dpkg.ACTIONS },
    state = "string?",
    package = { type = "string", minLength = 1 },
    version = "string",
  },
})

local pipeline = weir.router({
  prefix = "pipeline.",
  retry = { max_attempts = 4, backoff = { initial = 0.05, factor = 2, max = 1 } },
  dead_letter = "dead",
})

-- What is published because of a message belongs to the same run: its header goes along.
pipeline:publish_use(function(out, next)
  out.headers.run = out.ctx and out.ctx.headers.run
  return next(out)
end)

-- 1. Parse and validate. Two handlers share these lines: the first takes those for which its filter is true.
pipeline:subscriber("lines", { name = "remarks", codec = dpkg.codec, filter = dpkg.is_remark }, function(_, ctx)
  ledger.remark(ctx.headers.run, tonumber(ctx.headers.line))
end)

pipeline:subscriber("lines", {
  name = "validate",
  codec = dpkg.codec,
  schema = Event,
  dead_letter = "invalid",
  reply = { to = "events", codec = "json" },
}, function(event, ctx)
  event.run, event.line = ctx.headers.run, tonumber(ctx.headers.line) -- see source.lua
  event.id = event.run .. "/" .. event.line
  return weir.reply(event, { key = event.package })
end)

-- 2. Enrich: ask somebody who knows more. While one waits for the answer, others go on; those of the same package wait
-- for each other, so that they stay in their order.
pipeline:subscriber("events", {
  name = "enrich",
  workers = { WORKERS, by = "key" },
  reply = "changes",
}, function(event, ctx)
  local answer, err = ctx:request({ package = event.package }, { to = "catalogue" }, 5)
  if not answer then
    return nil, err -- a failure: it is tried again
  end
  event.section = answer.section
  return weir.reply(event, { key = event.package })
end)

-- The catalogue answers where the question asks. It might as well be another program. Its group makes it an ordinary
-- subscription on every broker: questions need not be kept.
app:subscriber({ name = "catalogue", group = "catalogue" }, { reply = true }, function(question, ctx)
  return { section = ctx.state.section_of(question.package) }
end)

-- 3. Route by key: several workers, which take different times, and still each package has its order.
pipeline:subscriber("changes", {
  name = "route",
  workers = { WORKERS, by = "key" },
  reply = "deliveries",
}, function(change, ctx)
  weir.sleep(math.random() * 0.002)
  ledger.route(change, ctx.attempt)
  return weir.reply(change, { key = change.package })
end)

-- 4. Deliver, to a store that fails. What fails four times is a dead letter.
pipeline:subscriber("deliveries", { name = "deliver", timeout = 5 }, function(change)
  local ok, err = store.put(change)
  if not ok then
    return nil, err
  end
  ledger.store(change)
end)

app:include(pipeline)

-- Waits until it is known of each line what became of it. False when nothing has changed for a while, or the
-- application ends.
local function settle()
  local before, patience = nil, weir.now() + 30
  repeat
    ledger.look(broker)
    local settled = ledger.settled()
    if settled ~= before then
      before, patience = settled, weir.now() + 30
    end
    if ledger.all_in and settled >= ledger.lines then
      return true
    end
    weir.sleep(0.1)
  until weir.now() > patience or app:health().state == "stopping"
  return false
end

-- 5. When everything has come to rest, the cause is removed, and the dead letters go once more where they came from.
local function replay()
  if not settle() then
    return
  end
  app:logger():info("the store opens all its sections", { dead_letters = ledger.dead })
  store.closed = {}
  local _, err = weir.dead_letters(broker, "pipeline.dead"):replay({
    limit = math.huge,
    on_letter = ledger.replay,
  })
  if err then
    error(err)
  end
  settle()
end

-- What fails outside of a handler has nobody who tries it again: it ends the application.
local function finish()
  local ok, err = pcall(replay)
  app:request_stop(not ok and err or ledger.flaw())
end

app:on("startup", function()
  store.closed[weir.env("CLOSED", "utils")] = true
  return { section_of = dpkg.catalogue(weir.env("CATALOGUE", "/var/lib/dpkg/status")) }
end)

local lines = app:publisher({ to = "pipeline.lines", codec = dpkg.codec })

app:on("started", function()
  weir.spawn(source.feed, app, lines)
  weir.spawn(finish)
end)

app:on("stopped", function()
  print(ledger.sums())
end)

return app
