--- The twin in process answers as the broker itself.
-- @module weir.conformance.checks.in_process

local clocks = require("weir.clock")
local contract = require("weir.broker.contract")
local errors = require("weir.errors")
local tasks = require("weir.task")
local virtual_clock = require("weir.test.clock")

-- A connected twin.
local function twin_of(t, clock)
  local twin = t.options.make():in_process(clock or clocks)
  local ok, err = pcall(contract.check, twin)
  t:check_that(ok, "broker:in_process(): %s", tostring(err))
  t:finally(function()
    twin:shutdown(t.timeouts.step)
  end)
  ok, err = twin:connect(t.timeouts.step)
  t:check_that(ok, "the twin does not connect: %s", tostring(err))
  return twin
end

local function code(ok, err)
  if ok then
    return "ok"
  end
  return errors.is(err) and err.code or tostring(err)
end

-- Whether a message comes within a time.
local function comes(t, subscription, seconds)
  local message = subscription:next(seconds)
  if message then
    t:ack(message)
  end
  return message and "comes" or "gone"
end

-- What a broker answers to each way of settling: a table of texts.
local function answers(t, broker)
  local name = t:subject(broker)
  local subscription = t:subscribe(broker, name)
  local publisher = broker:publisher()
  local found = {}
  local function try(how, settle, wait)
    t:publish(publisher, name, how)
    local answer = code(settle(t:receive(subscription, how)))
    found[how] = answer .. ", " .. comes(t, subscription, answer == "ok" and wait or t.timeouts.negative)
  end
  try("ack", function(message)
    return message:ack()
  end, t.timeouts.negative)
  try("reject", function(message)
    return message:nack({ requeue = false })
  end, t.timeouts.negative)
  try("requeue", function(message)
    return message:nack({ requeue = true })
  end, t.timeouts.redelivery)
  try("delay", function(message)
    return message:nack({ delay = 0.2 })
  end, t.timeouts.redelivery)
  try("twice", function(message)
    message:ack()
    return message:ack()
  end, t.timeouts.negative)
  try("extend", function(message)
    local ok, err = message:extend()
    t:ack(message)
    return ok, err
  end, t.timeouts.negative)
  return found
end

-- What a broker answers to what it may refuse.
local function refusals(t, broker)
  local name = t:subject(broker)
  local publisher = broker:publisher()
  local found = {}
  local function refusal(what, fn, ...)
    local ok, a, b = pcall(fn, ...)
    found[what] = ok and code(a, b) or "raises"
  end
  t:subscribe(broker, name)
  refusal("an unknown option", publisher.publish, publisher, name, "x", nil, { ["no such option"] = 1 })
  refusal("a payload that is no string", publisher.publish, publisher, name, {})
  refusal("an unknown option of a descriptor", broker.descriptor, broker, { name = name, ["no such option"] = 1 })
  for _, bad in ipairs(t.options.bad_destinations or {}) do
    refusal(("the destination %q"):format(bad), publisher.publish, publisher, bad, "x")
  end
  local limit = t.options.max_payload
  if limit then
    refusal("a payload of the limit", publisher.publish, publisher, name, ("x"):rep(limit))
    refusal("a payload above the limit", publisher.publish, publisher, name, ("x"):rep(limit + 1))
  end
  return found
end

local function backlog(t, broker)
  local name = t:subject(broker)
  t:publish(broker:publisher(), name, "before")
  return comes(t, t:subscribe(broker, name), 1)
end

local function same(t, live, twin)
  for what, answer in pairs(live) do
    t:check_that(twin[what] == answer, "%s: the broker says %q, its twin in process %q", what, answer,
      tostring(twin[what]))
  end
end

