--- Making, connecting, calling from anywhere, and shutting down.
-- @module weir.conformance.checks.lifecycle

local contract = require("weir.broker.contract")
local errors = require("weir.errors")
local tasks = require("weir.task")

local STATES = { new = true, connecting = true, up = true, degraded = true, failed = true, closed = true }

-- A message that a subscription has not settled, and its parts.
local function held_message(t, broker, payload, wanted)
  local name = t:subject(broker)
  local subscription = t:subscribe(broker, name, wanted)
  t:publish(broker:publisher(), name, payload)
  return t:receive(subscription, payload), subscription, name
end

-- Calls fn(place, run) for each place that a program may call from.
local function from_everywhere(t, fn)
  for _, place in ipairs(t:places()) do
    fn(place[1], function(inner)
      return place[2](t, inner)
    end)
  end
end

-- The payloads of `publish_many`.
local function numbers(count)
  local list = {}
  for i = 1, count do
    list[i] = tostring(i)
  end
  return list
end

local function shut_down(t, broker)
  local began = tasks.now()
  local ok, err = broker:shutdown(t.timeouts.step)
  t:check_that(ok, "broker:shutdown() failed: %s", tostring(err))
  t:check_that(tasks.now() - began <= t.timeouts.step, "broker:shutdown() took %.1f s", tasks.now() - began)
end

