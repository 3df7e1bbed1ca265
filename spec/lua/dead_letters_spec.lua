local contract = require("weir.broker.contract")
local dead_letters = require("weir.dead_letters")
local memory = require("weir.broker.memory")
local tasks = require("weir.task")

local names = contract.headers

describe("dead letters", function()
  local broker, publisher, letters

  local function bury(payload, code, to)
    assert(publisher:publish("orders.dead", payload, {
      ["content-type"] = "application/json",
      [names.origin] = to,
      [names.error] = "it failed: " .. code,
      [names.error_code] = code,
      [names.attempt] = "5",
      [names.failed_at] = "2026-11-20T10:00:00.000Z",
      [names.dead_at] = "2026-11-20T10:05:00.000Z",
      [names.handler] = "orders",
    }))
  end

  -- Runs in a task, with three letters.
  local function with(fn)
    return function()
      tasks.run(function()
        broker = memory.new()
        broker:connect()
        assert(broker:declare(broker:dead_letters("orders.dead")))
        publisher, letters = broker:publisher(), dead_letters(broker, "orders.dead")
        bury("1", "timeout", "orders.a")
        bury("2", "decode", "orders.b")
        bury("3", "timeout", "orders.a")
        fn()
        broker:shutdown()
      end)
    end
  end

  local function payloads()
    local list = {}
    for i, letter in ipairs(assert(letters:list())) do
      list[i] = letter.payload
    end
    return list
  end

  it("are listed with what is known of them, and stay", with(function()
    local list = assert(letters:list())
    assert.same({
      payload = "1",
      headers = { ["content-type"] = "application/json" },
      destination = "orders.a",
      error = "it failed: timeout",
      error_code = "timeout",
      attempts = 5,
      failed_at = "2026-11-20T10:00:00.000Z",
      dead_at = "2026-11-20T10:05:00.000Z",
      handler = "orders",
      position = list[1].position,
    }, list[1])
    assert.same({ "1", "2", "3" }, payloads())
    assert.equal(2, #letters:list(2))
  end))

  it("are looked at one after the other, where a broker has lists alone, too", with(function()
    local lists = setmetatable({ cursor = false }, { __index = broker })
    for _, each in ipairs({ broker, lists }) do
      local cursor = assert(dead_letters(each, "orders.dead"):cursor())
      assert.equal("1", assert(cursor:next()).payload)
      local second = assert(cursor:next(1))
      assert.same({ "2", "decode", "orders.b" }, { second.payload, second.error_code, second.destination })
      assert.equal("3", assert(cursor:next()).payload)
      assert.same({}, { cursor:next() })
      cursor:close()
      assert.same({}, { cursor:next() })
      local left = assert(dead_letters(each, "orders.dead"):cursor())
      left:next()
      left:close()
      assert.same({}, { left:next() })
    end
    assert.same({ "1", "2", "3" }, payloads())
  end))

  it("are replayed to where they came from, as they were", with(function()
    local a = assert(broker:subscribe("orders.a"))
    local b = assert(broker:subscribe("orders.b"))
    assert.equal(3, (assert(letters:replay({ idle = 0.02 }))))
    local message = assert(a:next(1))
    assert.equal("1", message.payload)
    assert.same({ ["content-type"] = "application/json" }, message.headers)
    assert.equal("3", assert(a:next(1)).payload)
    assert.equal("2", assert(b:next(1)).payload)
    assert.same({}, payloads())
  end))

  it("stay where a filter says so", with(function()
    local a = assert(broker:subscribe("orders.a"))
    local seen = {}
    local done, err, left = letters:replay({
      idle = 0.02,
      filter = function(letter)
        return letter.error_code == "timeout"
      end,
      on_letter = function(letter)
        seen[#seen + 1] = letter.payload
      end,
    })
    assert.same({ 2, 1 }, { done, left })
    assert.is_nil(err)
    assert.same({ "1", "3" }, seen)
    assert.equal("1", assert(a:next(1)).payload)
    assert.same({ "2" }, payloads())
  end))

  it("go elsewhere, and no more than so many, if somebody says so", with(function()
    local elsewhere = assert(broker:subscribe("elsewhere"))
    assert.equal(2, (assert(letters:replay({ to = "elsewhere", limit = 2 }))))
    assert.equal("1", assert(elsewhere:next(1)).payload)
    assert.same({ "3" }, payloads())
  end))

  it("stay when they cannot be published", with(function()
    local failing = memory.new()
    local done, err, left = dead_letters(broker, "orders.dead", failing):replay({ idle = 0.02 })
    assert.equal(0, done)
    assert.equal(1, left)
    assert.equal("disconnected", err.code)
    assert.same({ "1", "2", "3" }, payloads())
  end))

  it("stay when nobody knows where they came from", with(function()
    assert.equal(3, (letters:remove({ idle = 0.02 })))
    bury("4", "x", nil)
    local done, err = letters:replay({ idle = 0.02 })
    assert.equal(0, done)
    assert.equal("no_destination", err.code)
    assert.same({ "4" }, payloads())
  end))

  it("are removed, all or some", with(function()
    local done, _, left = letters:remove({
      idle = 0.02,
      filter = function(letter)
        return letter.payload ~= "2"
      end,
    })
    assert.same({ 2, 1 }, { done, left })
    assert.same({ "2" }, payloads())
  end))

  it("end with the broker", with(function()
    broker:shutdown()
    assert.equal("closed", select(2, letters:list()).code)
    assert.equal("closed", select(2, letters:replay()).code)
  end))

  it("say what they expect", with(function()
    assert.error_matches(function()
      dead_letters({}, "x")
    end, "this is no broker")
    assert.error_matches(function()
      dead_letters(broker)
    end, "a name is expected")
    assert.error_matches(function()
      letters:replay({ limt = 1 })
    end, "did you mean 'limit'")
  end))
end)
