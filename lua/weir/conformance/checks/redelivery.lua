--- Retries by copies, and by brokers that move dead letters themselves.
-- @module weir.conformance.checks.redelivery

local contract = require("weir.broker.contract")
local tasks = require("weir.task")

-- Publishes a copy to the address of a subscription, and follows it.
local function follow_copy(t, broker, name, wanted)
  local subscription = t:subscribe(broker, name, wanted)
  local address = subscription:address()
  t:check_that(type(address) == "string", "subscription:address() gives %s for a name", tostring(address))
  local headers = { [contract.headers.attempt] = "2", ["x-kept"] = "yes" }
  tasks.spawn(function()
    t:publish(broker:publisher(), address, "copy", headers)
  end):join()
  local counts, requeue = t:capabilities(broker, name, wanted), t:capabilities(broker, name, wanted).requeue
  for attempt = 1, requeue and 3 or 1 do
    local message = t:receive(subscription, "copy", attempt > 1 and t.timeouts.redelivery or nil)
    for key, value in pairs(headers) do
      t:check_that(message.headers[key] == value, "the header '%s' of delivery %d is %s", key, attempt,
        tostring(message.headers[key]))
    end
    if counts.attempts then
      t:check_that(message.attempts == attempt, "attempts of delivery %d is %s", attempt, tostring(message.attempts))
    end
    if requeue and attempt < 3 then
      t:check_that(message:nack({ requeue = true }), "nack failed")
    else
      t:ack(message)
    end
  end
  t:nothing(subscription, "after the copy was acknowledged")
end

return {
  {
    name = "attempts",
    proves = "the first delivery is attempt 1, and each that comes again counts one more",
    needs = { "attempts", "requeue" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      t:publish(broker:publisher(), name, "counted")
      for attempt = 1, 4 do
        local message = t:receive(subscription, "counted", attempt > 1 and t.timeouts.redelivery or nil)
        t:check_that(message.attempts == attempt, "attempts of delivery %d is %s", attempt, tostring(message.attempts))
        t:check_that(attempt < 4 and message:nack() or attempt == 4 and message:ack(), "settling failed")
      end
    end,
  },
  {
    name = "address",
    proves = "a copy that is published to subscription:address() reaches it with its headers, and may be retried",
    run = function(t)
      local broker = t:broker()
      follow_copy(t, broker, t:subject(broker))
    end,
  },
  {
    name = "address_of_group",
    proves = "a copy that is published to the address of a group's subscription reaches the group",
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      t:needs_descriptor(name, { group = "g" })
      follow_copy(t, broker, name, { group = "g" })
    end,
  },
  {
    name = "broker_moves",
    proves = "a broker that moves dead letters delivers so often as it was told, then once to the place, then never",
    given = { "broker_moves" },
    run = function(t)
      local broker, moves = t:broker(), t.options.broker_moves
      local name = t:subject(broker)
      local dead = moves.dead(name)
      t:prepare(broker, dead)
      local graveyard = t:subscribe(broker, dead)
      local subscription, err = broker:subscribe(moves.descriptor(name, dead), t.timeouts.step)
      t:check_that(subscription, "subscribe failed: %s", tostring(err))
      t:publish(broker:publisher(), name, "poison")
      for _ = 1, moves.attempts do
        t:check_that(t:receive(subscription, "poison", t.timeouts.redelivery):nack(), "nack failed")
      end
      t:take(graveyard, "poison", t.timeouts.redelivery)
      t:nothing(subscription, "after the last attempt")
      t:nothing(graveyard, "a second dead letter")
      for _, half in ipairs(moves.refused and moves.refused(t:subject(broker)) or {}) do
        t:refused("a descriptor with half of the dead letter", nil, broker:subscribe(half, t.timeouts.step))
      end
    end,
  },
}
