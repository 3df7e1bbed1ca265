--- Servers and processes that die, refusals, and loops that must not be hot.
-- @module weir.conformance.checks.faults

local child = require("weir.conformance.child")
local errors = require("weir.errors")
local flaky = require("weir.conformance.flaky")
local tasks = require("weir.task")

local WANTED = { group = "g", durable = true }

-- Takes what a subscription has until it has seen all of `n` numbers; what comes twice is fine.
local function take_all(t, subscription, n, first)
  local seen, count = {}, 0
  local deadline = tasks.now() + t.timeouts.server + (t.options.redelivery or 0)
  while count < n do
    local message, err = subscription:next(deadline - tasks.now() > 0 and deadline - tasks.now() or 0)
    t:check_that(message, "%d of %d messages came, then: %s", count, n, tostring(err))
    t:ack(message)
    local number = tonumber(message.payload)
    if number >= first and not seen[number] then
      seen[number], count = true, count + 1
    end
  end
end

-- Publishes until the broker takes it.
local function publish_until(t, publisher, name, payload)
  t:eventually("a publish after the server came back", t.timeouts.server, function()
    return (publisher:publish(name, payload))
  end)
end

local function kill(t)
  local server = t.options.server
  server.kill()
  t:finally(function()
    server.start()
  end)
end

-- Calls next() for some seconds; how often it returned, and the last error.
local function pull(subscription, seconds)
  local count, last = 0, nil
  local deadline = tasks.now() + seconds
  while tasks.now() < deadline and count < 10000 do
    local _, err = subscription:next(0.25)
    count, last = count + 1, err
  end
  return count, last
end

local TERMINAL = { closed = true, stopped = true, failed = true }

