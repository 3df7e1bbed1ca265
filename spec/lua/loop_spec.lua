local luv = require("luv")
local runtime = require("weir.runtime")
local tasks = require("weir.task")
local channel = require("weir.channel")
local support = require("spec.lua.support")

-- Iterations of luv's loop while fn runs.
local function iterations(fn, ...)
  local count, prepare = 0, luv.new_prepare()
  prepare:start(function()
    count = count + 1
  end)
  fn(...)
  support.close(prepare)
  return count
end

describe("weir on luv's loop", function()
  it("runs beside the program's own timers", function()
    local ticks, timer = 0, luv.new_timer()
    luv.update_time()
    timer:start(1, 1, function()
      ticks = ticks + 1
    end)
    tasks.run(tasks.sleep, 0.05)
    support.close(timer)
    assert.is_true(ticks >= 10)
  end)

  it("runs beside the program's own TCP server and client", function()
    local server, client, got = luv.new_tcp(), luv.new_tcp(), nil
    server:bind("127.0.0.1", 0)
    server:listen(1, function()
      local conn = luv.new_tcp()
      server:accept(conn)
      conn:read_start(function(_, data)
        if data then
          conn:write(data:upper())
        else
          conn:close()
        end
      end)
    end)
    local waiter = runtime.waiter()
    client:connect("127.0.0.1", server:getsockname().port, function()
      client:write("hello")
      client:read_start(function(_, data)
        got = data
        client:close()
        server:close()
        waiter:wake()
      end)
    end)
    waiter:wait(runtime.now() + 5)
    assert.equal("HELLO", got)
  end)

  it("runs inside the program's own uv.run(), which ends when nothing is left", function()
    local done = false
    tasks.spawn(function()
      tasks.sleep(0.005)
      runtime.pause()
      done = true
    end)
    assert.is_false(luv.run())
    assert.is_true(done)
  end)

  it("does not keep uv.run() going for waits that cannot end or timeouts that are over", function()
    local ch = channel(1)
    local forever = tasks.spawn(ch.recv, ch)
    local soon = tasks.spawn(ch.recv, ch, 3600)
    tasks.spawn(ch.send, ch, 1)
    tasks.spawn(ch.send, ch, 1)
    local start = runtime.now()
    assert.is_false(luv.run())
    assert.is_true(runtime.now() - start < 5)
    assert.equal("done", forever:status())
    assert.equal("done", soon:status())
  end)

  it("wakes at once for a wake from any phase of the loop", function()
    local phases = {
      timer = function(fn)
        local handle = luv.new_timer()
        handle:start(0, 0, fn)
        return handle
      end,
      prepare = function(fn)
        local handle = luv.new_prepare()
        handle:start(fn)
        return handle
      end,
      check = function(fn)
        local handle, async = luv.new_check(), nil
        async = luv.new_async(function()
          async:close()
        end)
        async:send() -- ends the wait for events, before which no check handle is called
        handle:start(fn)
        return handle
      end,
      idle = function(fn)
        local handle = luv.new_idle()
        handle:start(fn)
        return handle
      end,
      async = function(fn)
        local handle = luv.new_async(fn)
        handle:send()
        return handle
      end,
    }
    for name, begin in pairs(phases) do
      local waiter, handle = runtime.waiter(), nil
      local task = tasks.spawn(function()
        return waiter:wait(runtime.now() + 5)
      end)
      runtime.pause()
      handle = begin(function()
        handle:close()
        waiter:wake(name)
      end)
      local start = runtime.now()
      assert.equal(name, task:join())
      assert.is_true(runtime.now() - start < 1)
    end
  end)

  it("does not turn while all wait", function()
    for _ = 1, 100 do
      tasks.spawn(tasks.sleep, 0.4)
    end
    runtime.pause()
    assert.is_true(iterations(tasks.sleep, 0.3) <= 8)
    tasks.sleep(0.2)
  end)

  it("survives a program that closes all handles of the loop", function()
    local result = support.program([[
      local luv, tasks = require("luv"), require("weir.task")
      local runtime = require("weir.runtime")
      local listener = assert(runtime.listen("tcp://127.0.0.1:0", nil, function() end))
      tasks.run(tasks.sleep, 0.001)
      local count = 0
      luv.walk(function(handle) count = count + 1 handle:close() end)
      luv.run()
      assert(count > 0)
      tasks.run(tasks.sleep, 0.001)
      assert(tasks.spawn(function() return runtime.dial(listener.url) end):join())
      print("fine")
    ]])
    assert.equal("fine\n", result.out)
    assert.equal("", result.err)
    assert.equal(0, result.status)
  end)

  it("does not mind the order of require", function()
    for _, order in ipairs({ { "luv", "weir.task" }, { "weir.task", "luv" } }) do
      local result = support.program(([[
        local first, second = require("%s"), require("%s")
        local luv, tasks = require("luv"), require("weir.task")
        local timer = luv.new_timer()
        timer:start(1, 0, function() io.write("luv ") timer:close() end)
        tasks.run(function() tasks.sleep(0.02) print("weir") end)
        luv.run()
      ]]):format(order[1], order[2]))
      assert.equal("luv weir\n", result.out)
      assert.equal(0, result.status)
    end
  end)

  it("ends a program that only spawned tasks and calls uv.run()", function()
    local result = support.program([[
      local tasks = require("weir.task")
      tasks.spawn(function() tasks.sleep(0.01) print("task") end)
      require("luv").run()
      print("end")
    ]])
    assert.equal("task\nend\n", result.out)
  end)
end)

