--- NATS as a broker: core subjects, and JetStream, which stores messages and takes acknowledgements.
--
--     local nats = require("weir.broker.nats")
--     local broker = nats.new({ url = "nats://127.0.0.1:4222" })
--
-- See docs/nats.md.
-- @module weir.broker.nats

local connections = require("weir.broker.nats.connection")
local contract = require("weir.broker.contract")
local core = require("weir.broker.nats.subscription")
local descriptors = require("weir.broker.nats.descriptor")
local jetstream = require("weir.broker.nats.jetstream")
local kv = require("weir.broker.nats.kv")
local options = require("weir.broker.nats.options")
local publisher = require("weir.broker.nats.publisher")
local pull = require("weir.broker.nats.pull")
local runtime = require("weir.runtime")
local streams = require("weir.broker.nats.stream")

local nats = {}

local Broker = { __name = "weir.nats", kind = "nats", clock = require("weir.clock") }
Broker.__index = Broker

-- For `weir conformance`: core subjects.
Broker.conformance = {
  shared = true,
  descriptor = function(name, wanted)
    return not (wanted.durable or wanted.ack_wait) and { name = name, group = wanted.group } or nil
  end,
}

--- Makes a broker; `broker:connect()` connects it.
-- @tparam[opt] table opts see docs/nats.md
-- @return the broker
function nats.new(opts)
  local ok, settings = pcall(options.read, opts or {})
  if not ok then
    error(settings, 2)
  end
  local connection = connections.new(settings)
  local self = { settings = settings, connection = connection, api = jetstream.new(connection), opts = opts or {} }
  return setmetatable(self, Broker)
end

--- A core subject: see `weir.broker.nats.descriptor`.
function nats.subject(name, opts)
  return descriptors.subject(name, opts)
end

--- A consumer of a JetStream stream: see `weir.broker.nats.descriptor`.
function nats.jetstream(opts)
  return descriptors.jetstream(opts)
end

--- What the broker can do, or a subscription of a descriptor.
function Broker:capabilities(descriptor)
  local can = { batch = true, request = true, key = true, pause = true, confirm = self.settings.confirm or nil }
  local stored = self.settings.jetstream ~= nil
  if descriptor then
    stored = descriptor.kind == "jetstream"
  end
  if stored then
    for _, name in ipairs({ "ack", "requeue", "delay", "attempts", "extend", "persist", "browse" }) do
      can[name] = true
    end
    can.seek = not (descriptor and descriptor.durable) or nil
    can.request = not descriptor or nil -- a stream answers what is published to it, with a receipt
  end
  return can
end

--- A name or a table of options as a descriptor.
function Broker:descriptor(spec)
  return descriptors.from(spec, self.settings)
end

--- Connects.
-- @tparam[opt] number timeout in seconds
-- @return true; or nil and an error: "refused", "unauthorized", "tls", "timeout", "closed"
function Broker:connect(timeout)
  return self.connection:open(runtime.deadline(timeout, 2))
end

--- The state of the connection, and the reason.
function Broker:state()
  return self.connection.state:get()
end

--- Calls `fn(state, reason)` at each change; returns a function that ends that.
function Broker:watch(fn)
  return self.connection.state:watch(fn)
end

--- Subscribes. What anybody publishes after this has returned is delivered.
-- @param spec a descriptor, or what `descriptor` takes
-- @tparam[opt] number timeout in seconds
-- @return a subscription; or nil and an error
function Broker:subscribe(spec, timeout)
  local descriptor, err = self:descriptor(spec)
  if not descriptor then
    return nil, err
  end
  err = self.connection:unusable()
  if err then
    return nil, err
  elseif descriptor.kind == "jetstream" then
    return pull.open(self.api, descriptor, runtime.deadline(timeout or self.settings.publish_timeout, 2))
  end
  local subscription
  subscription, err = core.open(self.connection, descriptor)
  if not subscription or not self.connection.up then
    return subscription, err -- the connection that comes back has it
  end
  -- The server must know of it before somebody else publishes.
  local _, late = self.connection:flush(runtime.deadline(timeout or self.settings.publish_timeout, 2))
  if late and (late.code == "cancelled" or late.code == "closed") then
    subscription:close()
    return nil, late
  end
  return subscription
