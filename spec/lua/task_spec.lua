local errors = require("weir.errors")
local runtime = require("weir.runtime")
local tasks = require("weir.task")
local channel = require("weir.channel")
local support = require("spec.lua.support")
local fails = support.fails
local must = _G.assert -- busted's own makes a string of an error object
local run, spawn, sleep, group = tasks.run, tasks.spawn, tasks.sleep, tasks.group

-- A value for Lua 5.4's to-be-closed variables that notes that it was closed.
local function closes(log, name)
  return setmetatable({}, {
    __close = function()
      log[#log + 1] = name
    end,
  })
end

describe("run", function()
  it("returns what the main task returned", function()
    assert.same({ 5, nil, 7, n = 3 }, table.pack(run(function(a)
      sleep(0.001)
      return a, nil, 7
    end, 5)))
  end)

  it("leaves other tasks as they are, for the next run", function()
    local done
    run(function()
      spawn(function()
        sleep(0.01)
        done = true
      end)
    end)
    assert.is_nil(done)
    run(sleep, 0.02)
    assert.is_true(done)
  end)

  it("raises the error of the main task with its traceback", function()
    local ok, err = pcall(run, function()
      sleep(0.001)
      error("broken")
    end)
    assert.is_false(ok)
    assert.matches("task_spec.lua:%d+: broken", err)
    assert.matches("stack traceback", err)
  end)

  it("raises an error object unchanged", function()
    local object = errors.new("closed", "gone")
    local _, err = pcall(run, function()
      error(object)
    end)
    assert.equal(object, err)
  end)

  it("fails when a task failed that nobody waited for, and prints its traceback", function()
    local ok, err
    local text = support.silence(function()
      ok, err = pcall(run, function()
        spawn(error, "forgotten")
        sleep(0.001)
      end)
    end)
    assert.is_false(ok)
    assert.matches("1 task failed that nobody waited for: forgotten", err)
    assert.matches("error in a task: forgotten", text)
    assert.matches("stack traceback", text)
  end)

  it("makes a program exit with status 1 after such an error", function()
    local result = support.program([[
      local tasks = require("weir.task")
      tasks.run(function()
        tasks.spawn(function() error("forgotten") end)
        tasks.sleep(0.01)
        print("end")
      end)
    ]])
    assert.equal(1, result.status)
    assert.equal("end\n", result.out)
    assert.matches("forgotten", result.err)
  end)

  it("says which wait never ends when all tasks wait for each other", function()
    local ok, err = pcall(run, function()
      channel(1):recv()
    end)
    assert.is_false(ok)
    assert.matches("deadlock", tostring(err))
    assert.matches("task_spec.lua", tostring(err))
  end)

  it("refuses to run inside itself and without a function", function()
    local _, err = pcall(run, function()
      run(print)
    end)
    assert.matches("use weir.spawn", err)
    assert.has_error(function()
      run("print")
    end)
  end)
end)

describe("a task", function()
  it("that yields by itself gets an error there, which it may catch, in place of standing still", function()
    for _, value in ipairs({ true, false, "x" }) do
      local ok, err, after
      tasks.run(function()
        local task = tasks.spawn(function()
          ok, err = pcall(function()
            coroutine.yield(value)
            return "never"
          end)
          after = tasks.sleep(0.001)
          return "done"
        end)
        assert.equal("done", task:join(1))
      end)
      assert.is_false(ok)
      assert.matches("^spec/lua/task_spec.lua:%d+: a task called coroutine.yield%(%)", err)
      assert.is_true(after)
    end
  end)

  it("gives its results to whoever joins, again and again", function()
    local task = spawn(function(...)
      sleep(0.001)
      return select("#", ...), ...
    end, nil, false)
    assert.equal("running", task:status())
    assert.same({ 2, nil, false, n = 3 }, table.pack(task:join()))
    assert.same({ 2, nil, false, n = 3 }, table.pack(task:join()))
    assert.equal("done", task:status())
    assert.equal("weir.task(done)", tostring(task))
  end)

  it("gets exactly the arguments that were given", function()
    local count = function(...)
      return select("#", ...)
    end
    assert.equal(0, spawn(count):join())
    assert.equal(1, spawn(count, nil):join())
    assert.equal(1, spawn(count, false):join())
    assert.equal(3, spawn(count, 1, nil, nil):join())
  end)

  it("raises its error in those who join it, and it counts as collected", function()
    local task = spawn(error, "mine")
    local second = spawn(function()
      return pcall(task.join, task)
    end)
    local ok, err = pcall(task.join, task)
    assert.is_false(ok)
    assert.equal("mine", err)
    assert.same({ false, "mine" }, { second:join() })
    assert.equal("failed", task:status())
    assert.equal("", support.silence(run, sleep, 0.001))
  end)

  it("may be joined after it failed without its error being printed", function()
    local text = support.silence(run, function()
      local task = spawn(error, "late")
      sleep(0.005)
      assert(not pcall(task.join, task))
    end)
    assert.equal("", text)
  end)

  it("can be waited for with a timeout", function()
    local task = spawn(sleep, 0.05)
    fails("timeout", task:join(0.001))
    assert.is_true(task:join())
  end)

  it("cannot join itself", function()
    local task
    task = spawn(function()
      return task:join()
    end)
    local _, err = pcall(task.join, task)
    assert.matches("cannot join itself", err)
  end)

  it("is known while it runs, and only then", function()
    local task
    task = spawn(function()
      sleep(0.001)
      return tasks.current() == task
    end)
    assert.is_nil(tasks.current())
    assert.is_true(task:join())
    assert.is_nil(tasks.current())
  end)
end)

describe("cancelling", function()
  it("wakes what the task waits for with an error, and closes its variables", function()
    local log, got = {}, nil
    local task = spawn(function()
      local _ <close> = closes(log, "first")
      local _ <close> = closes(log, "second")
      got = table.pack(sleep(100))
      return nil, got[2]
    end)
    runtime.pause()
    task:cancel("enough")
    local err = fails("cancelled", task:join())
    assert.equal("enough", err.message)
    fails("cancelled", got[1], got[2])
    assert.same({ "second", "first" }, log)
    assert.equal("cancelled", task:status())
  end)

  it("is not a failure when the task raises the error on", function()
    local log = {}
    local task = spawn(function()
      local _ <close> = closes(log, "closed")
      must(sleep(100))
    end)
    runtime.pause()
    task:cancel()
    fails("cancelled", task:join())
    assert.same({ "closed" }, log)
    assert.equal("", support.silence(run, sleep, 0.001))
  end)

  it("ends every later wait too", function()
    local task = spawn(function()
      local count = 0
      for _ = 1, 10 do
        local _, err = sleep(100)
        count = count + (errors.is(err, "cancelled") and 1 or 0)
      end
      return count
    end)
    runtime.pause()
    task:cancel()
    assert.equal(10, task:join())
  end)

  it("ends a task that takes no notice, in the end", function()
    local task = spawn(function()
      while true do
        sleep(1)
      end
    end)
    runtime.pause()
    task:cancel()
    fails("cancelled", task:join(5))
    assert.equal("cancelled", task:status())
  end)

  it("ends a task whose operations are always ready", function()
    local ch = channel(1)
    local task = spawn(function()
      while true do
        must(ch:send(1))
        must(ch:recv())
      end
    end)
    sleep(0.005)
    assert.equal("running", task:status())
    task:cancel()
    fails("cancelled", task:join(5))
  end)

  it("before the start ends the first wait", function()
    local task = spawn(sleep, 100)
    task:cancel()
    fails("cancelled", task:join())
  end)

  it("does nothing to a task that has ended, and nothing twice", function()
    local task = spawn(function()
      return 1
    end)
    task:join()
    task:cancel()
    assert.equal(1, task:join())
    assert.equal("done", task:status())
  end)

  it("keeps the results of a task that ends in its own way", function()
    local task = spawn(function()
      sleep(100)
      return "saved"
    end)
    runtime.pause()
    task:cancel()
    assert.equal("saved", task:join())
  end)
end)

describe("a group", function()
  it("returns when all its tasks have ended", function()
    local ended = 0
    local result = group(function(g, x)
      for i = 1, 5 do
        g:spawn(function()
          sleep(i / 1000)
          ended = ended + 1
        end)
      end
      return x
    end, "result")
    assert.equal("result", result)
    assert.equal(5, ended)
  end)

  it("cancels the others at the first error, waits for them and raises it", function()
    local cancelled = 0
    local ok, err = pcall(group, function(g)
      for _ = 1, 3 do
        g:spawn(function()
          local _, reason = sleep(100)
          cancelled = cancelled + (errors.is(reason, "cancelled") and 1 or 0)
        end)
      end
      g:spawn(function()
        sleep(0.001)
        error("first", 0)
      end)
      sleep(100)
    end)
    assert.is_false(ok)
    assert.equal("first", err)
    assert.equal(3, cancelled)
  end)

  it("treats an error in its function the same way", function()
    local child
    local ok, err = pcall(group, function(g)
      child = g:spawn(sleep, 100)
      error("mine", 0)
    end)
    assert.is_false(ok)
    assert.equal("mine", err)
    assert.equal("cancelled", child:status())
  end)

  it("passes a cancellation on and still waits", function()
    local log = {}
    local outer = spawn(function()
      return group(function(g)
        g:spawn(function()
          sleep(100)
          log[#log + 1] = "child"
        end)
        return sleep(100)
      end)
    end)
    runtime.pause()
    runtime.pause()
    outer:cancel()
    fails("cancelled", outer:join())
    assert.same({ "child" }, log)
  end)

  it("can be cancelled by its own tasks", function()
    local result = table.pack(group(function(g)
      g:spawn(function()
        g:cancel("done")
      end)
      return sleep(100)
    end))
    fails("cancelled", result[1], result[2])
  end)

  it("takes no task after its end", function()
    local kept
    group(function(g)
      kept = g
    end)
    assert.has_error(function()
      kept:spawn(print)
    end, "group:spawn: the group has ended")
  end)
end)

describe("with_timeout", function()
  it("returns what the function returned", function()
    assert.same({ 1, 2 }, { tasks.with_timeout(1, function(a)
      sleep(0.001)
      return a, 2
    end, 1) })
  end)

  it("cancels the function when it takes too long", function()
    local got
    local err = fails("timeout", tasks.with_timeout(0.005, function()
      got = table.pack(sleep(100))
    end))
    assert.matches("longer than 0.005 s", err.message)
    fails("cancelled", got[1], got[2])
  end)

  it("raises the function's error", function()
    local ok, err = pcall(tasks.with_timeout, 1, error, "inside")
    assert.is_false(ok)
    assert.equal("inside", err)
  end)

  it("passes a cancellation on", function()
    local inner
    local task = spawn(tasks.with_timeout, 100, function()
      inner = table.pack(sleep(100))
    end)
    runtime.pause()
    runtime.pause()
    task:cancel()
    fails("cancelled", task:join())
    fails("cancelled", inner[1], inner[2])
  end)
end)

describe("sleep", function()
  it("takes as long as it should, for many at a time, in order", function()
    local order, start = {}, runtime.now()
    group(function(g)
      for _, ms in ipairs({ 15, 5, 10 }) do
        g:spawn(function()
          sleep(ms / 1000)
          assert(runtime.now() - start >= ms / 1000)
          order[#order + 1] = ms
        end)
      end
    end)
    assert.same({ 5, 10, 15 }, order)
  end)

  it("wants a number that is not negative", function()
    assert.has_error(sleep)
    assert.has_error(function()
      sleep(-1)
    end)
  end)
end)

describe("wrap", function()
  it("makes generators that may block inside a task", function()
    local sum = spawn(function()
      local total = 0
      for value in
        tasks.wrap(function()
          for i = 1, 3 do
            sleep(0.001)
            coroutine.yield(i)
          end
        end)
      do
        total = total + value
      end
      return total
    end):join()
    assert.equal(6, sum)
  end)

  it("works on the main thread and nested", function()
    local outer = tasks.wrap(function()
      local inner = tasks.wrap(function(x)
        while true do
          sleep(0.001)
          x = coroutine.yield(x * 2)
        end
      end)
      for i = 1, 3 do
        coroutine.yield(inner(i))
      end
    end)
    assert.same({ 2, 4, 6 }, { outer(), outer(), outer() })
  end)

  it("passes a cancellation of the task in", function()
    local seen
    local task = spawn(function()
      local next_value = tasks.wrap(function()
        seen = table.pack(sleep(100))
        return nil
      end)
      return next_value()
    end)
    runtime.pause()
    task:cancel()
    task:join()
    fails("cancelled", seen[1], seen[2])
  end)

  it("lets pauses through", function()
    local task = spawn(function()
      local generator = tasks.wrap(function()
        runtime.pause()
        coroutine.yield("after")
      end)
      return generator()
    end)
    assert.equal("after", task:join())
    assert.equal("main", tasks.wrap(function()
      runtime.pause()
      return "main"
    end)())
  end)

  it("raises the body's errors in the caller", function()
    local ok, err = pcall(tasks.wrap(function()
      sleep(0.001)
      error("body", 0)
    end))
    assert.is_false(ok)
    assert.equal("body", err)
  end)
end)