return {
  {
    name = "server_restarts",
    proves = "a server that is killed and started again: state and health tell, the subscription goes on by itself",
    given = { "server" },
    live = true,
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name, t:descriptor(name, WANTED) and WANTED or nil)
      local publisher, states = broker:publisher(), {}
      broker:watch(function(state)
        states[#states + 1] = state
      end)
      t:publish(publisher, name, "1")
      t:take(subscription, "1")
      t.options.server.kill()
      t:finally(t.options.server.start)
      t:eventually("the state \"degraded\"", t.timeouts.server, function()
        publisher:publish(name, "0")
        return broker:state() ~= "up"
      end)
      t.options.server.start()
      t:eventually("the state \"up\"", t.timeouts.server, function()
        return broker:state() == "up"
      end)
      publish_until(t, publisher, name, "2")
      take_all(t, subscription, 1, 2)
      local first = states[1]
      t:check_that(first == "degraded" or first == "connecting", "the first change was to %s", tostring(first))
      t:check_that(states[#states] == "up", "the last change was to %s", tostring(states[#states]))
    end,
  },
  {
    name = "nothing_lost_mid_stream",
    proves = "what was confirmed and not acknowledged when the server died arrives after it came back",
    given = { "server" },
    needs = { "ack", "confirm", "persist" },
    wanted = WANTED,
    live = true,
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name, WANTED)
      local publisher = broker:publisher()
      t:publish_many(publisher, name, 50)
      for i = 1, 10 do
        t:take(subscription, tostring(i))
      end
      local held = {}
      for i = 1, 10 do
        held[i] = t:receive(subscription)
      end
      t.options.server.kill()
      t:finally(t.options.server.start)
      local refused, err = publisher:publish(name, "0")
      t:check_that(refused or errors.is(err), "publish() during the outage gave %s", tostring(err))
      t.options.server.start()
      for _, message in ipairs(held) do
        message:nack({ requeue = true }) -- it may be too late for that
      end
      publish_until(t, publisher, name, "51")
      take_all(t, subscription, 41, 11)
    end,
  },
  {
    name = "server_is_down_at_start",
    proves = "connect() to a server that is down gives an error in time, and works when it is up",
    given = { "server" },
    live = true,
    run = function(t)
      kill(t)
      local broker = t:unconnected()
      local began = tasks.now()
      local ok, err = broker:connect(2)
      t:refused("connect() without a server", { "refused", "timeout", "disconnected", "network" }, ok, err)
      t:check_that(tasks.now() - began < t.timeouts.step, "it took %.1f s", tasks.now() - began)
      t.options.server.start()
      t:eventually("connect()", t.timeouts.server, function()
        return broker:connect(2)
      end)
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      t:publish(broker:publisher(), name, "x")
      t:take(subscription, "x")
    end,
  },
  {
    name = "dead_server_is_no_hot_loop",
    proves = "while the server is down, waiting uses no processor, and connections are tried with pauses between them",
    given = { "server" },
    live = true,
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      t.options.server.kill()
      t:finally(t.options.server.start)
      local trap = t.options.server.port and flaky.listen(t.options.server.host or "127.0.0.1", t.options.server.port)
      local changes, cpu = 0, os.clock()
      local unwatch = broker:watch(function()
        changes = changes + 1
      end)
      local count, last = pull(subscription, 3)
      cpu = os.clock() - cpu
      unwatch()
      local attempts = trap and trap:close() or 0
      t:check_that(cpu < 1.5, "three seconds of waiting took %.1f s of the processor", cpu)
      t:check_that(attempts <= 60, "the dead server saw %d attempts to connect in three seconds", attempts)
      t:check_that(changes <= 120, "the state changed %d times in three seconds", changes)
      t:check_that(count <= 30 or TERMINAL[last and last.code],
        "next(0.25) came back %d times in three seconds, with %s", count, tostring(last))
    end,
  },
  {
    name = "end_is_no_hot_loop",
    proves = "a subscription that has ended says so with the same final error every time",
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      broker:shutdown(t.timeouts.step)
      for _ = 1, 3 do
        t:refused("next() after the end", { "closed", "stopped" }, subscription:next(0.01))
      end
    end,
  },
  {
    name = "unauthorized",
    proves = "wrong credentials are an error of connect() that says so, and are not tried for ever",
    given = { "unauthorized" },
    live = true,
    run = function(t)
      local broker = t.options.unauthorized()
      t:finally(function()
        broker:shutdown(t.timeouts.step)
      end)
      local err = t:refused("connect() with wrong credentials", { "unauthorized", "forbidden" },
        broker:connect(t.timeouts.step))
      local state, reason = broker:state()
      t:check_that(state == "failed", "the state is %s", tostring(state))
      t:check_that(errors.is(reason, err.code), "the reason of the state is %s", tostring(reason))
    end,
  },
  {
    name = "killed_between_handler_and_ack",
    proves = "kill -9 of a process that took a message and did not acknowledge it: the message comes to the next one",
    given = { "program" },
    needs = { "ack", "persist" },
    wanted = WANTED,
    live = true,
    long = 2,
    run = function(t)
      local broker = t.options.make()
      t:check_that(broker:connect(t.timeouts.step), "connect() failed")
      local name = t:subject(broker)
      t:subscribe(broker, name, WANTED)
      t:publish_many(broker:publisher(), name, 4)
      broker:shutdown(t.timeouts.step)
      -- It acknowledges the first, takes the second, says so, and is killed.
      local process = child.start(t, t.options.program, name, WANTED)
      process:await("holds 2", t.timeouts.server)
      process:kill()
      local again = t:broker()
      local subscription = t:subscribe(again, name, WANTED)
      local seen, deadline = {}, tasks.now() + t.timeouts.server + (t.options.redelivery or 0)
      while not (seen["2"] and seen["3"] and seen["4"]) do
        local message, err = subscription:next(math.max(0, deadline - tasks.now()))
        t:check_that(message, "2, 3 and 4 must come; came: %s %s %s; then %s", tostring(seen["2"]), tostring(seen["3"]),
          tostring(seen["4"]), tostring(err))
        t:ack(message)
        seen[message.payload] = "yes"
      end
      -- At least once: what was acknowledged right before the end may come again, what was not must.
    end,
  },
}
