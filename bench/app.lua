--- What an application costs on the memory broker, message by message: consuming raw payloads beside as many resumes
-- and yields of a coroutine, and JSON beside a plain loop of `cjson.decode` over the same payloads; the same without
-- metrics (which applications have), with a context (which handlers with a second parameter get), with middleware, in
-- batches; and requests with replies.
--
-- Messages are published in blocks while the handler waits, and only the time from the first message of a block to its
-- last is counted. Requests are beside those of the broker itself, answered by a plain task.

local support = dofile("bench/support.lua")
local cjson = require("cjson")
local codec = require("weir.codec")
local consume = require("weir.app.consume")
local log = require("weir.log")
local memory = require("weir.broker.memory")
local metrics = require("weir.metrics")
local publisher = require("weir.app.publisher")
local weir = require("weir")

local BLOCK = 4096
local JSON = '{"id":123456,"customer":"c-1042","total":99.5,"currency":"EUR","items":3}'
local RAW = ("x"):rep(#JSON)

local quiet = log.new({ level = "off" })

-- Messages a second that a handler takes. `opts`: `codec`, `payload`, `context`, `metrics`, `middleware` (how many),
-- `batch` (how large).
local function consumed(opts)
  local rate
  weir.run(function()
    local broker = memory.new({ capacity = { messages = 2 * BLOCK, bytes = "1 GiB" } })
    assert(broker:connect())
    local block_done, next_block = weir.channel(1), weir.channel(1)
    local count, began, seconds, total = 0, 0, 0, 0
    local function at_end()
      seconds, total, count = seconds + weir.now() - began, total + count, 0
      block_done:send(true)
      next_block:recv()
      began = weir.now()
    end
    local handler = {
      id = "bench",
      codec = codec.get(opts.codec or "raw"),
      middleware = {},
      fn = function()
        count = count + 1
        if count == BLOCK then
          at_end()
        end
      end,
    }
    if opts.context then
      handler.fn = function(_, ctx) -- luacheck: no unused args
        count = count + 1
        if count == BLOCK then
          at_end()
        end
      end
    elseif opts.batch then
      handler.fn = function(values)
        count = count + #values
        if count == BLOCK then
          at_end()
        end
      end
    end
    for i = 1, opts.middleware or 0 do
      handler.middleware[i] = function(value, ctx, next)
        return next(value, ctx)
      end
    end
    local registration = {
      id = "bench",
      broker = { label = "memory", broker = broker },
      descriptor = assert(broker:descriptor({ name = "bench", group = "bench" })),
      workers = { count = 1 },
      batch = opts.batch and { max = opts.batch } or nil,
      handlers = { handler },
    }
    local env = { log = quiet, metrics = opts.metrics and metrics.registry() or nil }
    local raw, payload = broker:publisher(), opts.payload or RAW
    local running, stop = nil, weir.now() + support.seconds
    repeat
      if not running then
        running = assert(consume.start(registration, env))
        weir.sleep(0)
      end
      for _ = 1, BLOCK do
        assert(raw:publish("bench", payload))
      end
      if total == 0 and seconds == 0 then
        began = weir.now()
      else
        next_block:send(true)
      end
      block_done:recv()
    until weir.now() >= stop
    next_block:send(true)
    running:close(1)
    rate = total / seconds
  end)
  collectgarbage()
  return rate
end

-- Calls of `step` a second.
local function looped(step)
  local count, began = 0, weir.now()
  local stop = began + support.seconds
  repeat
    for _ = 1, 1000 do
      step()
    end
    count = count + 1000
  until weir.now() >= stop
  return count / (weir.now() - began)
end

local function resumes()
  local co = coroutine.create(function()
    while true do
      coroutine.yield()
    end
  end)
  local resume = coroutine.resume
  return looped(function()
    resume(co)
  end)
end

local function decodes()
  local decode = cjson.decode
  return looped(function()
    decode(JSON)
  end)
end

-- Requests a second of a plain publisher that a plain task answers, one after the other.
local function plain_requests()
  local rate
  weir.run(function()
    local broker = memory.new()
    assert(broker:connect())
    local subscription, raw = assert(broker:subscribe(assert(broker:descriptor("double")))), broker:publisher()
    weir.spawn(function()
      while true do
        local message = subscription:next()
        if not message then
          return
        end
        assert(raw:publish(message.reply_to, cjson.encode({ n = cjson.decode(message.payload).n * 2 })))
        message:ack()
      end
    end)
    weir.sleep(0)
    rate = looped(function()
      cjson.decode(assert(raw:request("double", cjson.encode({ n = 21 }), nil, 5)).payload)
    end)
    broker:shutdown(1)
  end)
  return rate
end

-- Requests a second that a handler answers, with ids, trace and all.
local function requests()
  local rate
  weir.run(function()
    local broker = memory.new()
    assert(broker:connect())
    local running = assert(consume.start({
      id = "double",
      broker = { label = "memory", broker = broker },
      descriptor = assert(broker:descriptor("double")),
      workers = { count = 1 },
      handlers = { { id = "double", codec = codec.get("json"), fn = function(value)
        return { n = value.n * 2 }
      end } },
    }, { log = quiet }))
    weir.sleep(0)
    local asking = assert(publisher.new({ broker = broker, to = "double" }))
    rate = looped(function()
      assert(asking:request({ n = 21 }, nil, 5))
    end)
    running:close(1)
  end)
  return rate
end

local function compare(name, opts, baseline, goal)
  local ours, theirs = support.alternate(function()
    return consumed(opts)
  end, baseline)
  local claim = { name = "app." .. name, unit = "msg/s", goal = goal }
  claim.weir, claim.baseline = support.median(ours), support.median(theirs)
  support.claim(claim)
end

compare("raw", { metrics = true }, resumes, 3 / 14)
compare("raw_without_metrics", {}, resumes)
compare("raw_context", { metrics = true, context = true }, resumes)
compare("raw_1_middleware", { metrics = true, context = true, middleware = 1 }, resumes)
compare("raw_4_middlewares", { metrics = true, context = true, middleware = 4 }, resumes)
compare("raw_batch_64", { metrics = true, batch = 64 }, resumes)
compare("json", { metrics = true, codec = "json", payload = JSON }, decodes, 0.6)
compare("json_context", { metrics = true, codec = "json", payload = JSON, context = true }, decodes)
compare("json_batch_64", { metrics = true, codec = "json", payload = JSON, batch = 64 }, decodes)

local ours, theirs = support.alternate(requests, plain_requests)
support.claim({
  name = "app.request_reply",
  weir = support.median(ours),
  baseline = support.median(theirs),
  unit = "request/s",
})
