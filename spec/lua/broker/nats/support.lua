--- What the specs of the NATS broker share: a server, and brokers that are shut down after each test.
local busted = require("busted") -- whose globals are those of spec files alone
local nats = require("weir.broker.nats")
local servers = require("spec.lua.nats_server")

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

--- Gives a block of specs a server, and each of them a broker of it.
-- @tparam function set called with the broker and the server before each
function M.each_broker(set)
  local server
  busted.setup(function()
    server = servers.start()
  end)
  busted.teardown(function()
    server:stop()
  end)
  busted.before_each(function()
    set(M.broker(server), server)
  end)
  busted.after_each(M.shut_down)
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

return M
