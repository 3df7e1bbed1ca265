local servers = require("spec.lua.nats_server")

if not servers.available() then
  return pending("nats-server or libnats is not installed: spec/setup test")
end

local conformance = require("weir.conformance")
local luv = require("luv")
local nats = require("weir.broker.nats")
local tasks = require("weir.task")

local SECRET = "s3cret-of-ann"
local STREAM = { stream = "CONFORMANCE", create = { subjects = { "conformance.>" } } }
local ACK_WAIT = 3

local server
local control = {}

function control.start()
  if not server then
    server = servers.start({ config = ("authorization { user: ann, password: %q }"):format(SECRET) })
    control.port = server.port
  elseif not server.running then
    server:start()
  end
end

function control.kill()
  if server.running then
    server:kill()
  end
end

setup(function()
  tasks.run(control.start)
end)

teardown(function()
  tasks.run(function()
    server:stop()
  end)
end)

local function url(password)
  return ("nats://ann:%s@127.0.0.1:%d"):format(password, server and server.port or 1)
end

-- What both runs have in common; `settings` are options of the broker.
local function options(name, settings, descriptor)
  local function make(password)
    local all = { url = url(password or SECRET), backoff = { initial = 0.05, max = 1 } }
    for option, value in pairs(settings) do
      all[option] = value
    end
    luv.os_setenv("CONFORMANCE_URL", all.url)
    return nats.new(all)
  end
  return {
    name = name,
    make = function()
      return make()
    end,
    unauthorized = function()
      return make("wrong")
    end,
    descriptor = descriptor,
    shared = true,
    secret = SECRET,
    server = control,
    max_payload = 1024 * 1024,
    bad_destinations = { "", ".", "a..b", "a b", "a.*", "a.>", "a\r\nb" },
    timeouts = { delay = 0.5 },
  }
end

conformance.busted(options("nats, core", {}, function(name, wanted)
  if not wanted.durable and not wanted.ack_wait then
    return { name = name, group = wanted.group }
  end
end))

local function consumer(name, wanted)
  return {
    name = name,
    durable = wanted.group and (wanted.group .. "-" .. name:gsub("%.", "-")),
    ack_wait = wanted.ack_wait,
    batch = wanted.prefetch,
  }
end

local PROGRAM = [[
return {
  make = function()
    return require("weir.broker.nats").new({
      url = os.getenv("CONFORMANCE_URL"),
      ack_wait = %d,
      jetstream = { stream = "CONFORMANCE", create = { subjects = { "conformance.>" } } },
    })
  end,
  descriptor = function(name, wanted)
    return { name = name, durable = wanted.group .. "-" .. name:gsub("%%.", "-") }
  end,
}]]

local stored = options("nats, JetStream", { jetstream = STREAM, ack_wait = ACK_WAIT }, consumer)
stored.redelivery = ACK_WAIT
stored.program = PROGRAM:format(ACK_WAIT)

function stored.prepare(broker)
  assert(broker:stream({ name = STREAM.stream, subjects = STREAM.create.subjects }):create())
end

conformance.busted(stored)
