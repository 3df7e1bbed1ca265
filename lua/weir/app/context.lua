--- What a handler is told beside the value: its second argument.
--
-- - of the message: `name` (the destination), `headers`, `attempt` (from 1), `key`, `position`, `time`, `message_id`,
--   `correlation_id`, `reply_to`, `payload`, `fields` (the broker's own), `message`;
-- - of the application: `app`, `state`, `handler` (its name), `broker` (the label), `log`, `clock`;
-- - of a batch: `batch` is true, `size`, and `items`, a list with a context for each value; `name` is that of the
--   subscription, and there are no fields of one message.
--
-- `cancelled` is true when the handler was to end, because of its timeout or of the application's: what it answers does
-- not count then, and the message comes again.
--
-- Middleware may set fields of its own. A context is a table with the message as its only element; everything else is
-- found when it is asked for, so a message that nobody asks anything about costs one small table.
-- @module weir.app.context

local contract = require("weir.broker.contract")
local errors = require("weir.errors")

local context = {}

local names = contract.headers
local ATTEMPT = names.attempt
-- What a header may claim.
local MOST_ATTEMPTS = 1e6

--- Deliveries of a message, this one included: those that the broker counts and those before its copy was made.
function context.attempt(message)
  local claimed = tonumber(message.headers[ATTEMPT])
  local before = 1
  if claimed and claimed >= 1 and claimed <= MOST_ATTEMPTS and claimed % 1 == 0 then
    before = claimed
  end
  local attempt = before + (message.attempts or 1) - 1
  return attempt % 1 == 0 and attempt - attempt % 1 or attempt
end

local methods = {}

-- What happened to the context out of the ordinary; most have none of it. The pipeline is told that there is one such.
local function mark_of(ctx)
  local mark = rawget(ctx, "mark")
  if not mark then
    mark = {}
    ctx.mark = mark
  end
  ctx.pipeline.marked = true
  return mark
end

--- Notes what became of a context's message.
-- @param ctx
-- @tparam string how
-- @tparam ?table failure that led to it
function context.settled(ctx, how, failure)
  local mark = rawget(ctx, "mark")
  if not mark then
    mark = {}
    ctx.mark = mark
  end
  mark.settled = mark.settled or how
  local list = mark.on_settled
  mark.on_settled = nil
  for _, fn in ipairs(list or {}) do
    local ok, err = pcall(fn, how, ctx, failure)
    if not ok then
      ctx.log:error("a function of ctx:on_settled failed", { error = tostring(err) })
    end
  end
end

local SETTLED = errors.new("settled", "the message is settled already")

-- Settles early, before the handler answers.
local function settle(ctx, how, options)
  local mark = mark_of(ctx)
  if mark.settled then
    return nil, SETTLED
  elseif rawget(ctx, "batch") then
    return nil, errors.new("unsupported", "a batch is not settled as a whole before its handler ends; see ctx.items")
  end
  return ctx.pipeline:settle_early(ctx, how, options)
end

--- Acknowledges the message now, in place of when the handler ends.
-- @treturn boolean true; or nil and an error: "settled" (it was already), or the broker's
function methods:ack()
  return settle(self, "ack")
end

--- Gives the message back, or drops it, now.
-- @tparam[opt] table options as for a message's `nack`: `requeue` (true when left out), `delay`
-- @treturn boolean true; or nil and an error
function methods:nack(options)
  return settle(self, "nack", options or {})
end

--- Asks the broker for more time before it gives the message to somebody else.
-- @treturn boolean true; or nil and an error: "unsupported", "settled", "lost"
function methods:extend()
  local message = self.message
  if not message or not message.extend then
    return nil, errors.new("unsupported", "these messages cannot be extended")
  end
  return message:extend()
end

--- Calls a function once the message is acknowledged, in a task of its own. It is not called if the message is not
-- acknowledged. What it raises is logged.
-- @tparam function fn gets the context
function methods:after_ack(fn)
  if type(fn) ~= "function" then
    error("ctx:after_ack: a function is expected, not " .. type(fn), 2)
  end
  local mark = mark_of(self)
  if mark.settled == "ack" then
    self.pipeline:after(self, { fn })
    return
  end
  mark.after = mark.after or {}
  mark.after[#mark.after + 1] = fn
end

--- Calls a function when it is clear what becomes of the message: after the handler, when also its replies are
-- published. For middleware; what it raises is logged.
-- @tparam function fn gets "ack" (also where the broker did not take the acknowledgement, and the message comes twice),
--   "retry", "drop", "dead_letter" or "returned"; the context; and the failure that led to it, if there was one: a
--   table with `class` and `error`
function methods:on_settled(fn)
  if type(fn) ~= "function" then
    error("ctx:on_settled: a function is expected, not " .. type(fn), 2)
  end
  local mark = mark_of(self)
  if mark.settled then
    fn(mark.settled, self)
    return
  end
  mark.on_settled = mark.on_settled or {}
  mark.on_settled[#mark.on_settled + 1] = fn
end

--- Publishes because of this message: the correlation id and the trace are carried on.
-- @param value anything that the codec can encode
-- @tparam table options `to` and the other options of `weir.app.publisher`'s `publish`; `broker`: the label of another
--   broker than this handler's
-- @treturn boolean true; or nil and an error
function methods:publish(value, options)
  if type(options) ~= "table" then
    error("ctx:publish: a table of options with 'to' is expected, not a " .. type(options), 2)
  end
  return self.pipeline:publish(self, value, options)
end

--- Asks, and waits for the answer.
-- @param value
-- @tparam table options as for `publish`
-- @tparam[opt] number timeout in seconds
-- @return the answer's value, and its message; or nil and an error: "timeout", "no_responders", ...
function methods:request(value, options, timeout)
  if type(options) ~= "table" then
    error("ctx:request: a table of options with 'to' is expected, not a " .. type(options), 2)
  end
  return self.pipeline:request(self, value, options, timeout)
end

local getters = {}

function getters.message(message)
  return message
end

for _, name in ipairs({ "headers", "key", "position", "time", "fields", "payload" }) do
  getters[name] = function(message)
    return message[name]
  end
end

function getters.name(message)
  return message.destination
end

function getters.attempt(message, ctx)
  local mark = rawget(ctx, "mark")
  return mark and mark.attempt or context.attempt(message)
end

function getters.message_id(message)
  return message.headers["message-id"]
end

function getters.correlation_id(message)
  return message.headers["correlation-id"] or message.headers["message-id"]
end

function getters.reply_to(message)
  return message.reply_to or message.headers["reply-to"]
end

-- The contexts of the messages of a batch.
local function make_items(ctx)
  local messages = rawget(ctx, "messages")
  if not messages then
    return nil
  end
  local items, meta = {}, getmetatable(ctx)
  for i, message in ipairs(messages) do
    items[i] = setmetatable({ message }, meta)
  end
  ctx.items = items
  return items
end

--- Makes the metatable of the contexts of one handler.
-- @tparam table static what all of them have
function context.metatable(static)
  return {
    __name = "weir.context",
    __index = function(ctx, name)
      local method = methods[name]
      if method then
        return method
      end
      local getter, message = getters[name], rawget(ctx, 1)
      if getter and message then
        return getter(message, ctx)
      elseif name == "items" then
        return make_items(ctx)
      elseif name == "cancelled" then
        return static.pipeline and static.pipeline.cancelled
      end
      return static[name]
    end,
    __tostring = function(ctx)
      local message = rawget(ctx, 1)
      return ("weir.context(%s, %s)"):format(static.handler, message and message.destination or "batch")
    end,
  }
end

return context
