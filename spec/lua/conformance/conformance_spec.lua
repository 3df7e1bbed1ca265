local conformance = require("weir.conformance")
local errors = require("weir.errors")
local flawed = require("spec.lua.conformance.flawed")
local memory = require("weir.broker.memory")
local tasks = require("weir.task")

local TIMEOUTS = { delivery = 0.5, negative = 0.03, redelivery = 0.5, delay = 0.15, step = 2, server = 5 }

local function descriptor(name, wanted)
  local spec = { name = name }
  for option, value in pairs(wanted) do
    spec[option] = value
  end
  return spec
end

-- Runs one check on a broker; returns its result.
local function result_of(name, make, more)
  local options = { name = "flawed", make = make, descriptor = descriptor, timeouts = TIMEOUTS, in_process = false }
  for option, value in pairs(more or {}) do
    options[option] = value
  end
  local _, results = conformance.run(options, { only = "^" .. name:gsub("%p", "%%%0") .. "$" })
  assert.equal(1, #results, name .. " did not run")
  return results[1]
end

-- A check, the flaw that it must find, what the message says, options of the broker and of the suite.
local function finds(name, parts, pattern, options, more)
  it(name, function()
    local good = result_of(name, function()
      return memory.new(options)
    end, more and more.good or more)
    assert.equal("passed", good.status, good.message)
    local result = result_of(name, function()
      return flawed.make(parts, options)
    end, more and more.bad or more)
    assert.equal("failed", result.status)
    assert.matches(pattern, result.message)
  end)
end

describe("a conformance check finds its flaw:", function()
  local held
  finds("suite.ordering", {
    subscription = {
      next = function(subscription, timeout)
        if held then
          local message = held
          held = nil
          return message
        end
        local first, err = subscription:next(timeout)
        held = first
        return subscription:next(0) or first, err
      end,
    },
  }, "came at place")

  finds("suite.ack_consumes_delivery", {
    message = {
      ack = function(message)
        return message:nack()
      end,
    },
  }, "after the acknowledgement")

  finds("suite.nack_with_requeue_redelivers", {
    message = {
      nack = function(message)
        return message:ack()
      end,
    },
  }, "no message came")

  finds("suite.nack_without_requeue_drops", {
    message = {
      nack = function(message)
        return message:nack()
      end,
    },
  }, "after the rejection")

  finds("suite.headers_propagate", {
    publisher = {
      publish = function(publisher, name, payload)
        return publisher:publish(name, payload)
      end,
    },
  }, "the header")

  finds("suite.browse_takes_nothing", {
    broker = {
      browse = function()
        return {}
      end,
    },
  }, "browse")

  finds("suite.group_shares", {
    broker = {
      subscribe = function(broker, spec, timeout)
        spec.group = nil
        return broker:subscribe(spec, timeout)
      end,
    },
  }, "came twice")

  finds("lifecycle.construction", {
    broker = {
      state = function()
        return "up"
      end,
    },
  }, "the state of a new broker is up")

  finds("lifecycle.delay", {
    message = {
      nack = function(message, options)
        return message:nack({ requeue = options.requeue })
      end,
    },
  }, "came")

  finds("lifecycle.shutdown", {
    publisher = {
      publish = function(publisher, ...)
        publisher:publish(...)
        return true
      end,
    },
  }, "faked success")

  local lost = false
  finds("lifecycle.cancelled_waiter_takes_nothing", {
    subscription = {
      next = function(subscription, timeout)
        if lost then
          lost = false
          subscription:next(timeout)
        end
        local message, err = subscription:next(timeout)
        lost = errors.is(err, "cancelled")
        return message, err
      end,
    },
  }, "no message came")

  finds("lifecycle.pausing", {
    subscription = {
      pause = function(subscription)
        subscription:pause()
        return subscription:resume()
      end,
    },
  }, "next%(%) of who waited")

  finds("lifecycle.pausing", {
    subscription = {
      resume = function(subscription)
        subscription:resume()
        subscription:try_next()
        return true
      end,
    },
  }, "no message came")

  finds("lifecycle.pausing_and_the_end", {
    subscription = {
      stop = function() end,
    },
  }, "next%(%) after stop%(%)")

  finds("settlement.settled_once", {
    message = {
      ack = function(message)
        message:ack()
        return true
      end,
    },
  }, "a second ack%(%) gave true")

  finds("settlement.unsettled_returns", {
    subscription = {
      next = function(subscription, timeout)
        local message, err = subscription:next(timeout)
        if not message then
          return nil, err
        end
        message:ack()
        return flawed.wrap(message, {
          ack = function()
            return true
          end,
        })
      end,
    },
  }, "no message came")

  finds("settlement.extend", {
    message = {
      extend = function()
        return true
      end,
    },
  }, "while the delivery is extended")

  finds("redelivery.attempts", { message = { attempts = 1 } }, "attempts of delivery 2 is 1")

  finds("redelivery.address", {
    subscription = {
      address = function()
        return "somewhere.else"
      end,
    },
  }, "no message came")

  finds("batches.order_and_size", {
    subscription = {
      next_batch = function(subscription, max, ...)
        return subscription:next_batch(max + 1, ...)
      end,
    },
  }, "next_batch%(3%) gave 4")

  finds("batches.linger_ends", {
    subscription = {
      next_batch = function(subscription, max, _, timeout)
        return subscription:next_batch(max, timeout * 2, timeout)
      end,
    },
  }, "until the timeout")

  finds("requests.unanswered", {
    publisher = {
      request = function()
        return { payload = "made up", headers = {} }
      end,
    },
  }, "faked success")

  finds("transactions.invisible_before_commit", {
    publisher = {
      transaction = function(publisher)
        return flawed.wrap(publisher:transaction(), {
          publish = function(_, ...)
            return publisher:publish(...)
          end,
        })
      end,
    },
  }, "before the commit")

  finds("transactions.over_is_over", {
    publisher = {
      transaction = function(publisher)
        return flawed.wrap(publisher:transaction(), {
          commit = function(transaction)
            transaction:commit()
            return true
          end,
        })
      end,
    },
  }, "commit%(%) after commit")

  finds("seeking.unknown_position", {
    subscription = {
      seek = function(subscription, position)
        subscription:seek(position)
        return true
      end,
    },
  }, "faked success", { retention = { messages = 100 } })

  finds("shape.publish_options", {
    publisher = {
      publish = function(publisher, name, payload, headers)
        return publisher:publish(name, payload, headers)
      end,
    },
  }, "faked success")

  finds("shape.keyed_order", {
    subscription = {
      next = function(subscription, timeout)
        local message, err = subscription:next(timeout)
        return message and flawed.wrap(message, { key = "other" }), err
      end,
    },
  }, "the key of a message is other")

  finds("shape.publish_batch", {
    publisher = {
      publish_batch = function(publisher, items)
        for i, item in ipairs(items) do
          local ok, err = publisher:publish(item[1], item[2], item[3], item[4])
          if not ok then
            return nil, err, { [i] = err }
          end
        end
        return true, nil, { true, true }
      end,
    },
  }, "a result for each")

  finds("shape.no_credentials", {
    broker = {
      describe = function()
        return { protocol = "x", host = "me:hunter2@localhost" }
      end,
    },
  }, "shows the password", nil, { secret = "hunter2" })

  finds("load.publishers_order", {
    publisher = {
      publish = function(publisher, name, payload)
        return payload == "3 57" or publisher:publish(name, payload)
      end,
    },
  }, "message 58 came after 56")

  finds("load.payload_fuzz", {
    publisher = {
      publish = function(publisher, name, payload)
        return publisher:publish(name, (payload:gsub("%z.*$", "")))
      end,
    },
  }, "arrives as another")

  finds("load.payload_limits", {
    publisher = {
      publish = function(publisher, name, payload)
        return publisher:publish(name, payload:sub(1, 1000))
      end,
    },
  }, "faked success", { max_payload = 1000 }, { max_payload = 1000 })

  do
    local leak = {}
    finds("load.soak", {
      subscription = {
        next = function(subscription, timeout)
          local message, err = subscription:next(timeout)
          leak[#leak + 1] = message
          return message, err
        end,
      },
    }, "left %d+ bytes of Lua behind")
  end

  it("load.slow_consumer", function()
    local result = result_of("load.slow_consumer", function()
      return memory.new({ capacity = { messages = 1000000, bytes = "1 GiB" } })
    end)
    assert.equal("failed", result.status)
    assert.matches("grew by %d+ MiB", result.message)
  end)

  finds("faults.end_is_no_hot_loop", {
    subscription = {
      next = function(subscription, timeout)
        local message, err = subscription:next(timeout)
        if err and err.code == "closed" then
          err = errors.new("timeout")
        end
        return message, err
      end,
    },
  }, "must be closed or stopped")

  finds("faults.dead_server_is_no_hot_loop", {
    subscription = {
      next = function(subscription)
        tasks.sleep(0)
        return subscription:next(0)
      end,
    },
  }, "three seconds", nil, { server = { kill = function() end, start = function() end } })

  it("faults.unauthorized", function()
    local result = result_of("faults.unauthorized", memory.new, {
      unauthorized = function()
        return memory.new()
      end,
    })
    assert.equal("failed", result.status)
    assert.matches("connect%(%) with wrong credentials gave true", result.message)
  end)

  do
    local dir = os.tmpname()
    os.remove(dir)

    teardown(function()
      os.execute("rm -rf '" .. dir .. "'")
    end)

    local program = [[
      local flawed = require("spec.lua.conformance.flawed")
      local broker
      return {
        make = function()
          broker = flawed.make({ subscription = { next = %s } }, { dir = %q })
          return broker
        end,
        descriptor = function(name, wanted)
          return { name = name, group = wanted.group, durable = wanted.durable }
        end,
      }]]
    local honest = "function(subscription, timeout) return subscription:next(timeout) end"
    local hasty = [[function(subscription, timeout)
      local message = subscription:next(timeout)
      message:ack()
      assert(broker:publisher():publish("after", "")) -- what is written before it is written, too
      return setmetatable({ ack = function() return true end }, { __index = message })
    end]]
    finds("faults.killed_between_handler_and_ack", {}, "2, 3 and 4 must come", { dir = dir }, {
      good = { program = program:format(honest, dir) },
      bad = { program = program:format(hasty, dir) },
    })
  end
end)

describe("a broker that does not claim what it does", function()
  for _, name in ipairs({ "ack", "requeue", "delay", "attempts", "key", "extend", "batch", "request",
    "transactions", "browse" }) do
    it("is found out: " .. name, function()
      local result = result_of("honesty." .. name, function()
        return flawed.make({
          broker = {
            capabilities = function(broker, ...)
              local list = broker:capabilities(...)
              list[name] = nil
              return list
            end,
          },
        })
      end)
      assert.equal("failed", result.status, name)
    end)
  end

  it("and one that honestly has not passes: seek", function()
    assert.equal("passed", result_of("honesty.seek", memory.new).status)
  end)
end)

describe("the twin in process of a broker", function()
  local function twin_is(name, changes, pattern)
    it("is found out: " .. name, function()
      local result = result_of(name, function()
        return flawed.make({
          broker = {
            in_process = function(broker, clock)
              return changes(broker:in_process(clock), broker)
            end,
          },
        })
      end)
      assert.equal("failed", result.status)
      assert.matches(pattern, result.message)
    end)
  end

  twin_is("in_process.capabilities", function(twin)
    return flawed.wrap(twin, {
      capabilities = function()
        return { ack = true }
      end,
    })
  end, "of its twin")

  twin_is("in_process.settlement_answers", function(_, broker)
    return flawed.make({
      message = {
        nack = function(message)
          message:ack()
          return true
        end,
      },
    }, broker.options)
  end, "the broker says")

  twin_is("in_process.refuses_like_the_server", function(_, broker)
    return flawed.make({
      publisher = {
        publish = function(publisher, name, payload)
          return publisher:publish(name, payload)
        end,
      },
    }, broker.options)
  end, "an unknown option")

  twin_is("in_process.virtual_time", function(_, broker)
    return broker:in_process(require("weir.clock"))
  end, "no message came")

  twin_is("in_process.counts_balance", function(twin)
    return flawed.wrap(twin, {
      pending = function()
        return 0
      end,
    })
  end, "pending%(%) is 0")
end)

describe("the conformance suite", function()
  it("has a name and a sentence for each check, all different", function()
    local seen = {}
    for _, check in ipairs(conformance.checks()) do
      assert.matches("^%l[%l_]*%.%l[%l_]*$", check.name)
      assert.is_nil(seen[check.name])
      assert.is_true(#check.proves > 10 and not check.proves:find("%.$"), check.name)
      assert.is_function(check.run)
      seen[check.name] = true
    end
  end)

  it("asks for a broker, and knows its options", function()
    assert.error_matches(function()
      conformance.run({})
    end, "'make' is missing")
    assert.error_matches(function()
      conformance.run({ make = memory.new, timeout = 1 })
    end, "unknown option 'timeout'.*did you mean 'timeouts'")
    assert.error_matches(function()
      conformance.run({ make = function() return {} end })
    end, "this is no broker")
  end)

  it("leaves out what it is told to, with the reason", function()
    local result = result_of("suite.ordering", memory.new, { skip = { ["suite.ordering"] = "not today" } })
    assert.equal("skipped", result.status)
    assert.equal("not today", result.message)
  end)

  it("fails a check that does not end", function()
    local result = result_of("suite.ordering", function()
      return flawed.make({
        subscription = {
          next = function(subscription)
            return subscription:next()
          end,
        },
      })
    end, { timeouts = { check = 0.3 } })
    assert.equal("failed", result.status)
    assert.matches("did not end within 0.3 s", result.message)
  end)

  it("runs in a task, too", function()
    tasks.run(function()
      assert.equal("passed", result_of("lifecycle.subscribe_from_anywhere", memory.new).status)
    end)
  end)

  it("leaves no broker behind", function()
    local made = {}
    result_of("suite.ordering", function()
      local broker = memory.new()
      made[#made + 1] = broker
      return broker
    end)
    local last = made[#made]
    assert.equal("closed", (last:state()))
  end)

  it("loads options and broker modules, from files and by name", function()
    assert.equal(memory.new, assert(conformance.load("weir.broker.memory")).make)
    local path = os.tmpname() .. ".lua"
    local file = assert(io.open(path, "w"))
    file:write("return { make = require('weir.broker.memory').new, max_payload = 5 }")
    file:close()
    local options = assert(conformance.load(path))
    assert.equal(5, options.max_payload)
    assert.equal(5, load(options.program)().max_payload)
    os.remove(path)
    assert.matches("this is no broker", select(2, conformance.load("weir.errors")))
    assert.is_nil((conformance.load("weir.hex")))
    assert.is_nil((conformance.load("no.such.module")))
    assert.is_nil((conformance.load(path)))
  end)
end)

describe("weir conformance", function()
  local programs = require("spec.programs")

  local function weir(...)
    return programs.run({ "lua5.4", "lua/bin/weir", "conformance", ... }, 120)
  end

  it("prints each check with its result", function()
    local status, out = weir("weir.broker.memory", "--only", "^suite%.[ao]")
    assert.equal(0, status)
    assert.matches("weir.broker.memory\n  ok    suite.ordering\n", out)
    assert.matches("weir.broker.memory in process\n", out)
    assert.matches("\n8 passed, 0 failed, 0 skipped\n$", out)
  end)

  it("fails, and says what did", function()
    local path = os.tmpname() .. ".lua"
    local file = assert(io.open(path, "w"))
    file:write([[
      return require("spec.lua.conformance.flawed") and { make = function()
        return require("spec.lua.conformance.flawed").make({ message = { attempts = 1 } })
      end }]])
    file:close()
    local status, out = weir(path, "--only=redelivery.attempts")
    os.remove(path)
    assert.equal(1, status)
    assert.matches("FAIL  redelivery.attempts\n        attempts of delivery 2 is 1", out)
  end)

  it("takes the URL of a broker, which knows its own options", function()
    local status, out = weir("memory:", "--only", "group_shares")
    assert.equal(0, status)
    assert.matches("memory\n  ok    suite.group_shares\nmemory in process\n  ok    suite.group_shares\n", out)
    local failed, _, err = weir("memoyr:")
    assert.equal(1, failed)
    assert.matches("did you mean 'memory:'", err)
  end)

  it("writes JSON", function()
    local json = require("weir.codec").get("json")
    local status, out = weir("weir.broker.memory", "--only", "suite.ordering", "--json")
    assert.equal(0, status)
    local lines = {}
    for line in out:gmatch("[^\n]+") do
      lines[#lines + 1] = assert(json.decode(line))
    end
    assert.equal("suite.ordering", lines[1].name)
    assert.equal("passed", lines[1].status)
    assert.equal(2, lines[3].passed)
  end)

  it("lists the checks and what they prove", function()
    local status, out = weir("--list", "--only", "^faults")
    assert.equal(0, status)
    assert.matches("^faults.server_restarts +a server that", out)
    assert.is_nil(out:find("suite.", 1, true))
  end)

  it("says what is wrong with its words", function()
    for words, pattern in pairs({
      [{}] = "the module or the file of the broker is missing",
      [{ "--onyl", "x" }] = "did you mean '%-%-only'",
      [{ "a", "b" }] = "one word too many: 'b'",
      [{ "a", "--only" }] = "%-%-only needs a value",
      [{ "a", "--only", "[" }] = "no Lua pattern",
      [{ "a", "--json=1" }] = "takes no value",
    }) do
      local status, _, err = weir(table.unpack(words))
      assert.equal(2, status)
      assert.matches(pattern, err)
    end
    local status, _, err = weir("weir.nearest")
    assert.equal(1, status)
    assert.matches("neither options with 'make' nor a broker module", err)
    status, _, err = weir("weir.broker.memory", "--only", "nothing.like.it")
    assert.equal(1, status)
    assert.matches("matches 'nothing.like.it'", err)
  end)
end)
