--- What a broker is: the contract between weir's applications and the module of a broker.
--
-- A broker module returns a table with `new(options)`, which makes a *broker*. Making one is configuration: it
-- does no I/O and returns at once. All methods follow the conventions of weir: `nil, err` for what can fail in a
-- correct program, raising for misuse, timeouts in seconds as the last argument, waiting by suspending the calling
-- coroutine.
--
-- **Broker**
--
-- - `broker.kind`: "memory", "nats", ...; `broker.clock`: see below.
-- - `broker:capabilities([descriptor])`: a table of names from `contract.capabilities` that are `true`; with a
--   descriptor, those of such a subscription. What it does not claim, it refuses with "unsupported".
-- - `broker:descriptor(spec)`: a name, or a table of the broker's own options with `name`, becomes a *descriptor*:
--   a table with `name`, and `pattern = true` where it matches several destinations. No I/O. `nil, err` lists
--   everything that is wrong. A descriptor of the broker is returned as it is.
-- - `broker:connect([timeout])`: true; or nil and an error: "refused", "unauthorized", "timeout", "closed", ...
-- - `broker:state()`: "new", "connecting", "up", "degraded", "failed" or "closed", and the error that is the
--   reason. `broker:watch(fn)` calls `fn(state, err)` at each change and returns a function that ends it.
-- - `broker:subscribe(descriptor, [timeout])`: a *subscription*; it outlives reconnects.
-- - `broker:publisher([options])`: a *publisher*. May be made before `connect`; `options` are the broker's own
--   defaults.
-- - `broker.conformance` (optional): options of the conformance suite that hold for every such broker, such as
--   `descriptor`; for `weir conformance URL`.
-- - `broker:describe()`: `{ protocol, host, pathname, version, security }` for documents; never credentials. Several
--   hosts have commas between them. `security`: how it asks who is there, with commas, too: "user_password", "token",
--   "key_pair", "certificate", "http_basic", "http_bearer"; nil where nobody has to say.
-- - `broker:in_process(clock)`: a broker of the same behaviour that lives in this process and needs no server. What it
--   delays it delays by `clock`. It has two methods more, so that tests know when it is quiet: `pending()`, a
--   number that is 0 when no message is ready or unsettled where there is a subscription (the delayed ones do not
--   count), and else at least that of the unsettled; and `on_idle(fn)`, which calls `fn()` whenever that becomes 0 and
--   returns a function that ends it.
-- - `broker:shutdown([timeout])`: flushes what was handed over and closes. From then on everything gives "closed".
--
-- Four more that a broker may have:
--
-- - `broker:declare(descriptor, [timeout])`: makes sure that what is published there is kept for such a subscription,
--   from now on, though nobody is subscribed. Doing it again does no harm.
-- - `broker:dead_letters(name)`: the descriptor with which dead letters of that name are kept and taken; nil and
--   "unsupported" where the broker keeps nothing.
-- - `broker:browse(destination, [limit, [timeout]])` (capability `browse`): what is there, oldest first, without taking
--   it: a list of messages without settlement.
-- - `broker:cursor(destination, [timeout])` (with the capability `browse`): the same, one after the other, so that not
--   all of it is here at once: an object with `next([timeout])`, which gives a message, nil at the end, or nil and an
--   error, and `close()`. Who goes on after the end may see what came since. Without it lists of `browse` have to do.
--
-- **Subscription**: pulled, so who does not ask gets nothing; what the broker reads ahead is bounded by the
-- descriptor.
--
-- - `subscription:next([timeout])`: the next *message*; or nil and an error: "timeout", "stopped", "closed",
--   "cancelled", or what ended it for good.
-- - `subscription:next_batch(max, [linger, [timeout]])` (capability `batch`): a list of 1 to `max` messages; waits
--   `linger` seconds for more after the first (default 0.01).
-- - `subscription:stop()`: no more messages: who waits in `next` gets "stopped". What was taken can still be
--   settled.
-- - `subscription:close([timeout])`: stops; what was not settled goes back where the broker has that.
-- - `subscription:pause()` (capability `pause`): true. From then on `next` and `next_batch` give "paused", also to who
--   waits in them; no message is taken with that. The subscription stays: what comes is queued as ever, within the
--   same bounds, and what was taken can be settled. `subscription:resume()`: true, and messages are taken again. Both
--   do nothing where there is nothing to do, and do not wait; after `stop` or `close` they return nil and an error.
--   So a subscription gets another consumer, and loses nothing meanwhile.
-- - `subscription:address()`: where a copy is published so that this subscription gets it; nil where there is no
--   such place (patterns).
-- - `subscription:seek(position)` (capability `seek`), `subscription:stats()`: `{ queued, unsettled, delayed, ... }`:
--   what waits here to be taken, what was taken and not settled, what comes back later.
-- - `subscription:lag([timeout])`, where only a server knows what is still to come: `{ pending, unsettled }`.
--
-- **Message**
--
-- - fields: `payload` (string), `headers` (names in lower case to strings; shared, not to be changed),
--   `destination` (where it was published), `key`, `attempts` (deliveries of it, this one included; nil where the
--   broker does not count), `position`, `time` (published, seconds since 1970), `reply_to`, `fields` (the broker's
--   own).
-- - `message:ack()`, `message:nack{ requeue = true|false, delay = seconds }`: true; or nil and an error: "settled"
--   (it was already), "unsupported", "closed", "lost" (the broker gives it to somebody else by now). Requeue (the
--   default) brings it back, `requeue = false` drops it.
-- - `message:extend()` (capability `extend`): asks for more time before the broker gives it to somebody else.
--
-- **Publisher**
--
-- - `publisher:publish(destination, payload, [headers, [options]])`: true once the broker has it (with `confirm`),
--   or once it is on its way; or nil and an error: "closed", "full", "too_large", "unsupported" (an option it does
--   not have), "conflict", "timeout", "disconnected". The second result may be a table with the broker's receipt.
-- - `publisher:publish_batch(items)`: items are lists of four, the arguments of `publish`: `{ destination, payload,
--   headers, options }`. Returns true, or nil and the first error; then a list with true or an error for each item.
-- - `publisher:request(destination, payload, [headers, [timeout]])` (capability `request`): the reply, a message
--   without settlement; or nil and an error: "timeout", "no_responders".
-- - `publisher:transaction()` (capability `transactions`): an object with `publish` as above, `commit([timeout])`,
--   `abort()`; "no_transaction" after its end. Nothing is visible before the commit.
-- - `publisher:flush([timeout])`: what was published has reached the broker.
--
-- **Headers** are names in lower case. Well known are `content-type`, `message-id`, `correlation-id`, `reply-to`,
-- `partition-key`, `traceparent`, `tracestate` and those of weir that `contract.headers` lists.
--
-- **Clock**: `{ now(), time(), timer(at, fn) -> handle with cancel() }`, `weir.clock` by default; whatever a
-- broker delays in this process, it delays by its clock, so that tests need not wait.
-- @module weir.broker.contract

