local core = require("weir.core")

describe("core.timers", function()
  it("returns the values of expired timers by deadline, then in the order of adding", function()
    local t = core.timers()
    t:add(3, "c")
    t:add(1, "a")
    t:add(2, "b1")
    t:add(2, "b2")
    assert.is_nil(t:expired(0.999999))
    assert.equal("a", (t:expired(1)))
    assert.equal("b1", (t:expired(10)))
    assert.equal("b2", (t:expired(10)))
    assert.equal("c", (t:expired(10)))
    assert.is_nil(t:expired(10))
  end)

  it("keeps any value but nil", function()
    local t = core.timers()
    local values = { false, 0, "", {}, print, coroutine.create(print) }
    for _, value in ipairs(values) do t:add(1, value) end
    for _, value in ipairs(values) do assert.equal(value, (t:expired(1))) end
    assert.has_error(function() t:add(1, nil) end)
    assert.has_error(function() t:add(1) end)
    assert.equal(0, #t)
  end)

  it("tells the id of an expired timer", function()
    local t = core.timers()
    local id = t:add(1, "a")
    local _, expired = t:expired(1)
    assert.equal(id, expired)
  end)

  it("cancels a timer once", function()
    local t = core.timers()
    local a, b = t:add(1, "a"), t:add(2, "b")
    assert.is_true(t:cancel(a))
    assert.is_false(t:cancel(a))
    assert.equal(1, #t)
    assert.equal("b", (t:expired(5)))
    assert.is_false(t:cancel(b))
  end)

  it("does not take an old id for a new timer", function()
    local t = core.timers()
    local old = t:add(1, "old")
    t:cancel(old)
    t:add(1, "new")
    assert.is_false(t:cancel(old))
    assert.equal("new", (t:expired(1)))
  end)

  it("knows no ids that it did not give", function()
    local t = core.timers()
    t:add(1, "a")
    for _, id in ipairs({ 0, -1, 0.5, 1e300, -1e300, 2 ^ 53, 0 / 0, 1 / 0 }) do assert.is_false(t:cancel(id)) end
    assert.has_error(function() t:cancel("x") end)
    assert.equal(1, #t)
  end)

  it("says when the next timer is over", function()
    local t = core.timers()
    assert.is_nil(t:next())
    t:add(2.5, "b")
    t:add(1.25, "a")
    assert.equal(1.25, t:next())
  end)

  it("has a timer over at exactly the time that next() says", function()
    local t = core.timers()
    for days = 0, 4000, 7 do -- far beyond where a double holds nanoseconds
      t:add(days * 86400 + 0.123456789, days)
      assert.equal(days, (t:expired(t:next())))
    end
  end)

  it("never expires a timer at infinity", function()
    local t = core.timers()
    local id = t:add(1 / 0, "never")
    assert.is_nil(t:next())
    assert.is_nil(t:expired(1 / 0))
    assert.is_true(t:cancel(id))
  end)

  it("takes times before zero for zero, and raises on what is no time", function()
    local t = core.timers()
    t:add(-5, "past")
    assert.equal("past", (t:expired(0)))
    assert.has_error(function() t:add(0 / 0, "x") end)
    assert.has_error(function() t:add("soon", "x") end)
    assert.has_error(function() t:expired() end)
  end)

  it("serves many timers", function()
    local t = core.timers()
    local n = 20000
    local ids = {}
    for i = 1, n do ids[i] = t:add((i * 7919) % n, i) end
    for i = 1, n, 2 do assert.is_true(t:cancel(ids[i])) end
    assert.equal(n / 2, #t)
    local last, count = -1, 0
    for value in function() return (t:expired(n)) end do
      local deadline = (value * 7919) % n
      if deadline < last then error("out of order") end
      last, count = deadline, count + 1
    end
    assert.equal(n / 2, count)
  end)

  it("lets go of the values of timers that are gone", function()
    local t = core.timers()
    local weak = setmetatable({ {}, {} }, { __mode = "v" })
    local id = t:add(1, weak[1])
    t:add(2, weak[2])
    collectgarbage()
    assert.is_not_nil(weak[1])
    t:cancel(id)
    t:expired(2)
    collectgarbage()
    assert.is_nil(weak[1])
    assert.is_nil(weak[2])
  end)

  it("is collected although a value refers to it", function()
    local weak = setmetatable({}, { __mode = "k" })
    do
      local t = core.timers()
      weak[t] = true
      t:add(1, { t })
    end
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(weak))
  end)

  it("raises when a method is called on something else", function()
    local t = core.timers()
    assert.has_error(function() t.add({}, 1, 2) end)
    assert.has_error(function() t.next(core.backoff()) end)
  end)

  it("says what it is", function()
    local t = core.timers()
    t:add(1, true)
    assert.truthy(tostring(t):find("timers: 1 pending", 1, true))
  end)
end)
