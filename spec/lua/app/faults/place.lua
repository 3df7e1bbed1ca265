--- Where a service of the specs of faults runs: its broker, and the names of its topics, from the environment.
--
-- BROKER is "memory", "durable" or "nats", URL the server's address, DIR a directory of this service's own, PREFIX what
-- its names begin with; LIVE how durable streams are followed.
local luv = require("luv")
local weir = require("weir")

local M = {}

local KIND = weir.env("BROKER", "memory")
local URL = os.getenv("URL")
local DIR = os.getenv("DIR")
local PREFIX = os.getenv("PREFIX") or "faults"

-- Seconds after which a server gives to somebody else what a dead service had.
local ACK_WAIT = 1

local make = {}

function make.memory(options)
  options.group = "service"
  return weir.broker("memory://" .. DIR, options)
end

function make.durable(options)
  options.checkpoints = DIR
  options.live = os.getenv("LIVE")
  options.timeout = options.timeout or 5
  options.retry = options.retry or { initial = 0.02, max = 0.2 }
  return weir.broker("durable+" .. URL .. "/v1/stream", options)
end

function make.nats(options)
  if options.jetstream == nil then
    options.jetstream = { stream = PREFIX, create = { subjects = { PREFIX .. ".>" } } }
  end
  options.ack_wait = ACK_WAIT
  options.backoff = { initial = 0.02, max = 0.2 }
  return weir.broker(URL, options)
end

M.kind = KIND

--- Makes the broker.
-- @tparam[opt] table options by kind of broker
function M.broker(options)
  local given = {}
  for name, value in pairs(options and options[KIND] or {}) do
    given[name] = value
  end
  return make[KIND](given)
end

--- The whole name of a topic.
function M.name(name)
  return PREFIX .. "." .. name
end

--- What a subscription is told, so that it goes on where the process before it was ended.
function M.target(name)
  if KIND == "nats" then
    return { name = M.name(name), durable = name }
  end
  return M.name(name)
end

local settle = {}

function settle.memory(broker)
  assert(broker:publisher():flush())
end

function settle.durable(broker)
  for subscription in pairs(broker.subscriptions) do
    assert(subscription.checkpoint:flush(5))
  end
end

-- What the server answers after an acknowledgement, it says knowing of that.
function settle.nats(broker)
  repeat
    local answer, err = broker.api:call("INFO", nil, weir.now() + 5)
    assert(answer or err.code ~= "closed", err)
  until answer
end

--- Waits until every acknowledgement until now is one for good.
function M.settle(broker)
  settle[KIND](broker)
end

--- Ends this process as `kill -9` does.
function M.die()
  luv.kill(luv.os_getpid(), "sigkill")
end

return M