local errors = require("weir.errors")
local runtime = require("weir.runtime")

local contract = {}

--- What a broker may be capable of.
contract.capabilities = {
  ack = "deliveries are settled; without it they are gone once delivered",
  requeue = "nack{ requeue = true } brings a message back",
  delay = "nack{ delay = seconds } brings it back not before then",
  attempts = "messages count their deliveries",
  extend = "message:extend() keeps a delivery from going to somebody else",
  confirm = "publish returns when the broker has stored the message",
  batch = "subscription:next_batch()",
  key = "messages have a partition key",
  seek = "subscription:seek(position)",
  request = "publisher:request()",
  transactions = "publisher:transaction()",
  persist = "what was published and not acknowledged survives the death of this process",
  browse = "broker:browse(destination, limit): a list of what waits there, oldest first, without taking it",
  pause = "subscription:pause() and subscription:resume()",
}

--- Headers that weir writes.
contract.headers = {
  attempt = "weir-attempt", -- of a copy: deliveries before it, and one
  not_before = "weir-not-before", -- of a copy: milliseconds since 1970 before which it is not handled
  retry_for = "weir-retry-for", -- of a copy: the handler that it is for; others skip it
  origin = "weir-original-destination", -- of a dead letter and a copy: where it was published first
  error = "weir-error", -- of a dead letter: what went wrong, in words
  error_code = "weir-error-code",
  failed_at = "weir-first-failure", -- ISO 8601, UTC
  dead_at = "weir-dead-lettered", -- ISO 8601, UTC
  handler = "weir-handler", -- of a dead letter: whose it was
}

--- Checks the options of a message's `nack`; raises for misuse.
-- @tparam ?table options
-- @treturn boolean whether the message comes again
-- @treturn ?number in so many seconds
function contract.nack_options(options)
  if options == nil then
    return true
  end
  errors.options("message:nack", options, { requeue = "boolean", delay = "number" }, 3)
  local requeue, delay = options.requeue, options.delay
  if delay ~= nil and (delay ~= delay or delay < 0 or delay == math.huge) then
    error("message:nack: option 'delay' must be a number of seconds, at least 0, not " .. tostring(delay), 3)
  elseif delay and requeue == false then
    error("message:nack: 'delay' says when the message comes back, and 'requeue = false' that it does not", 3)
  end
  return requeue ~= false, delay
end

--- What a cursor has, as a list.
-- @tparam table cursor it is closed
-- @tparam number limit
-- @tparam[opt] number deadline as `runtime.deadline` returns it; of all of it
-- @treturn ?table
-- @return error
function contract.collect(cursor, limit, deadline)
  local list = {}
  while #list < limit do
    local message, err = cursor:next(deadline and math.max(0, deadline - runtime.now()))
    if err then
      cursor:close()
      return nil, err
    elseif not message then
      break
    end
    list[#list + 1] = message
  end
  cursor:close()
  return list
end

local required = {
  "capabilities",
  "descriptor",
  "connect",
  "state",
  "watch",
  "subscribe",
  "publisher",
  "describe",
  "in_process",
  "shutdown",
}

--- The honest answer of a broker that cannot do a thing.
-- @tparam string kind of broker
-- @tparam string what it was asked for
-- @return the error
function contract.unsupported(kind, what)
  return errors.new("unsupported", ("the broker '%s' has no %s"):format(kind, what), { broker = kind })
end

--- Checks that an object looks like a broker; raises and says what is missing.
-- @param broker anything
-- @tparam[opt=1] number level whom to blame, as for `error`, seen from the caller
-- @return the broker
function contract.check(broker, level)
  level = (level or 1) + 1
  local kind = type(broker)
  if kind ~= "table" and kind ~= "userdata" then
    error(("a broker is expected, such as require(\"weir.broker.memory\").new(), not a %s"):format(kind), level)
  end
  local missing = {}
  for _, name in ipairs(required) do
    if type(broker[name]) ~= "function" then
      missing[#missing + 1] = name
    end
  end
  if type(broker.kind) ~= "string" then
    missing[#missing + 1] = "kind"
  end
  if #missing > 0 then
    error("this is no broker, it lacks: " .. table.concat(missing, ", "), level)
  end
  return broker
end

return contract
