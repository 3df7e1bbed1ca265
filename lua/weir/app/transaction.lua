--- What a handler with `transactional = true` publishes: all of it becomes visible at once, or none of it.
--
-- A message has a transaction of its own, which begins with the first publish that it leads to: by `ctx:publish`, as a
-- reply or as an output. It is committed before the message is acknowledged or dropped, and aborted when handling it
-- failed or is to be done again. In a batch each element has one (`ctx.items`), and so has the batch as a whole.
--
-- Requests are sent at once: who waits for an answer cannot wait for a commit first. What is published after the
-- acknowledgement (`ctx:after_ack`) goes out by itself.
-- @module weir.app.transaction

local errors = require("weir.errors")

local transaction = {}

local OVER = errors.new("no_transaction", "what this message leads to was given up, nothing more can be published")

local function mark_of(ctx)
  local mark = rawget(ctx, "mark")
  if not mark then
    mark = {}
    ctx.mark = mark
  end
  ctx.pipeline.marked = true -- so that the end of the handler is not the usual one
  return mark
end

--- Publishes because of a message.
-- @param publisher of the handler, for the broker that is meant
-- @param ctx
-- @param value
-- @tparam table options
-- @treturn boolean true: it is part of the transaction; or nil and an error
function transaction.publish(publisher, ctx, value, options)
  local mark = mark_of(ctx)
  if mark.settled == "ack" or mark.committed then
    return publisher:publish(value, options, ctx)
  elseif mark.aborted then
    return nil, OVER
  elseif options.broker and options.broker ~= ctx.broker then
    local message = "the handler is transactional, and a transaction does not reach the broker '%s'"
    return nil, errors.new("unsupported", message:format(options.broker))
  elseif not mark.transaction then
    local begun, err = publisher:transaction()
    if not begun then
      return nil, err
    end
    mark.transaction = begun
  end
  return mark.transaction:publish(value, options, ctx, publisher)
end

--- Commits what a message has led to.
-- @param ctx nil where there is none
-- @treturn boolean true; or nil and an error: nothing was published
function transaction.commit(ctx)
  local mark = ctx and rawget(ctx, "mark")
  local open = mark and mark.transaction
  if not open then
    return true
  end
  mark.transaction = nil
  local ok, err = open:commit()
  mark[ok and "committed" or "aborted"] = true
  return ok and true, err
end

--- Forgets what a message has led to, and what else it leads to.
-- @param ctx nil where there is none
function transaction.abort(ctx)
  if ctx and ctx.entry.transactional then
    local mark = mark_of(ctx)
    local open = mark.transaction
    if open then
      mark.transaction = nil
      open:abort()
    end
    mark.aborted = not mark.committed
  end
end

return transaction
