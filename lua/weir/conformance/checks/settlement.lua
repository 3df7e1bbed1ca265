--- What becomes of a delivery: settled once, in any order, and never lost.
-- @module weir.conformance.checks.settlement

local ACK_WAIT = 0.6

-- A subscription whose unsettled deliveries go to somebody else soon, where the broker has that.
local function hurried(t, broker, name)
  if t:descriptor(name, { ack_wait = ACK_WAIT, group = "g" }) then
    return t:subscribe(broker, name, { ack_wait = ACK_WAIT, group = "g" }), ACK_WAIT * 2 + 0.5
  end
  return t:subscribe(broker, name), t.timeouts.negative
end

local function stays_away(how, options)
  return function(t)
    local broker = t:broker()
    local name = t:subject(broker)
    local subscription, long = hurried(t, broker, name)
    t:publish(broker:publisher(), name, "settled")
    local message = t:receive(subscription, "settled")
    local ok, err = message[how](message, options)
    if not ok then
      t:refused("message:" .. how, "unsupported", ok, err)
      t:skip("the broker cannot reject")
    end
    t:nothing(subscription, "after it was settled", long)
    local other = t:other_connection()
    if other then
      local again = hurried(t, other, name)
      t:nothing(again, "on another connection", t.timeouts.negative)
    end
  end
end

return {
  {
    name = "ack_is_for_good",
    proves = "an acknowledged message does not come after the broker's time to redeliver, nor on another connection",
    needs = { "ack" },
    run = stays_away("ack"),
  },
  {
    name = "reject_is_for_good",
    proves = "a rejected message does not come after the broker's time to redeliver, nor on another connection",
    needs = { "ack" },
    run = stays_away("nack", { requeue = false }),
  },
  {
    name = "requeue_returns",
    proves = "each of several messages that were given back comes again, and nothing else does",
    needs = { "requeue" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      t:publish_many(broker:publisher(), name, 5)
      local held = {}
      for i = 1, 5 do
        held[i] = t:receive(subscription, tostring(i))
      end
      for i = 1, 5 do
        t:check_that(held[i]:nack({ requeue = true }), "nack failed")
      end
      local list = t:take_many(subscription, 5, t.timeouts.redelivery)
      table.sort(list)
      t:same_list("what came again", { "1", "2", "3", "4", "5" }, list)
      t:nothing(subscription, "after all came again")
    end,
  },
  {
    name = "out_of_order_ack",
    proves = "acknowledging a later message leaves the earlier ones unsettled",
    needs = { "ack", "requeue" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      t:publish_many(broker:publisher(), name, 3)
      local first, second = t:receive(subscription, "1"), t:receive(subscription, "2")
      t:check_that(t:receive(subscription, "3"):ack(), "ack failed")
      t:check_that(first:nack({ requeue = true }), "nack of an earlier message failed")
      t:take(subscription, "1", t.timeouts.redelivery)
      t:check_that(second:nack({ requeue = true }), "nack of an earlier message failed")
      t:take(subscription, "2", t.timeouts.redelivery)
      t:nothing(subscription, "after all three were acknowledged")
    end,
  },
  {
    name = "settled_once",
    proves = "settling a message a second time gives \"settled\", and changes nothing",
    needs = { "ack" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      t:publish(broker:publisher(), name, "once")
      local message = t:receive(subscription, "once")
      t:check_that(message:ack(), "ack failed")
      t:refused("a second ack()", "settled", message:ack())
      t:refused("nack() after ack()", "settled", message:nack())
      t:nothing(subscription, "after ack() and a refused nack()")
    end,
  },
  {
    name = "settled_once_after_nack",
    proves = "a delivery that was given back cannot be settled again: the next one can",
    needs = { "requeue" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      t:publish(broker:publisher(), name, "again")
      local message = t:receive(subscription, "again")
      t:check_that(message:nack(), "nack failed")
      t:refused("ack() after nack()", "settled", message:ack())
      local back = t:receive(subscription, "again", t.timeouts.redelivery)
      t:refused("ack() of the old delivery", { "settled", "lost" }, message:ack())
      t:check_that(back:ack(), "ack of the new delivery failed")
      t:nothing(subscription, "after the acknowledgement")
    end,
  },
  {
    name = "unsettled_returns",
    proves = "what a closed subscription had taken and not settled goes to another of its group",
    needs = { "requeue" },
    wanted = { group = "g", durable = true },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local wanted = { group = "g", durable = true }
      local subscription = t:subscribe(broker, name, wanted)
      t:publish_many(broker:publisher(), name, 2)
      local abandoned = t:receive(subscription, "1")
      t:check_that(subscription:close(t.timeouts.step), "close failed")
      local again = t:subscribe(broker, name, wanted)
      local list = t:take_many(again, 2, (t.options.redelivery or 0) + t.timeouts.redelivery)
      table.sort(list)
      t:same_list("another subscription of the group", { "1", "2" }, list)
      t:refused("ack() of what was taken by a closed subscription", { "lost", "closed", "settled" }, abandoned:ack())
    end,
  },
  {
    name = "unsettled_times_out",
    proves = "what is not settled within ack_wait comes again; the late acknowledgement is \"lost\"",
    needs = { "requeue" },
    wanted = { ack_wait = ACK_WAIT, group = "g" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name, { ack_wait = ACK_WAIT, group = "g" })
      t:publish(broker:publisher(), name, "slow")
      local late = t:receive(subscription, "slow")
      local back = t:receive(subscription, "slow", ACK_WAIT + t.timeouts.redelivery)
      if t:capabilities(broker, name).attempts then
        t:check_that(back.attempts == 2, "attempts is %s", tostring(back.attempts))
      end
      local ok, err = late:ack()
      if not ok then
        t:refused("a late ack()", { "lost", "settled" }, ok, err)
        t:check_that(back:ack(), "ack failed")
      end -- a server that takes a late acknowledgement takes it for the message
      t:nothing(subscription, "after the acknowledgement", ACK_WAIT * 2)
    end,
  },
  {
    name = "extend",
    proves = "extend() keeps a delivery from going to somebody else",
    needs = { "extend" },
    wanted = { ack_wait = ACK_WAIT, group = "g" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name, { ack_wait = ACK_WAIT, group = "g" })
      t:publish(broker:publisher(), name, "long")
      local message = t:receive(subscription, "long")
      for _ = 1, 6 do
        t:nothing(subscription, "while the delivery is extended", ACK_WAIT / 3)
        t:check_that(message:extend() == true, "extend failed")
      end
      t:check_that(message:ack(), "ack failed")
      t:refused("extend() after ack()", "settled", message:extend())
      t:nothing(subscription, "after the acknowledgement", ACK_WAIT * 2)
    end,
  },
  {
    name = "nack_misuse",
    proves = "nack() refuses options that it does not know or that contradict each other, and leaves the message",
    needs = { "requeue" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      t:publish(broker:publisher(), name, "kept")
      local message = t:receive(subscription, "kept")
      for _, options in ipairs({ { requeu = true }, { delay = -1 }, { delay = "1" }, { requeue = "no" } }) do
        local fine, ok = pcall(message.nack, message, options)
        local name_of, value = next(options)
        t:check_that(not fine or not ok, "nack{ %s = %s } must be refused", name_of, tostring(value))
      end
      t:check_that(message:ack(), "ack after refused nacks failed")
      t:nothing(subscription, "after the acknowledgement")
    end,
  },
}
