--- The durable broker without a server, for tests: its streams are topics of a memory broker that keep all they get.
-- @module weir.broker.durable.in_process

local contract = require("weir.broker.contract")
local envelope = require("weir.broker.durable.envelope")
local errors = require("weir.errors")
local memory = require("weir.broker.memory")

local KEEP = { messages = 1000000, bytes = 1024 * 1024 * 1024 }

-- --- publishing ---------------------------------------------------------------------------------

local Publisher = { __name = "weir.broker.durable.publisher" }
Publisher.__index = Publisher

local function refusal(self, payload, headers, options)
  for name in pairs(options or {}) do
    if name ~= "timeout" then
      return contract.unsupported("durable", ("option '%s' of publish"):format(tostring(name)))
    end
  end
  if #payload > self.max_payload then
    local message = ("the payload has %d bytes; at most %d are taken"):format(#payload, self.max_payload)
    return errors.new("too_large", message)
  end
  local _, err = envelope.encode(payload, headers) -- the same headers are refused
  return err
end

function Publisher:publish(destination, payload, headers, options)
  local err = refusal(self, payload, headers, options)
  if err and not self.broker.closed then
    return nil, err
  end
  local ok
  ok, err = self.inner:publish(destination, payload, headers)
  return ok, err
end

function Publisher:publish_batch(items)
  local results, first = {}, nil
  for i, item in ipairs(items) do
    local ok, err = self:publish(item[1], item[2], item[3], item[4])
    results[i] = ok or err
    first = first or (not ok and err or nil)
  end
  return not first and true or nil, first, results
end

function Publisher:request()
  return nil, self.broker.closed or contract.unsupported("durable", "requests")
end

function Publisher:transaction()
  return nil, self.broker.closed or contract.unsupported("durable", "transactions")
end

function Publisher:flush(timeout)
  return self.inner:flush(timeout)
end

-- --- the broker ---------------------------------------------------------------------------------

local Broker = { __name = "weir.broker.durable (in process)", kind = "durable" }
Broker.__index = Broker

function Broker:capabilities()
  local list = self.original:capabilities()
  list.persist = nil
  return list
end

function Broker:descriptor(spec)
  return self.original:descriptor(spec)
end

function Broker:connect(timeout)
  return self.inner:connect(timeout)
end

function Broker:state()
  return self.inner:state()
end

function Broker:watch(fn)
  return self.inner:watch(fn)
end

function Broker:subscribe(spec, timeout)
  local descriptor, err = self:descriptor(spec)
  if not descriptor or self.closed then
    return nil, err or self.closed
  end
  local key = ("%s@%s"):format(descriptor.name, descriptor.consumer)
  local other = self.subscriptions[key]
  if other and other:stats().members > 0 then
    return nil, require("weir.broker.durable").conflict(descriptor)
  end
  local from = descriptor.from == "now" and "new" or descriptor.from
  local subscription
  subscription, err = self.inner:subscribe({
    name = descriptor.name,
    group = descriptor.consumer,
    durable = true,
    prefetch = descriptor.prefetch,
    from = tonumber(from) or from,
    capacity = KEEP,
  }, timeout)
  self.subscriptions[key] = subscription
  return subscription, err
end

function Broker:dead_letters(name)
  return self.original:dead_letters(name)
end

function Broker:publisher()
  local max_payload = self.original.max_payload
  return setmetatable({ broker = self, inner = self.inner:publisher(), max_payload = max_payload }, Publisher)
end

local Cursor = {}
Cursor.__index = Cursor

function Cursor:next()
  return (self.subscription:next(0))
end

function Cursor:close()
  self.subscription:close()
end

--- Everything that was published there: what is settled stays in a stream.
function Broker:cursor(destination)
  local serial = (self.browsers or 0) + 1
  self.browsers = serial
  local spec = { name = destination, group = "browse " .. serial, from = "start", capacity = KEEP }
  local subscription, err = self.inner:subscribe(spec)
  if not subscription then
    return nil, err
  end
  return setmetatable({ subscription = subscription }, Cursor)
end

function Broker:browse(destination, limit)
  local cursor, err = self:cursor(destination)
  if not cursor then
    return nil, err
  end
  return contract.collect(cursor, limit or 100)
end

function Broker:describe()
  return self.original:describe()
end

function Broker:in_process(clock)
  return self.original:in_process(clock)
end

function Broker:pending()
  return self.inner:pending()
end

function Broker:on_idle(fn)
  return self.inner:on_idle(fn)
end

function Broker:shutdown(timeout)
  local ok, err = self.inner:shutdown(timeout)
  self.closed = self.closed or errors.new("closed", "the broker is closed")
  return ok, err
end

--- Makes one.
-- @tparam table original the broker that it stands for
-- @tparam ?table clock
return function(original, clock)
  local inner = memory.new({ clock = clock, retention = KEEP, max_payload = 1024 * 1024 * 1024 })
  return setmetatable({ original = original, inner = inner, clock = inner.clock, subscriptions = {} }, Broker)
end
