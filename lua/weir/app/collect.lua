--- What applications and routers have in common: they collect handlers, middleware and routers, and remember where
-- each was given.
-- @module weir.app.collect

local settings = require("weir.app.settings")

local Collector = {}

--- The place in the user's program that is being run: "file:line".
-- @tparam number level as for `debug.getinfo`, seen from the caller
function Collector.source(level)
  local info = debug.getinfo(level + 1, "Sl")
  if not info or info.currentline < 0 then
    return "?"
  end
  return info.short_src .. ":" .. info.currentline
end

local function check_call(what, target, options, fn)
  local kind = type(target)
  if kind ~= "string" and kind ~= "table" and kind ~= "userdata" then
    error(("%s: a name or a descriptor is expected first, not a %s"):format(what, kind), 4)
  elseif type(options) ~= "table" then
    error(("%s: options must be a table, not a %s"):format(what, type(options)), 4)
  elseif not settings.is_callable(fn) then
    error(("%s: the handler must be a function, not a %s"):format(what, type(fn)), 4)
  end
end

-- `app:include(require("routes"))`: the second value of `require` is where it found the module.
local function found_by_require(value)
  return type(value) == "string"
end

-- `app.subscriber("orders", fn)`: a dot in place of a colon.
local function check_self(self, name, level)
  if type(self) ~= "table" or type(self.added) ~= "function" then
    error(("%s is a method: write app:%s(...), with a colon"):format(name, name), level + 1)
  end
end

local function add(self, kind, target, options, fn)
  check_self(self, kind, 3)
  if settings.is_callable(options) and (fn == nil or found_by_require(fn)) then
    options, fn = {}, options
  end
  check_call(("%s:%s"):format(self.what, kind), target, options == nil and {} or options, fn)
  local entry = { kind = kind, target = target, options = options or {}, fn = fn, source = Collector.source(3) }
  return self:added(entry)
end

--- Registers a handler of single messages. What is wrong with its options is reported when the wiring is checked.
-- @tparam string|table target a destination, a table of the broker's options with `name`, or a descriptor
-- @tparam[opt] table options see docs/app.md
-- @tparam function handler `handler(value, ctx)`
-- @return its registration, with a method `close`
function Collector:subscriber(target, options, handler)
  local result, err = add(self, "subscriber", target, options, handler)
  return result, err
end

--- Registers a handler of batches: `handler(values, ctx)`.
-- @tparam string|table target
-- @tparam[opt] table options those of `subscriber`, `max` (64 messages) and `linger` (0.01 seconds)
-- @tparam function handler
function Collector:batch(target, options, handler)
  local result, err = add(self, "batch", target, options, handler)
  return result, err
end

--- Takes in all handlers of a router.
-- @param router made with `weir.router`
-- @tparam[opt] table options `prefix` (before the router's own), `broker` (the label of one)
function Collector:include(router, options)
  check_self(self, "include", 2)
  if found_by_require(options) then
    options = nil
  end
  if type(router) ~= "table" or not router.entries or not router.is_router then
    error(("%s:include: a router is expected, not a %s"):format(self.what, type(router)), 2)
  elseif options ~= nil and type(options) ~= "table" then
    error(("%s:include: options must be a table, not a %s"):format(self.what, type(options)), 2)
  end
  local entry = { kind = "include", router = router, options = options or {}, source = Collector.source(2) }
  local result, err = self:added(entry)
  return result, err
end

local function add_middleware(self, name, field, fn)
  check_self(self, name, 3)
  if not settings.is_callable(fn) then
    error(("%s:%s: a function is expected, not a %s"):format(self.what, name, type(fn)), 3)
  end
  if self.is_live and self:is_live() then
    error(("%s:%s: middleware must be added before the application starts"):format(self.what, name), 3)
  end
  local former, list = self.options[field], {}
  if type(former) == "table" then
    for i, each in ipairs(former) do
      list[i] = each
    end
  else
    list[1] = former -- which the check of the wiring reports
  end
  list[#list + 1] = fn
  self.options[field] = list
  return self
end

--- Adds middleware around the handlers: `function(value, ctx, next) return next(value, ctx) end`. What was added first
-- is outermost.
-- @tparam function fn
-- @return itself
function Collector:use(fn)
  return (add_middleware(self, "use", "middleware", fn))
end

--- Adds middleware around what handlers publish: `function(out, next) return next(out) end`.
-- @tparam function fn
-- @return itself
function Collector:publish_use(fn)
  return (add_middleware(self, "publish_use", "publish_middleware", fn))
end

--- A copy of the options that `use` may change.
function Collector.copy(options)
  local copy = {}
  for name, value in pairs(options) do
    copy[name] = value
  end
  return copy
end

return Collector
