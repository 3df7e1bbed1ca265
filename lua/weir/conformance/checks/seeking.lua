--- Going to another place of what the broker keeps.
-- @module weir.conformance.checks.seeking

local tasks = require("weir.task")

local MESSAGES = 6

-- A subscription that has taken six messages, and their positions.
local function read(t)
  local broker = t:broker()
  local name = t:subject(broker)
  local subscription, publisher = t:subscribe(broker, name), broker:publisher()
  t:publish_many(publisher, name, MESSAGES)
  local positions = {}
  for i = 1, MESSAGES do
    local message = t:take(subscription, tostring(i))
    positions[i] = message.position
    t:check_that(positions[i] ~= nil, "a message has no position")
  end
  return subscription, positions, publisher, name, broker
end

local function seek(t, subscription, position)
  local ok, err = subscription:seek(position)
  t:check_that(ok, "subscription:seek(%s) failed: %s", tostring(position), tostring(err))
end

-- Takes the messages from one number to the last.
local function suffix(t, subscription, from)
  for i = from, MESSAGES do
    t:take(subscription, tostring(i))
  end
  t:nothing(subscription, "after the last")
end

return {
  {
    name = "back",
    proves = "seeking to the position of a message delivers exactly that one next, then all that follow",
    needs = { "seek" },
    run = function(t)
      local subscription, positions = read(t)
      seek(t, subscription, positions[3])
      suffix(t, subscription, 3)
      seek(t, subscription, positions[MESSAGES])
      suffix(t, subscription, MESSAGES)
      seek(t, subscription, positions[1])
      suffix(t, subscription, 1)
    end,
  },
  {
    name = "forward",
    proves = "seeking forward skips what is between",
    needs = { "seek" },
    run = function(t)
      local subscription, positions = read(t)
      seek(t, subscription, positions[1])
      t:take(subscription, "1")
      seek(t, subscription, positions[5])
      suffix(t, subscription, 5)
    end,
  },
  {
    name = "live_after_seek",
    proves = "after a seek new messages follow those that are kept",
    needs = { "seek" },
    run = function(t)
      local subscription, positions, publisher, name = read(t)
      seek(t, subscription, positions[5])
      t:publish(publisher, name, "7")
      for i = 5, 7 do
        t:take(subscription, tostring(i))
      end
    end,
  },
  {
    name = "before_the_first_delivery",
    proves = "a new subscription may seek before it has taken anything",
    needs = { "seek" },
    run = function(t)
      local _, positions, _, name, broker = read(t)
      local fresh = t:subscribe_beside(broker, name)
      seek(t, fresh, positions[4])
      suffix(t, fresh, 4)
    end,
  },
  {
    name = "from_anywhere",
    proves = "seeking works from tasks, from coroutines of the program's own, and from the main thread",
    needs = { "seek" },
    run = function(t)
      local subscription, positions = read(t)
      for _, place in ipairs(t:places()) do
        place[2](t, function()
          seek(t, subscription, positions[2])
        end)
        suffix(t, subscription, 2)
      end
    end,
  },
  {
    name = "unknown_position",
    proves = "a position that there is not is an error, and does not move the subscription",
    needs = { "seek" },
    run = function(t)
      local subscription, positions, publisher, name = read(t)
      seek(t, subscription, positions[5])
      t:take(subscription, "5")
      for _, position in ipairs({ "nowhere at all", 2 ^ 52, -1 }) do
        local returned, ok, err = pcall(subscription.seek, subscription, position)
        if returned then
          t:refused(("seek(%s)"):format(tostring(position)), nil, ok, err)
        end
      end
      t:take(subscription, "6")
      t:publish(publisher, name, "7")
      t:take(subscription, "7")
    end,
  },
  {
    name = "batches",
    proves = "batches after a seek are exactly the messages from there on",
    needs = { "seek", "batch" },
    run = function(t)
      local subscription, positions = read(t)
      seek(t, subscription, positions[2])
      local got = {}
      while #got < MESSAGES - 1 do
        local batch, err = subscription:next_batch(4, 0.05, t.timeouts.delivery)
        t:check_that(batch, "next_batch() failed: %s", tostring(err))
        for _, message in ipairs(batch) do
          got[#got + 1] = message.payload
          t:ack(message)
        end
      end
      t:same_list("after the seek", { "2", "3", "4", "5", "6" }, got)
      t:nothing(subscription, "after the last")
    end,
  },
  {
    name = "after_shutdown",
    proves = "seeking after shutdown() or close() is an error",
    needs = { "seek" },
    run = function(t)
      local subscription, positions, _, name, broker = read(t)
      local other = t:subscribe_beside(broker, name)
      other:close(t.timeouts.step)
      t:refused("seek() after close()", { "closed", "stopped" }, other:seek(positions[1]))
      broker:shutdown(t.timeouts.step)
      t:refused("seek() after shutdown()", "closed", tasks.spawn(subscription.seek, subscription, positions[1]):join())
    end,
  },
}
