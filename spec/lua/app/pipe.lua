--- What the specs of the pipeline share: registrations on a memory broker, and time that is advanced.
local cjson = require("cjson")
local codec = require("weir.codec")
local consume = require("weir.app.consume")
local log = require("weir.log")
local memory = require("weir.broker.memory")
local metrics = require("weir.metrics")
local new_clock = require("weir.test.clock")
local publisher = require("weir.app.publisher")
local weir = require("weir")

local pipe = {}
local Pipe = {}
Pipe.__index = Pipe

-- The memory broker with less than it can: what is left out of `capabilities` it refuses.
local function restrict(broker, without)
  local limited = setmetatable({}, { __index = broker })
  function limited.capabilities(_, descriptor)
    local list = broker:capabilities(descriptor)
    for _, name in ipairs(without) do
      list[name] = nil
    end
    return list
  end
  for name, method in pairs(getmetatable(broker).__index) do
    if type(method) == "function" and name ~= "capabilities" then
      limited[name] = function(_, ...)
        return method(broker, ...)
      end
    end
  end
  return limited
end

--- Runs a test in a task, and closes what it started.
-- @tparam table opts `without`: capabilities that the broker has not; `clock`: one in place of one that stands still
function pipe.run(opts, fn)
  if type(opts) == "function" then
    opts, fn = {}, opts
  end
  local clock = opts.clock or new_clock(1000000)
  local broker = memory.new({ clock = clock })
  local t = setmetatable({
    clock = clock,
    broker = opts.without and restrict(broker, opts.without) or broker,
    lines = {},
    metrics = metrics.registry(),
    running = {},
    stops = {},
  }, Pipe)
  t.log = log.new({
    level = "debug",
    out = function(line)
      t.lines[#t.lines + 1] = line
    end,
  })
  t.env = {
    app = { title = "spec" },
    clock = clock,
    log = t.log,
    metrics = t.metrics,
    state = { answer = 42 },
    observer = opts.observer,
  }
  local base = publisher.new({ broker = t.broker, label = "main", env = t.env })
  t.publisher = base
  t.raw = base.raw
  function t.env.publisher_for(label)
    return label == "main" and base or nil
  end
  weir.run(function()
    assert(broker:connect())
    local ok, err = xpcall(fn, debug.traceback, t)
    for _, running in ipairs(t.running) do
      running:close(0)
    end
    broker:shutdown(1)
    if not ok then
      error(err, 0)
    end
  end)
end

local OF_REGISTRATION = { workers = true, batch = true, id = true, handlers = true, descriptor = true }

--- Starts a handler.
-- @tparam string name of the topic
-- @tparam table opts of the handler, and `workers`, `batch`, `descriptor` and `handlers` of the registration
-- @tparam function fn
function Pipe:start(name, opts, fn)
  if type(opts) == "function" then
    opts, fn = {}, opts
  end
  local handler = { id = opts.id or name, fn = fn, codec = codec.get(opts.codec or "json") }
  for key, value in pairs(opts) do
    if not OF_REGISTRATION[key] and key ~= "codec" then
      handler[key] = value
    end
  end
  local handlers = opts.handlers or { handler }
  for _, each in ipairs(handlers) do
    each.codec = codec.get(each.codec or "json")
  end
  local running = assert(consume.start({
    id = opts.id or name,
    broker = { label = "main", broker = self.broker },
    descriptor = opts.descriptor
      or assert(self.broker:descriptor({ name = name, group = opts.id or name, durable = true })),
    workers = opts.workers or { count = 1 },
    batch = opts.batch,
    source = "spec",
    handlers = handlers,
  }, self.env))
  self.running[#self.running + 1] = running
  function running.on_stop(err)
    self.stops[#self.stops + 1] = err
  end
  return running
end

--- Publishes as somebody else would: JSON, or bytes.
function Pipe:send(to, value, headers)
  assert(self.raw:publish(to, type(value) == "string" and value or cjson.encode(value), headers))
end

--- A list to which everything published to a topic is added: messages, acknowledged.
function Pipe:spy(name)
  local list = {}
  local subscription = assert(self.broker:subscribe(assert(self.broker:descriptor({ name = name, group = "spy" }))))
  weir.spawn(function()
    while true do
      local message = subscription:next()
      if not message then
        return
      end
      list[#list + 1] = message
      message:ack()
    end
  end)
  return list
end

--- Waits until `check()` is true.
function Pipe:until_true(check, what)
  local deadline = weir.now() + 5
  while not check() do
    if weir.now() > deadline then
      error("waited in vain" .. (what and " for " .. what or "") .. "\n" .. table.concat(self.lines, "\n"), 2)
    end
    weir.sleep(0.001)
  end
end

--- Waits until a running handler has counted so many.
function Pipe:counted(running, name, n)
  self:until_true(function()
    return running:stats()[name] >= n
  end, name .. " = " .. n .. ", is " .. tostring(running:stats()[name]))
end

--- Lets everything that is ready run.
function Pipe.settle()
  for _ = 1, 5 do
    weir.sleep(0)
  end
end

--- Advances the clock, and lets what that made ready run.
function Pipe:advance(seconds)
  self.clock.advance(seconds, self.settle)
  self.settle()
end

--- Whether a line of the log has this text.
function Pipe:logged(text)
  for _, line in ipairs(self.lines) do
    if line:find(text, 1, true) then
      return true
    end
  end
  return false
end

return pipe
