--- What messages, descriptors, publishers and descriptions look like.
-- @module weir.conformance.checks.shape

local errors = require("weir.errors")
local tasks = require("weir.task")

-- All strings in a value, at any depth.
local function texts(value, list, seen)
  list, seen = list or {}, seen or {}
  if type(value) == "string" then
    list[#list + 1] = value
  elseif type(value) == "table" and not seen[value] then
    seen[value] = true
    for key, each in pairs(value) do
      texts(key, list, seen)
      texts(each, list, seen)
    end
  end
  return list
end

local function hides(t, what, value)
  for _, text in ipairs(texts(value)) do
    t:check_that(not text:find(t.options.secret, 1, true), "%s shows the password", what)
  end
end

return {
  {
    name = "message_fields",
    proves = "a message says where, when and how often it was delivered",
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      t:publish(broker:publisher(), name, "x")
      local before = tasks.now()
      local message = t:receive(subscription, "x")
      t:check_that(type(message.payload) == "string", "payload is a %s", type(message.payload))
      t:check_that(type(message.headers) == "table", "headers is a %s", type(message.headers))
      t:check_that(type(message.fields) == "table", "fields is a %s", type(message.fields))
      t:check_that(message.destination == name, "destination is %s", tostring(message.destination))
      t:check_that(message.time == nil or math.abs(message.time - os.time()) < 60 + tasks.now() - before,
        "time is %s, which is not seconds since 1970", tostring(message.time))
      local attempts = t:capabilities(broker, name).attempts and 1 or nil
      t:check_that(message.attempts == attempts, "attempts is %s where %s was expected", tostring(message.attempts),
        tostring(attempts))
      t:check_that(tostring(message) and tostring(subscription), "tostring() failed")
      t:ack(message)
    end,
  },
  {
    name = "stats",
    proves = "subscription:stats() is a plain table of numbers that goes back to where it was",
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local publisher = broker:publisher()
      local message
      for _ = 1, 2 do
        t:publish(publisher, name, "x")
        message = t:receive(subscription, "x")
      end
      local stats = subscription:stats()
      t:check_that(type(stats) == "table", "stats() is a %s", type(stats))
      if t:capabilities(broker, name).ack then
        local unsettled = stats.unsettled
        t:check_that(unsettled == 2, "two messages are unsettled, stats().unsettled is %s", tostring(unsettled))
        message:ack()
        t:eventually("stats().unsettled == 1 after an ack()", t.timeouts.delivery, function()
          return subscription:stats().unsettled == 1
        end)
      end
    end,
  },
  {
    name = "keyed_order",
    proves = "the partition key arrives with each message, and messages of one key keep their order",
    needs = { "key" },
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local publisher = broker:publisher()
      for i = 1, 8 do
        for _, key in ipairs({ "a", "b", "c" }) do
          t:publish(publisher, name, tostring(i), { ["partition-key"] = key })
        end
      end
      local last = { a = 0, b = 0, c = 0 }
      for _ = 1, 24 do
        local message = t:take(subscription)
        local number = tonumber(message.payload)
        t:check_that(last[message.key], "the key of a message is %s", tostring(message.key))
        t:check_that(number == last[message.key] + 1, "of key %s, message %d came after %d", message.key, number,
          last[message.key])
        last[message.key] = number
      end
      t:publish(publisher, name, "none")
      t:check_that(t:take(subscription, "none").key == nil, "a message without a key has one")
    end,
  },
  {
    name = "publish_options",
    proves = "an option of publish() that the broker does not have is refused, and the message never arrives",
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local publisher = broker:publisher()
      local err = t:refused("publish() with an unknown option", "unsupported",
        publisher:publish(name, "refused", nil, { ["no such option"] = 1 }))
      t:check_that(err.message:find("no such option", 1, true), "the error does not name the option: %s", tostring(err))
      t:publish(publisher, name, "plain")
      t:take(subscription, "plain")
      t:nothing(subscription, "what was refused")
    end,
  },
  {
    name = "publish_misuse",
    proves = "publish() raises, or refuses, a destination, payload or headers of the wrong kind",
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local publisher = broker:publisher()
      for what, call in pairs({
        ["no destination"] = { nil, "x" },
        ["no payload"] = { name, nil },
        ["a payload that is a table"] = { name, {} },
        ["headers that are a string"] = { name, "x", "h" },
        ["a header that is a table"] = { name, "x", { a = {} } },
      }) do
        local fine, ok = pcall(publisher.publish, publisher, call[1], call[2], call[3])
        t:check_that(not fine or not ok, "publish() with %s must fail", what)
      end
      t:nothing(subscription, "what was misuse")
    end,
  },
  {
    name = "publish_batch",
    proves = "publish_batch() publishes in order, with a result for each; one that fails does not stop the others",
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local publisher = broker:publisher()
      local ok, err, results = publisher:publish_batch({ { name, "1" }, { name, "2", { a = "b" } } })
      t:check_that(ok == true, "publish_batch() failed: %s", tostring(err))
      t:check_that(#results == 2 and results[1] == true and results[2] == true, "the results must be true for each")
      t:take(subscription, "1")
      t:check_that(t:take(subscription, "2").headers.a == "b", "a header of publish_batch() is lost")
      local bad = { name, "bad", nil, { ["no such option"] = 1 } }
      ok, err, results = publisher:publish_batch({ { name, "3" }, bad, { name, "4" } })
      t:refused("publish_batch() with a bad item", "unsupported", ok, err)
      local fine = results[1] == true and errors.is(results[2]) and results[3] == true
      t:check_that(fine, "a result for each was expected")
      t:take(subscription, "3")
      t:take(subscription, "4")
      t:nothing(subscription, "the bad item")
    end,
  },
  {
    name = "flush",
    proves = "after flush() the broker has what was published",
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local publisher = broker:publisher()
      t:publish_many(publisher, name, 5)
      t:check_that(publisher:flush(t.timeouts.step), "flush() failed")
      t:take_many(subscription, 5)
    end,
  },
  {
    name = "descriptors",
    proves = "a descriptor has its name, is made without a connection, and may be used for a descriptor again",
    run = function(t)
      local broker = t:unconnected()
      local name = t:subject()
      local descriptor, err = broker:descriptor(t:descriptor(name))
      t:check_that(descriptor, "broker:descriptor() failed: %s", tostring(err))
      t:check_that(type(descriptor.name) == "string", "descriptor.name is a %s", type(descriptor.name))
      t:check_that(not descriptor.pattern, "a name is no pattern")
      t:check_that(broker:descriptor(descriptor) == descriptor, "a descriptor must be returned as it is")
    end,
  },
  {
    name = "descriptors_say_what_is_wrong",
    proves = "a descriptor with unknown options gives nil and an error that names all of them",
    run = function(t)
      local broker = t:unconnected()
      local name = t:subject()
      local spec = { name = name, ["no such option"] = 1, ["nor this"] = 2 }
      local err = t:refused("descriptor() with unknown options", nil, broker:descriptor(spec))
      t:check_that(err.message:find("no such option", 1, true) and err.message:find("nor this", 1, true),
        "the error must name both options: %s", tostring(err))
      for what, wrong in pairs({ ["a number"] = 7, ["a table without a name"] = {} }) do
        local returned, value, wrong_err = pcall(broker.descriptor, broker, wrong)
        if returned then -- that may be misuse, which raises
          t:refused("descriptor() of " .. what, nil, value, wrong_err)
        end
      end
    end,
  },
  {
    name = "describe",
    proves = "describe() says what documents need, without credentials",
    run = function(t)
      local broker = t:unconnected()
      local about = broker:describe()
      t:check_that(type(about) == "table" and type(about.protocol) == "string", "describe().protocol must be a string")
      t:check_that(about.host == nil or not tostring(about.host):find("@", 1, true), "describe().host has credentials")
    end,
  },
  {
    name = "no_credentials",
    proves = "the password is in no description, message, error or tostring()",
    given = { "secret" },
    live = true,
    run = function(t)
      local broker = t:broker()
      local name = t:subject(broker)
      local subscription = t:subscribe(broker, name)
      local publisher = broker:publisher()
      t:publish(publisher, name, "x")
      local message = t:take(subscription, "x")
      hides(t, "broker:describe()", broker:describe())
      hides(t, "a message", { message.payload, message.headers, message.destination, message.reply_to or "" })
      hides(t, "tostring()", { tostring(broker), tostring(subscription), tostring(publisher), tostring(message) })
      hides(t, "the address", subscription:address() or "")
      broker:shutdown(t.timeouts.step)
      local _, err = publisher:publish(name, "x")
      hides(t, "an error", tostring(err))
    end,
  },
}
