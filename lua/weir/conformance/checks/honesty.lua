--- What a broker does not claim, it refuses with "unsupported": a faked success is a defect.
-- @module weir.conformance.checks.honesty

-- An unsettled message, with its subscription.
local function message_of(t)
  local broker = t:broker()
  local name = t:subject(broker)
  local subscription = t:subscribe(broker, name)
  t:publish(broker:publisher(), name, "x")
  return t:receive(subscription, "x"), subscription, broker, name
end

local function method(t, object, what, name)
  return t:check_that(object[name], "%s has no method '%s'; it must answer \"unsupported\"", what, name)
end

local function check(name, proves, run, without, needs)
  return { name = name, proves = proves, without = { without or name }, needs = needs, run = run }
end

return {
  check("ack", "ack() of a broker without settlement is refused", function(t)
    local message, subscription = message_of(t)
    t:refused("ack()", "unsupported", message:ack())
    t:refused("nack()", "unsupported", message:nack())
    t:nothing(subscription, "after the refusal")
  end),
  check("requeue", "nack{ requeue = true } is refused, and the message can still be acknowledged", function(t)
    local message, subscription = message_of(t)
    t:refused("nack{ requeue = true }", "unsupported", message:nack({ requeue = true }))
    t:check_that(message:ack(), "ack() after a refused nack() failed")
    t:nothing(subscription, "after ack()")
  end, nil, { "ack" }),
  check("delay", "nack{ delay = } is refused, and the message can still be acknowledged", function(t)
    local message, subscription = message_of(t)
    t:refused("nack{ delay = 0.1 }", "unsupported", message:nack({ delay = 0.1 }))
    t:check_that(message:ack(), "ack() after a refused nack() failed")
    t:nothing(subscription, "after ack()", 0.3)
  end, nil, { "ack" }),
  check("attempts", "messages of a broker that does not count have no number", function(t)
    local message = message_of(t)
    t:check_that(message.attempts == nil, "attempts is %s", tostring(message.attempts))
  end),
  check("key", "messages of a broker without partition keys have none", function(t)
    local broker = t:broker()
    local name = t:subject(broker)
    local subscription = t:subscribe(broker, name)
    if broker:publisher():publish(name, "x", { ["partition-key"] = "k" }) then
      t:check_that(t:receive(subscription, "x").key == nil, "a message has a key")
    end
  end),
  check("extend", "extend() is refused", function(t)
    local message = message_of(t)
    method(t, message, "a message", "extend")
    t:refused("extend()", "unsupported", message:extend())
  end),
  check("batch", "next_batch() is refused, and takes nothing", function(t)
    local broker = t:broker()
    local name = t:subject(broker)
    local subscription = t:subscribe(broker, name)
    t:publish(broker:publisher(), name, "x")
    method(t, subscription, "a subscription", "next_batch")
    t:refused("next_batch()", "unsupported", subscription:next_batch(3, 0.01, t.timeouts.delivery))
    t:take(subscription, "x")
  end),
  check("seek", "seek() is refused, and moves nothing", function(t)
    local message, subscription, broker, name = message_of(t)
    method(t, subscription, "a subscription", "seek")
    t:refused("seek()", "unsupported", subscription:seek(message.position or 1))
    t:ack(message)
    t:publish(broker:publisher(), name, "y")
    t:take(subscription, "y")
  end),
  check("request", "request() is refused", function(t)
    local broker = t:broker()
    local name = t:subject(broker)
    t:subscribe(broker, name)
    local publisher = broker:publisher()
    method(t, publisher, "a publisher", "request")
    t:refused("request()", "unsupported", publisher:request(name, "x", nil, t.timeouts.delivery))
  end),
  check("transactions", "transaction() is refused", function(t)
    local publisher = t:broker():publisher()
    method(t, publisher, "a publisher", "transaction")
    t:refused("transaction()", "unsupported", publisher:transaction())
  end),
  check("browse", "browse() is refused", function(t)
    local broker = t:broker()
    method(t, broker, "the broker", "browse")
    t:refused("browse()", nil, broker:browse(t:subject(broker), 10)) -- it may say that nothing is kept there
  end),
  check("pause", "pause() and resume() are refused, or are not there", function(t)
    local broker = t:broker()
    local subscription = t:subscribe(broker, t:subject(broker))
    for _, name in ipairs({ "pause", "resume" }) do
      if subscription[name] then
        t:refused(name .. "()", "unsupported", subscription[name](subscription))
      end
    end
  end),
}