describe("costs", function()
  it("10,000 tasks that wait turn the loop only when one of them is due", function()
    -- What this costs in CPU time is for bench/tasks.lua to say.
    local turns, prepare = 0, luv.new_prepare()
    prepare:start(function()
      turns = turns + 1
    end)
    prepare:unref()
    local first, last = math.huge, 0
    tasks.run(function()
      tasks.group(function(group)
        for _ = 1, 10000 do
          group:spawn(function()
            local due = tasks.now() + 0.3
            first, last = math.min(first, due), math.max(last, due)
            tasks.sleep(0.3)
          end)
        end
      end)
    end)
    support.close(prepare)
    -- One a millisecond of those in which tasks fall due, and those that start and end the tasks.
    local starts = 10000 / 16
    assert.is_true(turns < starts + (last - first) * 1000 + 100, turns .. " turns")
  end)

  it("a task whose calls are always ready leaves a timer of 10 ms at most 5 ms late", function()
    -- In CPU time: on a busy machine the process itself has to wait for its turn. A timer is as late
    -- as the turn of the loop is long in which it was due.
    local turns, ticks, prepare, timer = {}, 0, luv.new_prepare(), luv.new_timer()
    local last = os.clock()
    prepare:start(function()
      local now = os.clock()
      turns[#turns + 1] = now - last
      last = now
    end)
    luv.update_time()
    timer:start(10, 10, function()
      ticks = ticks + 1
    end)
    local ch, stop = channel(16), os.clock() + 0.3
    tasks
      .spawn(function()
        while os.clock() < stop do
          for i = 1, 100 do
            ch:send(i)
            ch:recv()
          end
        end
      end)
      :join()
    support.close(prepare)
    support.close(timer)
    table.sort(turns)
    assert.is_true(ticks >= 20)
    assert.is_true(turns[math.ceil(#turns / 2)] <= 0.005)
  end)

  it("tasks that compute between their waits share the turn", function()
    local function burn(seconds)
      local stop = runtime.now() + seconds
      while runtime.now() < stop do
      end
    end
    local count, timer = 0, luv.new_timer()
    luv.update_time()
    timer:start(1, 1, function()
      count = count + 1
    end)
    tasks.group(function(group)
      for _ = 1, 50 do
        group:spawn(function()
          for _ = 1, 5 do
            burn(0.0005)
            runtime.pause()
          end
        end)
      end
    end)
    support.close(timer)
    assert.is_true(count >= 10)
  end)
end)

describe("closing the Lua state with everything open", function()
  local setup = [[
    local tasks, runtime = require("weir.task"), require("weir.runtime")
    local channel, select_ = require("weir.channel"), require("weir.select")
    local core, luv = require("weir.core"), require("luv")
    local path = os.tmpname()
    os.remove(path)
    luv.new_timer():start(1000, 1000, print)
    local function everything()
      local ch = channel(1)
      for _ = 1, 5 do
        tasks.spawn(tasks.sleep, 100)
        tasks.spawn(ch.recv, ch)
        tasks.spawn(ch.recv, ch, 50)
      end
      tasks.spawn(select_, { ch, channel(1), timeout = 5 })
      tasks.spawn(tasks.wrap(function() tasks.sleep(1) end))
      tasks.spawn(tasks.group, function(group) group:spawn(tasks.sleep, 10) end)
      tasks.spawn(tasks.with_timeout, 10, tasks.sleep, 20)
      runtime.timer(runtime.now() + 5, print)
      local kept = {}
      local tcp = assert(runtime.listen("tcp://127.0.0.1:0", nil, function(conn)
        local session = core.yamux()
        kept[#kept + 1] = session
        assert(conn:attach(session))
      end))
      local unix = assert(runtime.listen("unix://" .. path, nil, function() end))
      local conn = assert(runtime.dial(tcp.url))
      local session = core.yamux({ client = true })
      assert(conn:attach(session))
      session:open():write(("x"):rep(200000))
      kept[#kept + 1] = assert(runtime.dial(tcp.url))
      kept[#kept + 1] = assert(runtime.dial(unix.url))
      local a, b = runtime.pair()
      local left, right = core.yamux({ client = true }), core.yamux()
      assert(a:attach(left))
      assert(b:attach(right))
      left:open():write("hello")
      for i = 1, 4 do tasks.spawn(runtime.dial, "tcp://host" .. i .. ".invalid:80") end
      tasks.spawn(runtime.dial, "tcp://192.0.2.1:80")
      tasks.spawn(runtime.dial, tcp.url)
      tasks.spawn(runtime.dial, unix.url)
      runtime.defer(print, "deferred")
      local waiter = runtime.waiter()
      tasks.spawn(function() waiter:wait(nil, true) end)
      runtime.pause()
      luv.fs_stat(path, function() waiter:wake(true) end) -- called while the state is closed, at the earliest
    end
  ]]
  local ways = {
    ["in a task that made it all"] = "tasks.run(function() everything() os.exit(0, true) end)",
    ["in a task, turns later"] = "tasks.run(function() everything() runtime.pause() os.exit(0, true) end)",
    ["in a task, milliseconds later"] = "tasks.run(function() everything() tasks.sleep(0.01) os.exit(0, true) end)",
    ["on the main thread"] = "everything() os.exit(0, true)",
    ["at the end of the program"] = "tasks.run(everything)",
    ["in a libuv callback"] = [[
      everything()
      luv.new_timer():start(1, 0, function() os.exit(0, true) end)
      luv.run()
    ]],
    ["by an error"] = "tasks.run(function() everything() error('planned') end)",
  }
  for name, way in pairs(ways) do
    it("is clean " .. name, function()
      local result = support.program(setup .. way)
      if name == "by an error" then
        assert.matches("planned", result.err)
        assert.equal(1, result.status)
      else
        assert.equal("", result.err)
        assert.equal(0, result.status)
      end
      assert.is_nil(result.err:find("Sanitizer", 1, true))
    end)
  end
end)