return {
  {
    name = "capabilities",
    proves = "the twin claims what the broker claims, except to outlive the process",
    live = true,
    run = function(t)
      local broker = t.options.make()
      local spec = t:descriptor(t:subject())
      local twin = broker:in_process(clocks)
      local a, b = broker:capabilities(broker:descriptor(spec)), twin:capabilities(twin:descriptor(spec))
      for name in pairs(contract.capabilities) do
        t:check_that(name == "persist" or (a[name] and true) == (b[name] and true),
          "'%s' is %s of the broker and %s of its twin", name, tostring(a[name]), tostring(b[name]))
      end
    end,
  },
  {
    name = "settlement_answers",
    proves = "settling gives the same answers in process as live",
    live = true,
    run = function(t)
      same(t, answers(t, t:broker()), answers(t, twin_of(t)))
    end,
  },
  {
    name = "backlog_matches",
    proves = "what was published before the subscription arrives, or does not, in process as live",
    live = true,
    run = function(t)
      same(t, { backlog = backlog(t, t:broker()) }, { backlog = backlog(t, twin_of(t)) })
    end,
  },
  {
    name = "refuses_like_the_server",
    proves = "what is refused live is refused in process, with the same code; the exact limit passes in both",
    live = true,
    run = function(t)
      local live = refusals(t, t:broker())
      same(t, live, refusals(t, twin_of(t)))
      if t.options.max_payload then
        t:check_that(live["a payload of the limit"] == "ok", "a payload of exactly the limit must pass")
        t:check_that(live["a payload above the limit"] == "too_large", "one byte more must be \"too_large\"")
      end
    end,
  },
  {
    name = "virtual_time",
    proves = "what the twin delays comes by its clock: not before the time, and at it",
    needs = { "delay" },
    live = true,
    run = function(t)
      local clock = virtual_clock(1e9)
      local twin = twin_of(t, clock)
      local name = t:subject()
      local subscription = t:subscribe(twin, name)
      t:publish(twin:publisher(), name, "later")
      t:check_that(t:receive(subscription, "later"):nack({ delay = 3600 }), "nack{ delay = } failed")
      t:nothing(subscription, "before its time")
      clock.advance(3599)
      t:nothing(subscription, "a second before its time")
      clock.advance(1)
      t:take(subscription, "later")
    end,
  },
  {
    name = "counts_balance",
    proves = "the twin knows when it is quiet: pending() counts what is ready or unsettled, and not what is delayed",
    needs = { "ack", "requeue" },
    live = true,
    run = function(t)
      local clock = virtual_clock(1e9)
      local twin = twin_of(t, clock)
      local name = t:subject()
      local publisher = twin:publisher()
      local function pending(expected, when)
        local count = twin:pending()
        -- What waits need not be counted one by one.
        local fits = expected == 0 and count == 0 or expected > 0 and count > 0 and count <= expected
        t:check_that(fits, "pending() is %s %s, not %d", tostring(count), when, expected)
      end
      pending(0, "at first")
      publisher:publish(name, "nobody") -- some refuse that
      pending(0, "where nobody receives")
      local subscription = t:subscribe(twin, name)
      local quiet = 0
      local ended = twin:on_idle(function()
        quiet = quiet + 1
      end)
      local first = subscription:next(0)
      if first then -- a broker that keeps what nobody received
        first:ack()
      end
      quiet = 0
      t:publish_many(publisher, name, 3)
      pending(3, "after three publishes")
      local a, b, c = t:receive(subscription), t:receive(subscription), t:receive(subscription)
      pending(3, "while three are unsettled")
      a:ack()
      pending(2, "after an ack()")
      b:nack({ requeue = true })
      pending(2, "after a requeue")
      t:receive(subscription):nack({ requeue = false })
      pending(1, "after a rejection")
      if twin:capabilities().delay then
        c:nack({ delay = 2 })
        pending(0, "while the last is delayed")
        t:check_that(quiet > 0, "on_idle() did not tell of it")
        clock.advance(1)
        pending(0, "at half of the delay")
        clock.advance(1)
        pending(1, "when the delay is over")
        c = t:receive(subscription)
      end
      quiet = 0
      c:ack()
      pending(0, "at the end")
      t:check_that(quiet > 0, "on_idle() did not tell of the end")
      ended()
    end,
  },
  {
    name = "needs_no_server",
    proves = "the twin connects at once, without a server",
    live = true,
    run = function(t)
      local began = tasks.now()
      twin_of(t)
      t:check_that(tasks.now() - began < 1, "it took %.1f s", tasks.now() - began)
    end,
  },
}
