--- Request and reply.
-- @module weir.conformance.checks.requests

local tasks = require("weir.task")

local UNANSWERED = { "timeout", "no_responders" }

local function reply(t, publisher, message, payload)
  t:check_that(type(message.reply_to) == "string", "message.reply_to of a request is %s", tostring(message.reply_to))
  t:publish(publisher, message.reply_to, payload)
  t:ack(message)
end

-- Answers requests for ever.
local function serve(t, broker, name)
  local subscription, publisher = t:subscribe(broker, name), broker:publisher()
  t:spawn(function()
    for _ = 1, 1000 do
      local message = subscription:next()
      if not message then
        return
      end
      reply(t, publisher, message, "reply to " .. message.payload)
    end
  end)
end

local function ask(t, publisher, name, payload)
  local answer, err = publisher:request(name, payload, nil, t.timeouts.step)
  t:check_that(answer, "request() failed: %s", tostring(err))
  t:check_that(answer.payload == "reply to " .. payload, "the request %q got the answer %q", payload, answer.payload)
  return answer
end

return {
  {
    name = "reply",
    proves = "a request carries an address for replies, and gets the reply that is published there",
    needs = { "request" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      serve(t, broker, name)
      local answer = ask(t, broker:publisher(), name, "a")
      t:check_that(type(answer.headers) == "table", "the reply has no headers")
    end,
  },
  {
    name = "reply_from_another_connection",
    proves = "the reply may come from another connection",
    needs = { "request" },
    given = { "shared" },
    live = true,
    run = function(t)
      local broker, other = t:broker(), t:broker()
      local name = t:subject(broker)
      serve(t, other, name)
      ask(t, broker:publisher(), name, "a")
    end,
  },
  {
    name = "headers",
    proves = "headers of a request and of its reply arrive",
    needs = { "request" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription, publisher = t:subscribe(broker, name), broker:publisher()
      t:spawn(function()
        local message = subscription:next(t.timeouts.step)
        local got = message.headers
        local headers = { ["correlation-id"] = got["correlation-id"], ["x-there"] = got["x-here"] }
        t:publish(publisher, message.reply_to, "done", headers)
        t:ack(message)
      end)
      local headers = { ["correlation-id"] = "c-7", ["x-here"] = "yes" }
      local answer, err = publisher:request(name, "ask", headers, t.timeouts.step)
      t:check_that(answer, "request() failed: %s", tostring(err))
      t:check_that(answer.headers["correlation-id"] == "c-7", "the correlation id is lost")
      t:check_that(answer.headers["x-there"] == "yes", "a header is lost")
      t:check_that(headers["reply-to"] == nil, "request() must not change the headers that it is given")
    end,
  },
  {
    name = "unanswered",
    proves = "a request that nobody answers fails at its timeout; one that nobody can hear fails at it or before",
    needs = { "request" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      t:subscribe(broker, name)
      local publisher, began = broker:publisher(), tasks.now()
      t:refused("a request that is not answered", "timeout", publisher:request(name, "a", nil, 0.2))
      t:check_that(tasks.now() - began < t.timeouts.step, "the timeout came after %.1f s", tasks.now() - began)
      t:refused("a request that nobody hears", UNANSWERED, publisher:request(t:subject(broker), "a", nil, 0.2))
    end,
  },
  {
    name = "late_reply",
    proves = "a reply that comes too late is never that of a later request",
    needs = { "request" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription, publisher = t:subscribe(broker, name), broker:publisher()
      t:refused("the first request", "timeout", publisher:request(name, "early", nil, 0.1))
      local early = t:receive(subscription, "early")
      local second = t:spawn(function()
        return publisher:request(name, "second", nil, t.timeouts.step)
      end)
      local message = t:receive(subscription, "second")
      publisher:publish(early.reply_to, "too late")
      t:ack(early)
      tasks.sleep(0.05)
      reply(t, publisher, message, "in time")
      local answer = second:join()
      t:check_that(answer and answer.payload == "in time", "the second request got %s",
        answer and ("%q"):format(answer.payload) or "nothing")
    end,
  },
  {
    name = "reversed",
    proves = "two requests at once that are answered in reverse get their own replies",
    needs = { "request" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription, publisher = t:subscribe(broker, name), broker:publisher()
      local asked = {}
      for i, payload in ipairs({ "a", "b" }) do
        asked[i] = t:spawn(ask, t, publisher, name, payload)
      end
      local first, second = t:receive(subscription), t:receive(subscription)
      reply(t, publisher, second, "reply to " .. second.payload)
      reply(t, publisher, first, "reply to " .. first.payload)
      for _, task in ipairs(asked) do
        task:join()
      end
    end,
  },
  {
    name = "from_anywhere",
    proves = "requests work from tasks, from coroutines of the program's own, and from the main thread",
    needs = { "request" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      serve(t, broker, name)
      local publisher = broker:publisher()
      for _, place in ipairs(t:places()) do
        place[2](t, function()
          ask(t, publisher, name, place[1])
        end)
      end
    end,
  },
  {
    name = "after_shutdown",
    proves = "shutdown() ends a request that waits within 5 s, and none begins after it",
    needs = { "request" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      t:subscribe(broker, name)
      local publisher = broker:publisher()
      local waiting = t:spawn(function()
        return publisher:request(name, "a", nil, 30)
      end)
      tasks.sleep(0.05)
      local began = tasks.now()
      broker:shutdown(t.timeouts.step)
      t:refused("the request that waited", { "closed", "cancelled", "disconnected" }, waiting:join(5))
      t:check_that(tasks.now() - began <= 5, "it took %.1f s", tasks.now() - began)
      t:refused("a request after shutdown()", "closed", publisher:request(name, "a", nil, 30))
    end,
  },
}
