--- `next_batch`.
-- @module weir.conformance.checks.batches

local tasks = require("weir.task")

local MESSAGES, SIZE = 10, 3

local function next_batch(t, subscription, max, linger)
  local batch, err = subscription:next_batch(max, linger, t.timeouts.delivery)
  t:check_that(batch, "next_batch() failed: %s", tostring(err))
  t:check_that(#batch >= 1 and #batch <= max, "next_batch(%d) gave %d messages", max, #batch)
  return batch
end

local function start(t, wanted)
  local broker = t:broker()
  local name = t:subject(broker)
  return t:subscribe(broker, name, wanted), broker:publisher(), name, broker
end

return {
  {
    name = "order_and_size",
    proves = "batches of 3 over ten messages are in order, not empty, not larger",
    needs = { "batch" },
    run = function(t)
      local subscription, publisher, name = start(t)
      t:publish_many(publisher, name, MESSAGES)
      local got = {}
      while #got < MESSAGES do
        for _, message in ipairs(next_batch(t, subscription, SIZE)) do
          got[#got + 1] = message.payload
          t:ack(message)
        end
      end
      for i, payload in ipairs(got) do
        t:check_that(payload == tostring(i), "the message %s came at place %d", payload, i)
      end
      t:refused("next_batch() where nothing waits", "timeout", subscription:next_batch(SIZE, 0.01, t.timeouts.negative))
    end,
  },
  {
    name = "waiting_messages_share",
    proves = "messages that wait together come together within five rounds",
    needs = { "batch" },
    run = function(t)
      local subscription, publisher, name = start(t)
      for _ = 1, 5 do
        t:publish_many(publisher, name, SIZE)
        local count, largest = 0, 0
        while count < SIZE do
          local batch = next_batch(t, subscription, SIZE, 0.1)
          count, largest = count + #batch, math.max(largest, #batch)
          for _, message in ipairs(batch) do
            t:ack(message)
          end
        end
        if largest > 1 then
          return
        end
      end
      t:fail("five times, messages that waited together came one by one")
    end,
  },
  {
    name = "linger_ends",
    proves = "a batch that is not full comes when its linger is over, not when the timeout is",
    needs = { "batch" },
    run = function(t)
      local subscription, publisher, name = start(t)
      t:publish(publisher, name, "alone")
      local began = tasks.now()
      local batch = subscription:next_batch(SIZE, 0.05, t.timeouts.step)
      t:check_that(batch and #batch == 1, "a batch of one was expected")
      t:check_that(tasks.now() - began < t.timeouts.step, "it took until the timeout")
      t:ack(batch[1])
    end,
  },
  {
    name = "settled_one_by_one",
    proves = "the messages of a batch are settled each for itself, also in another task",
    needs = { "batch", "requeue" },
    run = function(t)
      local subscription, publisher, name = start(t)
      t:publish_many(publisher, name, SIZE)
      local held = {}
      while #held < SIZE do
        for _, message in ipairs(next_batch(t, subscription, SIZE - #held, 0.1)) do
          held[#held + 1] = message
        end
      end
      tasks.spawn(function()
        t:check_that(held[1]:ack(), "ack failed")
        t:check_that(held[2]:nack({ requeue = true }), "nack failed")
        t:check_that(held[3]:ack(), "ack failed")
      end):join()
      local batch = subscription:next_batch(SIZE, 0.05, t.timeouts.redelivery)
      t:check_that(batch and #batch == 1 and batch[1].payload == "2", "only the message 2 must come again")
      t:ack(batch[1])
      t:nothing(subscription, "after all were acknowledged")
    end,
  },
  {
    name = "stop_ends_waiting",
    proves = "who waits in next_batch() is woken by stop()",
    needs = { "batch" },
    run = function(t)
      local subscription = start(t)
      local waiting = t:spawn(function()
        return subscription:next_batch(SIZE, 0.01, t.timeouts.step)
      end)
      tasks.sleep(0.02)
      subscription:stop()
      t:refused("next_batch()", "stopped", waiting:join(1))
    end,
  },
}
