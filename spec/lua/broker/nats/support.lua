--- What the specs of the NATS broker share: a server, and brokers that are shut down after each test.
local nats = require("weir.broker.nats")
local servers = require("spec.lua.nats_server")
local tasks = require("weir.task")

local M = {}

local opened = {}
local count = 0

--- A broker of the server's, connected; shut down by `M.shut_down`.
function M.broker(server, opts)
  local all = { url = server.url, backoff = { initial = 0.02, max = 0.1 } }
  for name, value in pairs(opts or {}) do
    all[name] = value
  end
  local broker = nats.new(all)
  opened[#opened + 1] = broker
  assert(broker:connect(10))
  return broker
end

--- Shuts down every broker of the test.
function M.shut_down()
  local list = opened
  opened = {}
  for _, broker in ipairs(list) do
    broker:shutdown(1)
  end
end

--- A name that no test used before.
function M.name(prefix)
  count = count + 1
  return ("%s%d"):format(prefix or "s", count)
end

--- Waits until the broker is in a state.
function M.until_state(broker, wanted, seconds)
  local reason
  require("spec.lua.support").eventually(function()
    local state
    state, reason = broker:state()
    return state == wanted
  end, seconds or 10)
  return reason
end

--- Runs a test's body in a task: busted's own coroutine may wait too, but tasks can be spawned beside it.
function M.run(fn)
  return function()
    return tasks.run(fn)
  end
end

M.available = servers.available
M.start = servers.start

return M
