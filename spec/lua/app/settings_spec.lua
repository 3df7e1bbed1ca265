local inherit = require("weir.app.inherit")
local settings = require("weir.app.settings")

local function problems(kind, options)
  return (settings.check(kind, options))
end

describe("the options of a level", function()
  it("are fine when they are known and right", function()
    assert.same({}, problems("subscriber", {
      name = "billing",
      codec = "json",
      workers = { 4, by = "key" },
      timeout = 2.5,
      retry = { max_attempts = 5, backoff = { initial = 0.1, factor = 2, max = 10, jitter = 0 },
        on = { full = "drop" } },
      dead_letter = { to = "dead", broker = "other" },
      on_failure = { decode = "drop", exhausted = "stop" },
      middleware = { function() end },
      reply = true,
      outputs = { audit = "audit.log", bill = { to = "bills", codec = "msgpack" } },
      filter = { kind = "new" },
      ack = "manual",
    }))
  end)

  it("name the nearest when they are unknown, at any depth", function()
    assert.same({ "unknown option 'worker'; did you mean 'workers'?" }, problems("router", { worker = 2 }))
    assert.same({ "unknown option 'retry.max_atempts'; did you mean 'max_attempts'?" },
      problems("app", { retry = { max_atempts = 2 } }))
    assert.same({ "unknown option 'retry.backoff.intial'; did you mean 'initial'?" },
      problems("app", { retry = { backoff = { intial = 2 } } }))
  end)

  it("list what is known when nothing is near", function()
    assert.same({ "unknown option 'zzzz'; known are: broker, prefix" }, problems("include", { zzzz = 1 }))
  end)

  it("say what each must be", function()
    for option, sentence in pairs({
      timeout = "'timeout' must be a number of seconds above 0, or false, not 0",
      workers = "'workers' must be a whole number from 1 to 65536, not 0",
    }) do
      assert.same({ sentence }, problems("app", { [option] = 0 }))
    end
    local wrong = {
      codec = { "jsom", "'codec': unknown codec 'jsom', did you mean 'json'?; known are: " },
      dead_letter = { true, "'dead_letter' must be a name, a table with 'to', or false, not true" },
      middleware = { { 1 }, "'middleware' must be a list of functions, not a table" },
      on_failure = { "dropp", "'on_failure' must be one of retry, dead_letter, drop, ack, stop, not 'dropp'; did you"
        .. " mean 'drop'?" },
      retry = { 3, "'retry' must be a table, or false for no retries, not 3" },
    }
    for option, each in pairs(wrong) do
      local found = problems("app", { [option] = each[1] })
      assert.equal(1, #found)
      assert.equal(each[2], found[1]:sub(1, #each[2]))
    end
  end)

  it("are all reported, not only the first", function()
    assert.equal(4, #problems("subscriber", { timeout = -1, worker = 1, ack = "never", schema = 7 }))
  end)

  it("keep what is right apart from what is wrong", function()
    local _, good = settings.check("app", { timeout = -1, workers = 3 })
    assert.same({ workers = 3 }, good)
  end)

  it("refuse filters of batches, and batches of single messages", function()
    assert.equal(1, #problems("batch", { filter = function() end }))
    assert.equal(1, #problems("subscriber", { max = 3 }))
  end)

  it("take functions and what can be called for functions", function()
    local callable = setmetatable({}, { __call = function() end })
    assert.same({}, problems("app", { middleware = { callable, print } }))
    assert.equal(1, #problems("app", { middleware = callable }))
  end)
end)

describe("a handler", function()
  local function merge(...)
    local levels = {}
    for i, options in ipairs({ ... }) do
      levels[i] = { options = options }
    end
    return inherit.merge(levels)
  end

  it("inherits field by field, the nearest level winning", function()
    local merged = merge(
      { timeout = 5, codec = "json", retry = { max_attempts = 9, backoff = { initial = 1, max = 5 } } },
      { codec = "msgpack", retry = { backoff = { max = 8 } } },
      { retry = { max_attempts = 2 } })
    assert.equal(5, merged.timeout)
    assert.equal("msgpack", merged.codec.name)
    assert.same({ max_attempts = 2, backoff = { initial = 1, max = 8 } }, merged.policy.retry)
  end)

  it("can undo what it would inherit", function()
    local merged = merge({ timeout = 5, dead_letter = "dead", retry = { max_attempts = 9 } },
      { timeout = false, dead_letter = false, retry = false })
    assert.is_nil(merged.timeout)
    assert.equal(false, merged.policy.dead_letter)
    assert.same({ max_attempts = 1 }, merged.policy.retry)
  end)

  it("replaces a backoff by name, and one by name by a table", function()
    assert.equal("none", merge({ retry = { backoff = { initial = 1 } } }, { retry = { backoff = "none" } })
      .policy.retry.backoff)
    assert.same({ max = 3 }, merge({ retry = { backoff = "none" } }, { retry = { backoff = { max = 3 } } })
      .policy.retry.backoff)
  end)

  it("merges actions by class, and one action stands for all", function()
    local policy = merge({ on_failure = "drop" }, { on_failure = { error = "stop" } }).policy
    assert.equal("drop", policy.on_failure.decode)
    assert.equal("stop", policy.on_failure.error)
    policy = merge({ retry = { on = { a = "drop", b = "ack" } } }, { retry = { on = { b = "stop" } } }).policy
    assert.same({ a = "drop", b = "stop" }, policy.retry.on)
  end)

  it("has the middleware of all levels, the outer one first", function()
    local a, b, c = function() end, function() end, function() end
    assert.same({ a, b, c }, merge({ middleware = { a } }, { middleware = { b } }, { middleware = { c } }).middleware)
  end)

  it("leaves the options that it was given as they are", function()
    local options = { retry = { backoff = { initial = 1 } }, on_failure = { error = "drop" } }
    merge(options, { retry = { backoff = { max = 2 }, max_attempts = 1 }, on_failure = { decode = "ack" } })
    assert.same({ retry = { backoff = { initial = 1 } }, on_failure = { error = "drop" } }, options)
  end)

  it("has one worker unless told otherwise", function()
    assert.same({ count = 1 }, merge({}).workers)
    assert.same({ count = 3 }, merge({ workers = 3 }).workers)
    assert.same({ count = 4, by = "key" }, merge({ workers = 3 }, { workers = { 4, by = "key" } }).workers)
    assert.same({ count = 2, by = "key" }, merge({ workers = { count = 2, by = "key" } }).workers)
  end)
end)
