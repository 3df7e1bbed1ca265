--- Publishers for hooks and for tasks beside the handlers: made before the application runs, of use while it does.
-- @module weir.app.bound

local errors = require("weir.errors")
local inherit = require("weir.app.inherit")
local settings = require("weir.app.settings")

local Bound = { __name = "weir.publisher" }
Bound.__index = Bound

local CLOSED = errors.new("closed", "the application does not run, so nothing can be published")

-- The levels whose middleware and codec it has: those of the application and its broker.
local function make(self, running)
  local problems, good = settings.check("publisher", self.options)
  if #problems > 0 then
    return nil, errors.new("wiring", ("%s: publisher: %s"):format(self.source, problems[1]))
  end
  local base, err = running:publisher_for(good.broker)
  if not base then
    return nil, err
  end
  local levels = { { options = select(2, settings.check("app", running.app.options)) } }
  for _, link in ipairs(running.links) do
    if link.label == base.label then
      levels[2] = { options = link.options }
    end
  end
  levels[#levels + 1] = { options = { codec = good.codec, publish_middleware = good.middleware } }
  local merged = inherit.merge(levels)
  return base:with({
    codec = merged.codec or base.codec,
    middleware = merged.publish_middleware,
    schema = good.schema,
    header_schema = good.header_schema,
    to = good.to,
    headers = good.headers,
    key = good.key,
    options = good.options,
  })
end

-- The publisher of the application as it runs now.
local function current(self)
  local running = self.app.running
  if not self.app:is_live() then
    return nil, CLOSED
  elseif self.running ~= running then
    local publisher, err = make(self, running)
    if not publisher then
      return nil, err
    end
    self.running, self.publisher = running, publisher
  end
  return self.publisher
end

-- Calls a method of it; what that raises blames the caller of this one.
local function call(self, method, ...)
  local publisher, err = current(self)
  if not publisher then
    return nil, err
  end
  return publisher[method](publisher, ...)
end

--- Publishes a value.
-- @param value what the codec can encode
-- @tparam[opt] table options `to`, `headers`, `key`, `message_id`, `correlation_id`, `reply_to`, `codec`, `options`
-- @treturn boolean true; or nil and an error; "closed" while the application does not run
function Bound:publish(value, options)
  return call(self, "publish", value, options)
end

--- Publishes several: see `weir.app.publisher`.
-- @tparam {table,...} items
-- @tparam[opt] table defaults
function Bound:publish_batch(items, defaults)
  return call(self, "publish_batch", items, defaults)
end

--- Asks, and waits for the answer.
-- @param value
-- @tparam[opt] table options
-- @tparam[opt] number timeout
-- @return the answer's value; or nil and an error
-- @return the answer's message
function Bound:request(value, options, timeout)
  return call(self, "request", value, options, timeout)
end

--- Begins a transaction.
function Bound:transaction()
  return call(self, "transaction")
end

--- Waits until what was published has reached the broker.
-- @tparam[opt] number timeout
function Bound:flush(timeout)
  return call(self, "flush", timeout)
end

function Bound:__tostring()
  return ("weir.publisher(%s)"):format(tostring(self.options.to or self.options.broker or self.app.title))
end

--- Makes one.
-- @tparam table app
-- @tparam table options see `app:publisher`
-- @tparam string source "file:line"
return function(app, options, source)
  return setmetatable({ app = app, options = options, source = source }, Bound)
end