return {
  {
    name = "construction",
    proves = "making a broker takes no time, does no I/O, and needs no server",
    run = function(t)
      local began = tasks.now()
      local broker = t:unconnected()
      t:check_that(tasks.now() - began < 1, "making a broker took %.1f s", tasks.now() - began)
      local ok, err = pcall(contract.check, broker)
      t:check_that(ok, "%s", tostring(err))
      t:check_that(broker:state() == "new", "the state of a new broker is %s", tostring(broker:state()))
      t:check_that(type(broker.clock) == "table" and broker.clock.now, "broker.clock must be a clock")
      for name in pairs(broker:capabilities()) do
        t:check_that(contract.capabilities[name], "there is no capability '%s'", tostring(name))
      end
      t:check_that(broker:publisher(), "broker:publisher() must work before connect()")
    end,
  },
  {
    name = "states",
    proves = "state() and watch() tell of connecting and of the end",
    run = function(t)
      local broker = t:unconnected()
      local seen = {}
      local unwatch = broker:watch(function(state)
        seen[#seen + 1] = state
      end)
      broker:watch(function() end)()
      t:check_that(broker:connect(t.timeouts.step), "broker:connect() failed")
      t:check_that(broker:state() == "up", "the state after connect() is %s", tostring(broker:state()))
      shut_down(t, broker)
      t:check_that(broker:state() == "closed", "the state after shutdown() is %s", tostring(broker:state()))
      t:check_that(seen[#seen] == "closed", "the last state that was told is %s", tostring(seen[#seen]))
      for _, state in ipairs(seen) do
        t:check_that(STATES[state], "there is no state %s", tostring(state))
      end
      t:check_that(type(unwatch) == "function", "watch() must return a function")
    end,
  },
  {
    name = "header_round_trip",
    proves = "24 headers, an empty one and one of bytes that are no text arrive byte for byte, or are refused",
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local publisher = broker:publisher()
      local headers = {
        [contract.headers.attempt] = "3",
        traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
      }
      for i = 1, 20 do
        headers[("x-number-%d"):format(i)] = ("value %d"):format(i)
      end
      t:publish(publisher, name, "plain", headers)
      local message = t:take(subscription, "plain")
      for key, value in pairs(headers) do
        t:check_that(message.headers[key] == value, "the header '%s' is %s", key, tostring(message.headers[key]))
      end
      for key, value in pairs({ ["x-empty"] = "", ["x-bytes"] = "\255\254\1\127\128", ["x-space"] = "  a  " }) do
        local ok, err = publisher:publish(name, key, { [key] = value })
        if ok then
          local got = t:take(subscription, key).headers[key]
          t:check_that(got == value, "the header '%s' arrives as %s", key, got and ("%q"):format(got) or "nothing")
        else
          t:check_that(errors.is(err), "publish() gave %s as an error", tostring(err))
          t:nothing(subscription, "a message that was refused for its header " .. key)
        end
      end
    end,
  },
  {
    name = "unkeyed_run",
    proves = "32 messages arrive, none is invented",
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      t:publish_many(broker:publisher(), name, 32)
      local seen = {}
      for _, payload in ipairs(t:take_many(subscription, 32)) do
        t:check_that(tonumber(payload) and not seen[payload], "the message %q came twice or was invented", payload)
        seen[payload] = true
      end
      t:nothing(subscription, "after all 32")
    end,
  },
  {
    name = "subscribe_from_anywhere",
    proves = "a subscription outlives the task or coroutine that opened it",
    run = function(t)
      local broker = t:broker()
      local publisher = broker:publisher()
      from_everywhere(t, function(place, run)
        local name = t:subject(broker)
        local subscription = run(function()
          return t:subscribe(broker, name)
        end)
        t:check_that(subscription, "subscribing from %s failed", place)
        t:publish(publisher, name, place)
        t:take(subscription, place)
      end)
    end,
  },
  {
    name = "publish_from_anywhere",
    proves = "a publisher that was made and used in a task that ended works from everywhere else",
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local publisher = tasks.spawn(function()
        local made = broker:publisher()
        t:publish(made, name, "first")
        return made
      end):join()
      t:take(subscription, "first")
      from_everywhere(t, function(place, run)
        run(function()
          t:publish(publisher, name, place)
        end)
        t:take(subscription, place)
      end)
    end,
  },
  {
    name = "receive_anywhere",
    proves = "who waits in next() gets the message, wherever it waits",
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local publisher = broker:publisher()
      from_everywhere(t, function(place, run)
        local task = t:spawn(function()
          tasks.sleep(0.02)
          t:publish(publisher, name, place)
        end)
        run(function()
          return t:take(subscription, place)
        end)
        task:join()
      end)
    end,
  },
  {
    name = "settle_from_anywhere",
    proves = "acknowledging, giving back and rejecting work from everywhere",
    needs = { "ack", "requeue" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local publisher = broker:publisher()
      from_everywhere(t, function(place, run)
        local function settle(how, options)
          local message = t:receive(subscription, nil, t.timeouts.redelivery)
          local ok, err = run(function()
            return message[how](message, options)
          end)
          t:check_that(ok, "%s from %s failed: %s", how, place, tostring(err))
        end
        t:publish(publisher, name, "back")
        settle("nack", { requeue = true })
        settle("ack")
        t:nothing(subscription, "after an acknowledgement from " .. place)
        t:publish(publisher, name, "bad")
        settle("nack", { requeue = false })
        t:nothing(subscription, "after a rejection from " .. place)
      end)
    end,
  },
  {
    name = "delay",
    proves = "nack{ delay = } brings a message back not sooner than that, and does bring it back",
    needs = { "delay" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local publisher = broker:publisher()
      local delay = t.timeouts.delay
      t:publish(publisher, name, "later")
      local message = t:receive(subscription, "later")
      local began = broker.clock.now()
      t:check_that(tasks.spawn(message.nack, message, { delay = delay }):join() == true, "nack{ delay = } failed")
      t:publish(publisher, name, "meanwhile")
      t:take(subscription, "meanwhile")
      local back = t:receive(subscription, "later", delay + t.timeouts.redelivery)
      local after = broker.clock.now() - began
      -- Clocks of servers have milliseconds.
      t:check_that(after >= delay - 0.01, "it came back after %.3f s, %g s were asked for", after, delay)
      t:ack(back)
      t:nothing(subscription, "after the acknowledgement")
    end,
  },
  {
    name = "shutdown",
    proves = "after shutdown() everything gives \"closed\", and who waits is woken",
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local before = t:unconnected():publisher()
      local subscription = t:subscribe(broker, name)
      local unused, used = broker:publisher(), broker:publisher()
      t:publish(used, name, "last")
      t:take(subscription, "last")
      local waiting = t:spawn(function()
        return subscription:next(t.timeouts.step)
      end)
      tasks.sleep(0.02)
      shut_down(t, broker)
      t:refused("next() of who waited", { "closed", "stopped" }, waiting:join(1))
      t:refused("a publisher that was used before shutdown()", "closed", used:publish(name, "x"))
      t:refused("a publisher that was not used before shutdown()", "closed", unused:publish(name, "x"))
      t:refused("a publisher that was made after shutdown()", "closed", broker:publisher():publish(name, "x"))
      t:refused("broker:subscribe() after shutdown()", "closed", broker:subscribe(t:descriptor(name)))
      t:refused("subscription:next() after shutdown()", { "closed", "stopped" }, subscription:next(0))
      t:refused("flush() after shutdown()", "closed", used:flush(1))
      t:refused("broker:connect() after shutdown()", "closed", broker:connect(1))
      local ok = broker:shutdown(1)
      t:check_that(ok, "a second shutdown() must be harmless")
      t:refused("publish() without connect()", { "disconnected", "closed" }, before:publish(name, "x"))
    end,
  },
  {
    name = "delivery_across_shutdown",
    proves = "what is settled after shutdown() gives an error; the message is not lost",
    needs = { "ack" },
    run = function(t)
      local broker = t:broker()
      local wanted = t:descriptor(t:subject(), { group = "g", durable = true }) and { group = "g", durable = true }
      local message, _, name = held_message(t, broker, "held", wanted)
      shut_down(t, broker)
      t:refused("ack() after shutdown()", { "closed", "lost" }, message:ack())
      t:refused("nack() after shutdown()", { "closed", "lost" }, message:nack())
      local claimed = wanted and t:capabilities(broker, name, wanted)
      if claimed and (claimed.persist or t.options.shared) then
        local again = t:broker()
        t:take(t:subscribe(again, name, wanted), "held", t.timeouts.redelivery)
      end
    end,
  },
  {
    name = "shutdown_flushes",
    proves = "what was acknowledged and published right before shutdown() is not lost",
    needs = { "ack", "persist" },
    wanted = { group = "g", durable = true },
    run = function(t)
      local wanted = { group = "g", durable = true }
      local broker = t:broker()
      local message, _, name = held_message(t, broker, "done", wanted)
      local publisher = broker:publisher()
      t:publish_many(publisher, name, 20)
      t:check_that(message:ack(), "ack() failed")
      shut_down(t, broker)
      local again = t:broker()
      local subscription = t:subscribe(again, name, wanted)
      local seen = {} -- what was read ahead may come back in another order
      for _, payload in ipairs(t:take_many(subscription, 20, t.timeouts.redelivery)) do
        t:check_that(tonumber(payload) and not seen[payload], "the message %q came twice or was acknowledged", payload)
        seen[payload] = true
      end
      t:nothing(subscription, "after all that was not acknowledged")
    end,
  },
  {
    name = "stopping",
    proves = "stop() ends next() with \"stopped\" and leaves what was taken to be settled; close() may be called twice",
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      t:publish(broker:publisher(), name, "taken")
      local message = t:receive(subscription, "taken")
      local waiting = t:spawn(function()
        return subscription:next(t.timeouts.step)
      end)
      tasks.sleep(0.02)
      subscription:stop()
      t:refused("next() of who waited", "stopped", waiting:join(1))
      t:refused("next() after stop()", "stopped", subscription:next(0))
      t:ack(message)
      t:check_that(subscription:close(t.timeouts.step), "close() failed")
      t:check_that(subscription:close(t.timeouts.step), "a second close() must be harmless")
      t:refused("next() after close()", { "stopped", "closed" }, subscription:next(0))
    end,
  },
  {
    name = "pausing",
    proves = "pause() ends next() with \"paused\" and takes no message with it; after resume() all that came is there",
    needs = { "pause" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local publisher = broker:publisher()
      t:publish(publisher, name, "taken")
      local taken = t:receive(subscription, "taken")
      local waiting = {}
      for i = 1, 2 do
        waiting[i] = t:spawn(function()
          return subscription:next(t.timeouts.step)
        end)
      end
      tasks.sleep(0.02)
      for _ = 1, 2 do
        t:check_that(subscription:pause(), "pause() failed")
      end
      t:publish_many(publisher, name, 16)
      for i = 1, 2 do
        t:refused("next() of who waited", "paused", waiting[i]:join(1))
      end
      tasks.sleep(t.timeouts.negative)
      t:refused("next() after pause()", "paused", subscription:next(0))
      t:ack(taken)
      for _ = 1, 2 do
        t:check_that(subscription:resume(), "resume() failed")
      end
      t:same_list("after resume()", numbers(16), t:take_many(subscription, 16))
      t:nothing(subscription, "after all that came meanwhile")
    end,
  },
  {
    name = "pausing_and_batches",
    proves = "pause() ends next_batch() with \"paused\", or with what it had taken, and loses none of the messages",
    needs = { "pause", "batch" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local publisher = broker:publisher()
      local waiting = t:spawn(function()
        return subscription:next_batch(8, 0.01, t.timeouts.step)
      end)
      tasks.sleep(0.02)
      t:check_that(subscription:pause(), "pause() failed")
      t:refused("next_batch() of who waited", "paused", waiting:join(1))
      t:check_that(subscription:resume(), "resume() failed")
      t:publish(publisher, name, "1")
      local lingering = t:spawn(function()
        return subscription:next_batch(8, t.timeouts.step, t.timeouts.step)
      end)
      -- What was taken for a batch waits nowhere.
      local began = tasks.now()
      repeat
        tasks.sleep(0.01)
      until (subscription:stats().queued or 0) == 0 or tasks.now() - began > t.timeouts.delivery
      tasks.sleep(t.timeouts.negative)
      t:check_that(subscription:pause(), "pause() failed")
      local batch = lingering:join(1)
      t:check_that(batch and #batch == 1 and batch[1].payload == "1", "a batch of the first message was expected")
      t:ack(batch[1])
      t:publish(publisher, name, "2")
      t:refused("next_batch() after pause()", "paused", subscription:next_batch(8, 0.01, t.timeouts.negative))
      t:check_that(subscription:resume(), "resume() failed")
      t:take(subscription, "2")
    end,
  },
  {
    name = "pausing_and_the_end",
    proves = "a subscription that is paused can be stopped and closed, and is neither paused nor resumed after that",
    needs = { "pause" },
    run = function(t)
      local broker = t:broker()
      local subscription = t:subscribe(broker, t:subject(broker))
      t:check_that(subscription:pause(), "pause() failed")
      subscription:stop()
      t:refused("next() after stop()", "stopped", subscription:next(0))
      t:refused("resume() after stop()", "stopped", subscription:resume())
      t:refused("pause() after stop()", "stopped", subscription:pause())
      t:check_that(subscription:close(t.timeouts.step), "close() failed")
      t:refused("resume() after close()", { "stopped", "closed" }, subscription:resume())
      local other = t:subscribe(broker, t:subject(broker))
      t:check_that(other:pause(), "pause() failed")
      shut_down(t, broker)
      t:refused("next() after shutdown()", { "stopped", "closed" }, other:next(0))
      t:refused("resume() after shutdown()", { "stopped", "closed" }, other:resume())
    end,
  },
  {
    name = "cancelled_waiter_takes_nothing",
    proves = "a task that is cancelled while it waits in next() takes no message with it",
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local waiting = t:spawn(function()
        return subscription:next(t.timeouts.step)
      end)
      tasks.sleep(0.02)
      waiting:cancel()
      t:refused("next() of a cancelled task", "cancelled", waiting:join(1))
      t:publish_many(broker:publisher(), name, 2)
      t:same_list("after it", { "1", "2" }, t:take_many(subscription, 2))
    end,
  },
}
