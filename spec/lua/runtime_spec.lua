local luv = require("luv")
local runtime = require("weir.runtime")
local tasks = require("weir.task")
local heap = require("weir.runtime.heap")
local waitlist = require("weir.runtime.waitlist")
local support = require("spec.lua.support")
local fails = support.fails

local function after(ms, fn)
  local timer = luv.new_timer()
  luv.update_time()
  timer:start(ms, 0, function()
    timer:close()
    fn()
  end)
end

describe("a waiter", function()
  it("hands what it is woken with to the task that waits", function()
    local waiter = runtime.waiter()
    local task = tasks.spawn(function()
      return waiter:wait()
    end)
    after(1, function()
      assert(waiter:wake(1, "two", 3))
    end)
    assert.same({ 1, "two", 3 }, { task:join() })
  end)

  it("drives the loop when the main thread waits", function()
    local waiter = runtime.waiter()
    after(1, function()
      waiter:wake("main")
    end)
    assert.equal("main", waiter:wait())
  end)

  it("suspends a coroutine that a libuv callback made", function()
    local waiter, result = runtime.waiter(), nil
    after(1, function()
      coroutine.wrap(function()
        result = waiter:wait()
      end)()
    end)
    after(3, function()
      waiter:wake("callback")
    end)
    support.eventually(function()
      return result == "callback"
    end)
  end)

  it("suspends a coroutine that the program made", function()
    local waiter, result = runtime.waiter(), nil
    local co = coroutine.create(function()
      result = waiter:wait()
    end)
    assert(coroutine.resume(co))
    assert.equal("suspended", coroutine.status(co))
    waiter:wake("mine")
    assert.is_nil(result)
    runtime.pause()
    assert.equal("mine", result)
    assert.equal("dead", coroutine.status(co))
  end)

  it("remembers a wake that comes first, and only one", function()
    local waiter = runtime.waiter()
    assert.is_true(waiter:wake("first"))
    assert.is_false(waiter:wake("second"))
    assert.equal("first", waiter:wait())
    fails("timeout", waiter:wait(runtime.now() + 0.001))
  end)

  it("gives up at the deadline, not before and once", function()
    local waiter = runtime.waiter()
    local deadline = runtime.now() + 0.02
    fails("timeout", waiter:wait(deadline))
    assert.is_true(runtime.now() >= deadline)
    assert.is_true(waiter:wake("late"))
    assert.equal("late", waiter:wait(runtime.now() + 1))
  end)

  it("says so when nothing can wake the main thread", function()
    local err = fails("deadlock", runtime.waiter():wait())
    assert.matches("nothing is left", err.message)
  end)

  it("refuses to block inside a libuv callback and says what to do", function()
    local ok, err
    after(1, function()
      ok, err = pcall(runtime.waiter().wait, runtime.waiter())
    end)
    support.eventually(function()
      return ok ~= nil
    end)
    assert.is_false(ok)
    assert.matches("weir.spawn", err)
  end)

  it("raises in a coroutine that somebody else resumes while it waits", function()
    local waiter = runtime.waiter()
    local co = coroutine.create(function()
      return pcall(waiter.wait, waiter)
    end)
    coroutine.resume(co)
    local _, ok, err = coroutine.resume(co, "stolen")
    assert.is_false(ok)
    assert.matches("weir.wrap", err)
    waiter:wake("too late")
    runtime.pause()
    assert.equal("dead", coroutine.status(co))
  end)

  it("reports an error of a coroutine that nobody waits for", function()
    local waiter = runtime.waiter()
    coroutine.wrap(function()
      waiter:wait()
      error("lost")
    end)()
    local text = support.silence(function()
      waiter:wake()
      runtime.pause()
    end)
    assert.matches("lost", text)
    assert.matches("stack traceback", text)
    assert.equal(1, #runtime.take_failures())
  end)

  it("is not resumed by a wake when its coroutine could not be suspended", function()
    local waiter, other = runtime.waiter(), runtime.waiter()
    local task = tasks.spawn(function()
      local sorted = pcall(table.sort, { 1, 2 }, function()
        waiter:wait() -- a yield across a C function
      end)
      return sorted, other:wait(runtime.now() + 0.02)
    end)
    runtime.pause()
    waiter:wake("wrong")
    local sorted, value, err = task:join()
    assert.is_false(sorted)
    fails("timeout", value, err)
  end)
end)

describe("runtime timers", function()
  it("call in the order of their deadlines, and not when cancelled", function()
    local order, now = {}, runtime.now()
    for _, ms in ipairs({ 9, 3, 6, 1 }) do
      runtime.timer(now + ms / 1000, function()
        order[#order + 1] = ms
      end)
    end
    local cancelled = runtime.timer(now + 0.002, function()
      order[#order + 1] = "cancelled"
    end)
    cancelled:cancel()
    cancelled:cancel()
    support.eventually(function()
      return #order == 4
    end)
    assert.same({ 1, 3, 6, 9 }, order)
  end)

  it("report an error and go on", function()
    local done
    local text = support.silence(function()
      runtime.timer(runtime.now(), function()
        error("in a timer")
      end)
      runtime.timer(runtime.now(), function()
        done = true
      end)
      support.eventually(function()
        return done
      end)
    end)
    assert.matches("in a timer", text)
    assert.equal(1, #runtime.take_failures())
  end)

  it("take a timeout as a deadline", function()
    assert.is_nil(runtime.deadline(nil))
    assert.is_nil(runtime.deadline(math.huge))
    assert.is_true(runtime.deadline(5) > runtime.now() + 4)
    for _, bad in ipairs({ -1, 0 / 0, "1", false }) do
      assert.has_error(function()
        runtime.deadline(bad)
      end)
    end
  end)
end)

describe("the heap", function()
  it("gives back every deadline in order", function()
    local h, seed = heap.new(), 7
    for _ = 1, 2000 do
      seed = seed * 16807 % 2147483647
      h:arm({}, seed)
    end
    local last = 0
    for _ = 1, 2000 do
      local key = h:next()
      local item = h:expired(key)
      assert.is_true(key >= last)
      assert.is_nil(item.deadline)
      last = key
    end
    assert.is_nil(h:next())
  end)

  it("mixes deadlines in order with others, and forgets in both", function()
    local h, live, seed = heap.new(), {}, 3
    for i = 1, 6000 do
      seed = seed * 16807 % 2147483647
      local key = i % 3 == 0 and seed % 10000 or 10000 + i
      local item = {}
      h:arm(item, key)
      if i % 5 == 0 then
        live[#live + 1] = key
      else
        h:disarm(item)
      end
    end
    table.sort(live)
    for _, key in ipairs(live) do
      assert.equal(key, h:next())
      assert.is_nil(h:expired(key - 0.5))
      assert.is_table(h:expired(key))
    end
    assert.is_nil(h:next())
    assert.equal(0, h.count)
    assert.equal(0, h.useless)
  end)

  it("keeps what is disarmed out, and its size near what is armed", function()
    local h = heap.new()
    for i = 1, 100000 do
      local item = {}
      h:arm(item, 1000 + i)
      h:disarm(item)
    end
    assert.is_true(h.count < 5000)
    assert.is_nil(h:next())
    assert.equal(0, h.count)
    assert.equal(0, h.useless)
  end)

  it("moves an item to a later deadline and to an earlier one", function()
    local h, item = heap.new(), {}
    h:arm(item, 10)
    h:disarm(item)
    h:arm(item, 20)
    assert.is_nil(h:expired(15))
    assert.equal(20, h:next())
    h:disarm(item)
    h:arm(item, 5)
    assert.equal(item, h:expired(5))
    assert.is_nil(h:expired(100))
    assert.equal(0, h.count)
  end)
end)

describe("a waitlist", function()
  local function fake(accepts)
    return {
      woken = 0,
      wake = function(self)
        self.woken = self.woken + 1
        return accepts
      end,
    }
  end

  it("wakes in order, and passes over those that wait no more", function()
    local list, a, b, c = waitlist.new(), fake(true), fake(false), fake(true)
    list:add(a)
    list:add(b)
    list:add(c)
    assert.is_true(list:wake_one())
    assert.same({ 1, 0, 0 }, { a.woken, b.woken, c.woken })
    assert.is_true(list:wake_one())
    assert.same({ 1, 1, 1 }, { a.woken, b.woken, c.woken })
    assert.is_false(list:wake_one())
  end)

  it("tells on removal whether the waiter had been woken through it", function()
    local list, a, b = waitlist.new(), fake(true), fake(true)
    list:add(a)
    list:add(b)
    assert.is_false(list:remove(b))
    list:wake_one()
    assert.is_true(list:remove(a))
    assert.equal(0, list.count)
  end)

  it("does not grow with those that come and go beside one that stays", function()
    local list, stays = waitlist.new(), fake(true)
    list:add(stays)
    local previous = fake(true)
    list:add(previous)
    for _ = 1, 1000 do
      local waiter = fake(true)
      list:add(waiter)
      list:remove(previous)
      previous = waiter
    end
    assert.is_true(list.last - list.first < 50)
    list:wake_one()
    assert.equal(1, stays.woken)
  end)
end)

describe("the scheduler", function()
  it("lets the loop have its turn in a pause", function()
    local turns, ran = 0, false
    local task = tasks.spawn(function()
      while not ran do
        turns = turns + 1
        runtime.pause()
      end
    end)
    after(2, function()
      ran = true
    end)
    task:join()
    assert.is_true(turns > 1)
  end)

  it("pauses a task whose operations are always ready", function()
    local others = 0
    local hot = tasks.spawn(function()
      while others < 3 do
        runtime.tick()
      end
    end)
    tasks.spawn(function()
      for _ = 1, 3 do
        others = others + 1
        runtime.pause()
      end
    end)
    hot:join()
    assert.equal(3, others)
  end)

  it("does the same on the main thread", function()
    local ran
    after(1, function()
      ran = true
    end)
    local deadline = runtime.now() + 5
    while not ran do
      runtime.tick()
      assert(runtime.now() < deadline)
    end
  end)

  it("tells other counters how many operations are allowed, and takes theirs", function()
    local grants = {}
    runtime.on_budget(function(count)
      grants[#grants + 1] = count
    end)
    local pauses, current = 0, 0
    runtime.on_dispatch(function()
      current = current + 1
    end)
    tasks
      .spawn(function()
        local before = current
        while pauses < 3 do
          runtime.pause_if_spent(grants[#grants])
          if current ~= before then
            before, pauses = current, pauses + 1
          end
        end
      end)
      :join()
    assert.is_true(#grants > 3)
    for _, count in ipairs(grants) do
      assert.is_true(count >= 4 and count <= 256)
    end
  end)

  it("calls deferred functions in order, in a turn", function()
    local got = {}
    runtime.defer(function(a, b)
      got[1] = a .. b
    end, "x", "y")
    runtime.defer(function()
      got[2] = "z"
    end)
    assert.same({}, got)
    runtime.pause()
    assert.same({ "xy", "z" }, got)
  end)

  it("makes random bytes", function()
    assert.equal(32, #runtime.random(32))
    assert.equal("", runtime.random(0))
    assert.are_not.equal(runtime.random(16), runtime.random(16))
    assert.has_error(function()
      runtime.random(-1)
    end)
  end)
end)