end

--- A publisher.
-- @tparam[opt] table opts `confirm`: wait until a stream has the message; `timeout` for that; `stream`: it must be
--   this one
function Broker:publisher(opts)
  return publisher.new(self, opts)
end

--- A key-value bucket: see `weir.broker.nats.kv`.
-- @tparam string bucket
-- @tparam[opt] table opts `create`: false, true (the default) or a table of `history`, `ttl`, `max_bytes`,
--   `max_value_size`, `storage`, `replicas`
-- @tparam[opt] number timeout in seconds
-- @return a bucket; or nil and an error
function Broker:kv(bucket, opts, timeout)
  return kv.open(self, bucket, opts, runtime.deadline(timeout or self.settings.publish_timeout, 2))
end

--- A stream, to be created, looked at, purged or deleted: see `weir.broker.nats.stream`.
-- @tparam table opts `name`, and for `create` and `update` what `create` of nats.jetstream takes
function Broker:stream(opts)
  return streams.new(self.api, opts)
end

--- Stored messages of a subject, oldest first, without taking them.
-- @tparam string destination a subject of a stream
-- @tparam[opt=100] number limit
-- @tparam[opt] number timeout in seconds
-- @return a list; or nil and an error
function Broker:browse(destination, limit, timeout)
  local deadline = runtime.deadline(timeout or self.settings.publish_timeout, 2)
  local cursor, err = streams.cursor(self.api, destination, self.settings.publish_timeout, deadline)
  if not cursor then
    return nil, err
  end
  return contract.collect(cursor, limit or 100, deadline)
end

--- The same, one after the other.
-- @tparam string destination a subject of a stream
-- @tparam[opt] number timeout in seconds
-- @return a cursor: `next([timeout])`, `close()`; or nil and an error
function Broker:cursor(destination, timeout)
  local deadline = runtime.deadline(timeout or self.settings.publish_timeout, 2)
  return streams.cursor(self.api, destination, self.settings.publish_timeout, deadline)
end

--- The descriptor with which dead letters are taken: a named consumer of the stream that has the subject. A stream with
-- the retention "workqueue" deletes those that were taken; any other keeps them, and they are not taken again.
-- @tparam string name a subject of a stream
-- @return a descriptor; or nil and an error: "unsupported" where the broker is not told to use JetStream
function Broker:dead_letters(name)
  if not self.settings.jetstream then
    return nil, contract.unsupported("nats", "place where dead letters are kept; give it the option 'jetstream'")
  end
  return self:descriptor({ name = name, durable = "dead-letters-" .. name:gsub("[%s%.%*>/\\%c]", "-") })
end

--- Numbers of the connection.
function Broker:stats()
  local connection = self.connection
  local link = connection.link
  return {
    reconnects = connection.reconnects,
    faults = connection.faults,
    last_fault = connection.last_fault,
    buffered = link and link:buffered() or 0,
  }
end

--- For documents; without credentials.
function Broker:describe()
  local settings = self.settings
  local host = table.concat(settings.hosts, ",")
  return { protocol = "nats", host = host, version = "2.9", security = settings.security }
end

--- A broker of the same behaviour in this process, without a server.
-- @param clock see `weir.clock`
function Broker:in_process(clock)
  return require("weir.broker.nats.memory").new(self, clock)
end

--- Writes what was published and closes.
-- @tparam[opt=5] number timeout in seconds
-- @return true; or nil and the error that kept something from being written
function Broker:shutdown(timeout)
  local deadline = runtime.deadline(timeout or 5, 2)
  local list = {} -- others may subscribe while this waits
  for _, subscription in pairs(self.connection.subscriptions) do
    list[#list + 1] = subscription.before_shutdown and subscription or nil
  end
  for _, subscription in ipairs(list) do
    subscription:before_shutdown(deadline)
  end
  return self.connection:shutdown(deadline)
end

function Broker:__tostring()
  return ("weir.nats(%s, %s)"):format(table.concat(self.settings.hosts, ","), self.connection.state.name)
end

function Broker:__close() -- the second argument is an error
  self:shutdown()
end

return nats
