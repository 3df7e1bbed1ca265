--- Many messages, many publishers, any bytes, slow consumers, and no leak.
-- @module weir.conformance.checks.load

local errors = require("weir.errors")
local luv = require("luv")
local tasks = require("weir.task")

local PUBLISHERS, EACH = 4, 100
local MIB = 1024 * 1024

-- A generator of numbers that gives the same ones for the same seed, on every platform.
local function random(seed)
  local state = seed % 2147483647
  if state == 0 then
    state = 1
  end
  return function(n)
    state = state * 48271 % 2147483647
    return state % n
  end
end

local function bytes(number, length)
  local parts = {}
  for i = 1, length do
    parts[i] = string.char(number(256))
  end
  return table.concat(parts)
end

local function payloads(t)
  local number = random(t.options.seed)
  local all = {}
  for i = 0, 255 do
    all[i + 1] = string.char(i)
  end
  local list = { "", "\0", "\r\n", "\r\n\r\n.\r\n", "{", "\255\254", table.concat(all), ("\0"):rep(1000) }
  for _, size in ipairs({ 1, 7, 63, 64, 65, 511, 1024, 4095, 4096, 4097, 65535, 65536 }) do
    list[#list + 1] = bytes(number, size)
  end
  for _ = 1, 40 do
    list[#list + 1] = bytes(number, number(2000))
  end
  return list
end

-- Bytes that this process occupies once garbage is gone.
local function lua_bytes()
  for _ = 1, 3 do
    collectgarbage("collect")
  end
  return collectgarbage("count") * 1024
end

-- What must be as before when nothing is going on.
local GAUGES = { "held", "bytes", "pending", "inboxes", "queues", "subscriptions", "queued", "unsettled", "delayed" }

local function gauges(...)
  local found = {}
  for i = 1, select("#", ...) do
    local object = select(i, ...)
    if object.stats then
      local stats = object:stats()
      for _, name in ipairs(GAUGES) do
        found[i .. "." .. name] = type(stats[name]) == "number" and stats[name] or nil
      end
    end
  end
  return found
end

-- One turn of what a service does: publish, take, settle.
local function turn(t, publisher, subscription, name, i, requeue)
  t:publish(publisher, name, "payload " .. i, { ["x-number"] = tostring(i) })
  local message = t:receive(subscription)
  if requeue and i % 10 == 0 then
    message:nack({ requeue = true })
    message = t:receive(subscription, nil, t.timeouts.redelivery)
  end
  t:ack(message)
end

return {
  {
    name = "publishers_order",
    proves = "what four publishers publish at once all arrives, that of each in its order",
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      for p = 1, PUBLISHERS do
        local publisher = (t:other_connection() or broker):publisher()
        t:spawn(function()
          for i = 1, EACH do
            t:publish(publisher, name, ("%d %d"):format(p, i))
            if i % 10 == p then
              tasks.sleep(0)
            end
          end
        end)
      end
      local last = { 0, 0, 0, 0 }
      for _ = 1, PUBLISHERS * EACH do
        local p, i = t:take(subscription, nil, t.timeouts.step).payload:match("(%d+) (%d+)")
        p, i = tonumber(p), tonumber(i)
        t:check_that(i == last[p] + 1, "of publisher %d, message %d came after %d", p, i, last[p])
        last[p] = i
      end
      t:nothing(subscription, "after all")
    end,
  },
  {
    name = "payload_fuzz",
    proves = "payloads of any bytes and sizes, empty ones too, arrive as they were, or are refused",
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local publisher = broker:publisher()
      for _, payload in ipairs(payloads(t)) do
        local ok, err = publisher:publish(name, payload)
        if ok then
          local message = t:take(subscription)
          t:check_that(message.payload == payload, "a payload of %d bytes arrives as another of %d (seed %d)", #payload,
            #message.payload, t.options.seed)
        else
          t:check_that(errors.is(err), "publish() gave %s as an error", tostring(err))
          t:nothing(subscription, "a payload that was refused", 0.02)
        end
      end
      t:nothing(subscription, "after all payloads")
    end,
  },
  {
    name = "payload_limits",
    proves = "a payload of exactly the limit arrives; one byte more is \"too_large\", and the broker goes on",
    given = { "max_payload" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local publisher, limit = broker:publisher(), t.options.max_payload
      t:refused("one byte above the limit", "too_large", publisher:publish(name, ("y"):rep(limit + 1)))
      t:publish(publisher, name, ("x"):rep(limit))
      local message = t:take(subscription, nil, t.timeouts.step)
      t:check_that(#message.payload == limit, "%d bytes arrive of %d", #message.payload, limit)
      t:publish(publisher, name, "small")
      t:take(subscription, "small")
      t:nothing(subscription, "what was refused")
    end,
  },
  {
    name = "bad_destinations",
    proves = "names that cannot be published to are refused with an error",
    given = { "bad_destinations" },
    run = function(t)
      local publisher = t:broker():publisher()
      for _, name in ipairs(t.options.bad_destinations) do
        t:refused(("publish() to %q"):format(name), nil, publisher:publish(name, "x"))
      end
    end,
  },
  {
    name = "slow_consumer",
    proves = "a subscription that nobody reads does not let this process grow without bound, and loses no order",
    long = 2,
    live = true,
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local publisher = (t:other_connection() or broker):publisher()
      lua_bytes()
      local before, most, sent, accepted = luv.resident_set_memory(), 0, 0, 0
      local filler, began = ("x"):rep(8192), tasks.now()
      local task = t:spawn(function()
        for i = 1, 20000 do -- 160 MiB in all
          sent = i
          if not publisher:publish(name, ("%d %s"):format(i, filler)) then
            return
          end
          accepted = i
          if tasks.now() - began > 10 then
            return -- a slow broker: what it has must do
          elseif i % 64 == 0 then
            tasks.sleep(0)
          end
        end
      end)
      local stuck, last = tasks.now(), 0
      t:eventually("the end of publishing, or of progress", 60, function()
        most = math.max(most, luv.resident_set_memory())
        if sent > last then
          stuck, last = tasks.now(), sent
        end
        return task:status() ~= "running" or tasks.now() - stuck > 0.5
      end)
      t:check_that(most - before < 144 * MIB, "the process grew by %.0f MiB", (most - before) / MIB)
      -- What was accepted arrives, in order; without settlement some may be missing.
      local held = t:capabilities(broker, name).ack
      local previous, seen = 0, 0
      while seen < 500 and seen < accepted do
        local message, err = subscription:next(t.timeouts.step)
        t:check_that(message or not held, "%d messages came, then: %s", seen, tostring(err))
        if not message then
          break
        end
        t:ack(message)
        local number = tonumber(message.payload:match("^(%d+)"))
        t:check_that(number > previous and (not held or number == previous + 1), "message %d came after %d", number,
          previous)
        previous, seen = number, seen + 1
      end
      t:check_that(seen > 0, "nothing of %d messages came", accepted)
    end,
  },
  {
    name = "soak",
    proves = "thousands of messages, requeues and subscriptions leave nothing behind: memory and numbers are as before",
    long = 2,
    live = true, -- a twin of streams keeps what they keep
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local publisher = broker:publisher()
      local requeue = t:capabilities(broker, name).requeue
      local turns = t.options.shared and 1500 or 5000
      -- How many of `n` there was time for.
      local function round(n)
        local done, began = 0, tasks.now()
        repeat
          done = done + 1
          turn(t, publisher, subscription, name, done, requeue)
        until done == n or tasks.now() - began > 30 -- a slow broker: what it has must do
        for _ = 1, done / 100 do
          local other = broker:subscribe(t:descriptor(name), t.timeouts.step) -- or it may refuse a second one
          if other then
            other:close(t.timeouts.step)
          end
        end
        return done
      end
      round(turns / 5)
      local started, before = gauges(broker, subscription), lua_bytes()
      turns = round(turns)
      local after = lua_bytes()
      for gauge, value in pairs(gauges(broker, subscription)) do
        t:check_that(value == started[gauge], "%s of the stats went from %s to %s", gauge, tostring(started[gauge]),
          tostring(value))
      end
      local left = after - before
      -- Tables that have grown once may stay as they are.
      t:check_that(left < 65536 + 16 * turns, "%d messages left %d bytes of Lua behind", turns, left)
    end,
  },
}
