--- Delivery, order and settlement, as everybody relies on them.
-- @module weir.conformance.checks.suite

local MESSAGES = 10

-- Publishes ten, and takes what two subscriptions get of them. A broker may refuse the second, but must say so.
local function share(t, broker, name, first, second)
  local a = t:subscribe(broker, name, first)
  local b, err = broker:subscribe(t:needs_descriptor(name, second or {}), t.timeouts.step)
  if not b then
    t:refused("a second subscription", "conflict", b, err)
    t:skip("the broker refuses a second such subscription")
  end
  t:publish_many(broker:publisher(), name, MESSAGES)
  local lists = { {}, {} }
  for i, subscription in ipairs({ a, b }) do
    while true do
      local message = subscription:next(i == 1 and #lists[1] == 0 and t.timeouts.delivery or t.timeouts.negative * 2)
      if not message then
        break
      end
      t:ack(message)
      table.insert(lists[i], message.payload)
    end
  end
  return lists[1], lists[2]
end

local function expected(n)
  local list = {}
  for i = 1, n do
    list[i] = tostring(i)
  end
  return list
end

-- The payloads that a cursor gives, to its end.
local function all_of(t, cursor, err)
  t:check_that(cursor, "broker:cursor() failed: %s", tostring(err))
  local payloads = {}
  while #payloads <= MESSAGES do
    local message, failure = cursor:next(t.timeouts.delivery)
    t:check_that(not failure, "cursor:next() failed: %s", tostring(failure))
    if not message then
      break
    end
    payloads[#payloads + 1] = message.payload
  end
  cursor:close()
  return payloads
end

-- Whether two lists have all numbers between them, each once.
local function shared_out(t, a, b)
  local seen, count = {}, 0
  for _, list in ipairs({ a, b }) do
    for _, payload in ipairs(list) do
      t:check_that(not seen[payload], "the message %s came twice", payload)
      seen[payload], count = true, count + 1
    end
  end
  return count == MESSAGES
end

return {
  {
    name = "ordering",
    proves = "ten messages arrive in the order in which they were published",
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      t:publish_many(broker:publisher(), name, MESSAGES)
      t:same_list("order", expected(MESSAGES), t:take_many(subscription, MESSAGES))
      t:nothing(subscription, "after the last message")
    end,
  },
  {
    name = "other_names_are_others",
    proves = "a subscription gets what is published to its name, and nothing else",
    run = function(t)
      local broker = t:broker()
      local name, other = t:subject(broker), t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local publisher = broker:publisher()
      t:subscribe(broker, other)
      t:publish(publisher, other, "no")
      t:publish(publisher, name, "yes")
      local message = t:take(subscription, "yes")
      t:check_that(message.destination == name, "message.destination is %s", tostring(message.destination))
      t:nothing(subscription, "what was published to another name")
    end,
  },
  {
    name = "subscription_is_there_at_once",
    proves = "what another connection publishes right after subscribe() has returned is delivered",
    given = { "shared" },
    live = true,
    run = function(t)
      local broker, other = t:broker(), t:broker()
      local publisher = other:publisher()
      for _ = 1, 20 do
        local name = t:subject(broker)
        local subscription = t:subscribe(broker, name)
        t:publish(publisher, name, "at once")
        t:take(subscription, "at once")
      end
    end,
  },
  {
    name = "ack_consumes_delivery",
    proves = "an acknowledged message does not come again",
    needs = { "ack" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      t:publish(broker:publisher(), name, "once")
      t:check_that(t:receive(subscription, "once"):ack() == true, "message:ack() must give true")
      t:nothing(subscription, "after the acknowledgement")
    end,
  },
  {
    name = "nack_with_requeue_redelivers",
    proves = "a message that was given back comes again with the same payload",
    needs = { "requeue" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      t:publish(broker:publisher(), name, "again")
      t:check_that(t:receive(subscription, "again"):nack({ requeue = true }) == true, "message:nack() must give true")
      t:take(subscription, "again", t.timeouts.redelivery)
      t:nothing(subscription, "after the acknowledgement of what came again")
    end,
  },
  {
    name = "nack_requeues_by_default",
    proves = "message:nack() without options gives the message back",
    needs = { "requeue" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      t:publish(broker:publisher(), name, "again")
      t:check_that(t:receive(subscription, "again"):nack() == true, "message:nack() must give true")
      t:take(subscription, "again", t.timeouts.redelivery)
    end,
  },
  {
    name = "nack_without_requeue_drops",
    proves = "a message that was rejected does not come again",
    needs = { "ack" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local publisher = broker:publisher()
      t:publish(publisher, name, "bad")
      local ok, err = t:receive(subscription, "bad"):nack({ requeue = false })
      if not ok then
        t:refused("message:nack{ requeue = false }", "unsupported", ok, err)
        t:skip("the broker cannot reject")
      end
      t:nothing(subscription, "after the rejection")
      t:publish(publisher, name, "good")
      t:take(subscription, "good")
    end,
  },
  {
    name = "headers_propagate",
    proves = "headers arrive with the names, in lower case, and the values that they were published with",
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local publisher = broker:publisher()
      local headers = {
        ["content-type"] = "application/json",
        ["correlation-id"] = "c-1",
        ["message-id"] = "m-1",
        traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ["x-custom"] = "a value, with: signs",
      }
      t:publish(publisher, name, "{}", headers)
      t:publish(publisher, name, "none")
      local message = t:take(subscription, "{}")
      for key, value in pairs(headers) do
        t:check_that(message.headers[key] == value, "the header '%s' is %s", key, tostring(message.headers[key]))
      end
      t:check_that(type(t:take(subscription, "none").headers) == "table", "message.headers must be a table, always")
    end,
  },
  {
    name = "one_name_two_subscriptions",
    proves = "two subscriptions to one bare name either both get everything, or share it, each message once",
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local a, b = share(t, broker, name)
      if #a == MESSAGES and #b == MESSAGES then
        t:same_list("the first", expected(MESSAGES), a)
        t:same_list("the second", expected(MESSAGES), b)
      else
        t:check_that(shared_out(t, a, b), "one got %d and the other %d of %d messages", #a, #b, MESSAGES)
      end
    end,
  },
  {
    name = "group_shares",
    proves = "two members of a group get each message once between them",
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      t:needs_descriptor(name, { group = "workers" })
      local a, b = share(t, broker, name, { group = "workers" }, { group = "workers" })
      t:check_that(shared_out(t, a, b), "one got %d and the other %d of %d messages", #a, #b, MESSAGES)
    end,
  },
  {
    name = "groups_get_everything",
    proves = "two groups of one name get every message each",
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      t:needs_descriptor(name, { group = "left" })
      local a, b = share(t, broker, name, { group = "left" }, { group = "right" })
      t:same_list("the first group", expected(MESSAGES), a)
      t:same_list("the second group", expected(MESSAGES), b)
    end,
  },
  {
    name = "browse_takes_nothing",
    proves = "browse(), and cursor() where it is, show what waits, oldest first, and take nothing; what was refused is"
      .. " not there",
    needs = { "browse" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local publisher = broker:publisher()
      t:publish_many(publisher, name, 3)
      t:refused("a publish with an unknown option", "unsupported",
        publisher:publish(name, "refused", nil, { ["no such option"] = 1 }))
      for _ = 1, 2 do
        local list, err = broker:browse(name, 10)
        t:check_that(list, "broker:browse() failed: %s", tostring(err))
        local payloads = {}
        for i, message in ipairs(list) do
          payloads[i] = message.payload
        end
        t:same_list("browse()", expected(3), payloads)
      end
      t:check_that(#broker:browse(name, 2) == 2, "browse(name, 2) must show two")
      if broker.cursor then
        t:same_list("cursor()", expected(3), all_of(t, broker:cursor(name)))
      end
      t:same_list("afterwards", expected(3), t:take_many(subscription, 3))
    end,
  },
}
