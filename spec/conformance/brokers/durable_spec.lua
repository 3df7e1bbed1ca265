local conformance = require("weir.conformance")
local durable = require("weir.broker.durable")
local luv = require("luv")
local support = require("spec.lua.durable.support")
local tasks = require("weir.task")

if not support.available() then
  describe("the broker durable", function()
    pending("conforms (npm ci was not run in spec/conformance/durable)")
  end)
  return
end

local MAX_PAYLOAD = 65536
-- What the server keeps its streams in, and the brokers their positions.
local streams = assert(luv.fs_mkdtemp("/tmp/weir-streams-XXXXXX"))
local positions = assert(luv.fs_mkdtemp("/tmp/weir-positions-XXXXXX"))
local server, port, url

local control = {}

function control.start()
  if not server then
    server = support.server({ dir = streams, port = port, quiet = true })
    port, control.port = server.port, server.port
    url = server.url .. "/v1/stream"
  end
end

function control.kill()
  if server then
    server:stop("sigkill")
    server = nil
  end
end

setup(function()
  tasks.run(control.start)
end)

teardown(function()
  tasks.run(control.kill)
  os.execute(("rm -rf '%s' '%s'"):format(streams, positions))
end)

local function make()
  return durable.new({ url = url, checkpoints = positions, max_payload = MAX_PAYLOAD, timeout = 10 })
end

-- A group is a consumer, and every consumer is durable.
local function descriptor(name, wanted)
  if wanted.ack_wait then
    return nil
  end
  return { name = name, consumer = wanted.group, prefetch = wanted.prefetch }
end

local PROGRAM = [[
return {
  make = function()
    return require("weir.broker.durable").new({ url = os.getenv("CONFORMANCE_URL"), checkpoints = %q })
  end,
  descriptor = function(name, wanted)
    return { name = name, consumer = wanted.group }
  end,
}]]

conformance.busted({
  name = "durable",
  make = function()
    luv.os_setenv("CONFORMANCE_URL", url)
    return make()
  end,
  probe = function()
    return durable.new({ url = "http://127.0.0.1:1", checkpoints = positions, max_payload = MAX_PAYLOAD })
  end,
  descriptor = descriptor,
  server = control,
  program = PROGRAM:format(positions),
  max_payload = MAX_PAYLOAD,
  timeouts = { delay = 0.4 },
})
