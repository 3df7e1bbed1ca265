--- Middleware: a message that was handled already is acknowledged and not handled again.
--
-- At-least-once delivery means that some messages come twice: after a crash, or a publisher's retry. Each message has a
-- key, its `message-id` by default; a *store* remembers the keys of those that were handled. One that comes while the
-- same is being handled is retried later; a failure frees its key.
--
-- The store here is in memory, bounded in number and in time. One of your own, which several processes share, is a
-- table with three functions that may wait: `begin(key, ttl)` returns "new" (and claims the key), "running" or "done",
-- or nil and an error; `done(key, ttl)`; `failed(key)`.
-- @module weir.middleware.idempotency

local clocks = require("weir.clock")
local errors = require("weir.errors")
local outcome = require("weir.outcome")
local result = require("weir.middleware.result")

local OPTIONS = { key = "function", ttl = "number", max = "number", store = "table", again = "number" }

-- --- the store in memory ------------------------------------------------------------------------

local Memory = {}
Memory.__index = Memory

-- Drops the oldest of `order` for as long as they are too old, or leave no room for another.
function Memory:trim(now)
  while self.first <= self.last do
    local entry = self.order[self.first]
    local gone = self.entries[entry.key] ~= entry
    if not gone and entry.expires > now and self.count < self.max then
      return
    end
    self.order[self.first] = nil
    self.first = self.first + 1
    if not gone then
      self.entries[entry.key] = nil
      self.count = self.count - 1
    end
  end
  self.first, self.last = 1, 0
end

function Memory:begin(key, ttl)
  local now = self.clock.now()
  self:trim(now)
  local entry = self.entries[key]
  if entry and entry.expires > now then
    return entry.state
  end
  entry = { key = key, state = "running", expires = now + ttl }
  self.count = self.count + (self.entries[key] and 0 or 1)
  self.entries[key] = entry
  self.last = self.last + 1
  self.order[self.last] = entry
  return "new"
end

function Memory:done(key)
  local entry = self.entries[key]
  if entry then
    entry.state = "done"
  end
end

function Memory:failed(key)
  if self.entries[key] then
    self.entries[key] = nil
    self.count = self.count - 1
  end
end

local function memory(max, clock)
  return setmetatable({ max = max, clock = clock, entries = {}, order = {}, first = 1, last = 0, count = 0 }, Memory)
end

-- --- the middleware -----------------------------------------------------------------------------

local Guard = {}
Guard.__index = Guard

-- What is to be answered without the handler; nil if the message is to be handled. And its key.
function Guard:check(value, ctx)
  local key = self.key(value, ctx)
  if key == nil then
    return nil, nil
  end
  local state, err = self.store:begin(key, self.ttl)
  if state == "new" then
    return nil, key
  elseif state == "done" then
    return outcome.ack(), key
  elseif state == "running" then
    return outcome.retry({ after = self.again, reason = "the same message is being handled" }), key
  end
  return outcome.fail(err or errors.new("idempotency", "the store of keys gave no answer")), key
end

function Guard:note(key, done)
  if key ~= nil then
    if done then
      self.store:done(key, self.ttl)
    else
      self.store:failed(key)
    end
  end
end

-- Notes what came of the handler. Where that is more than the handler knows, as when its reply cannot be published and
-- the message comes again, it is noted when the message is settled.
function Guard:conclude(key, done, ctx)
  if key == nil or not done or not ctx.on_settled then
    return self:note(key, done)
  end
  ctx:on_settled(function(how)
    self:note(key, how == "ack")
  end)
end

function Guard:one(value, ctx, next)
  local answer, key = self:check(value, ctx)
  if answer then
    return answer
  end
  local function finish(ok, first, ...)
    self:conclude(key, ok and result.succeeded(first, (...), ctx), ctx)
    if not ok then
      error(first, 0)
    end
    return first, ...
  end
  return finish(result.of(next, value, ctx))
end

-- The outcomes of the messages that were handled, put back among those that were not.
local function merge(answers, handled, results, err)
  local single = type(results) ~= "table" or outcome.kind(results) ~= nil or getmetatable(results) ~= nil
  for i, place in ipairs(handled) do
    local each = results
    if not single then
      each = results[i]
    end
    if each == nil then
      each = err ~= nil and outcome.fail(err) or outcome.ack()
    end
    answers[place] = each
  end
  return answers
end

function Guard:batch(values, ctx, next)
  local answers, keys, handled, kept, items = {}, {}, {}, {}, {}
  local all = ctx.items
  for i, value in ipairs(values) do
    local answer, key = self:check(value, all[i])
    if answer then
      answers[i] = answer
    else
      local n = #handled + 1
      handled[n], kept[n], items[n], keys[n] = i, value, all[i], key or false
    end
  end
  if #handled == 0 then
    return answers
  end
  ctx.items, ctx.size = items, #items
  local ok, results, err = result.of(next, kept, ctx)
  ctx.items, ctx.size = all, #all
  if ok then
    merge(answers, handled, results, err)
  end
  for n, place in ipairs(handled) do
    local done = ok and not ctx.cancelled and result.succeeded(answers[place], nil, all[place])
    self:conclude(keys[n] or nil, done, all[place])
  end
  if not ok then
    error(results, 0)
  end
  return answers
end

local function message_id(_, ctx)
  return ctx.message_id
end

--- Makes the middleware.
-- @function idempotency
-- @tparam[opt] table options
-- @tparam[opt] function options.key `(value, ctx)` gives the key of a message, nil for one that is always handled; its
--   message id when left out
-- @tparam[opt=3600] number options.ttl seconds for which a key is remembered
-- @tparam[opt=100000] number options.max how many keys the store in memory holds
-- @tparam[opt=1] number options.again seconds after which a message comes again that is being handled already
-- @tparam[opt] table options.store in place of the one in memory
-- @treturn function
return function(options)
  options = errors.options("idempotency", options, OPTIONS, 2)
  local store = options.store
  for _, name in ipairs(store and { "begin", "done", "failed" } or {}) do
    if type(store[name]) ~= "function" then
      error(("idempotency: the store needs a function '%s'"):format(name), 2)
    end
  end
  local guard = setmetatable({
    key = options.key or message_id,
    ttl = options.ttl or 3600,
    again = options.again or 1,
    store = store,
  }, Guard)
  return function(value, ctx, next)
    if not guard.store then
      guard.store = memory(options.max or 100000, ctx.clock or clocks)
    end
    if ctx.batch then
      return guard:batch(value, ctx, next)
    end
    return guard:one(value, ctx, next)
  end
end
