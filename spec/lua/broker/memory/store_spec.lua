local found = pcall(require, "weir.brokers.lmdb")
local helper = require("spec.lua.broker.memory.support")
local runtime = require("weir.runtime")
local shell = require("spec.house.shell")
local store = require("weir.broker.memory.store")
local support = require("spec.lua.support")
local weir = require("weir")

describe("weir.broker.memory.store", function()
  if not found then
    pending("this build has no LMDB")
    return
  end

  local dir, remove, kept

  -- Opens it and reads all: groups by key, deliveries as { key, id, message, attempts, due }, records by id.
  local function open(options)
    local opened, err = store.open(dir, options)
    if not opened then
      return nil, err
    end
    kept = opened
    local groups, deliveries, records = {}, {}, {}
    local last
    last, err = kept:load(function(key, spec)
      groups[key] = spec
    end, function(key, id, message, attempts, due)
      deliveries[#deliveries + 1] = { key = key, id = id, message = message, attempts = attempts, due = due }
    end, function(id, message)
      records[#records + 1] = { id = id, message = message }
    end)
    if not last then
      return nil, err
    end
    return groups, deliveries, records, last
  end

  local function reopen(options)
    assert(kept:close())
    return open(options)
  end

  -- "first:1 second:1 ...", in the order in which they were loaded.
  local function names(deliveries)
    local list = {}
    for i, each in ipairs(deliveries) do
      list[i] = each.key .. ":" .. each.id
    end
    return table.concat(list, " ")
  end

  local function message(id, keys, more)
    local made = { id = id, destination = "orders", headers = {}, payload = "p" .. id, time = 0, keys = keys }
    for name, value in pairs(more or {}) do
      made[name] = value
    end
    return made
  end

  before_each(function()
    dir, remove = shell.scratch()
    assert(open({ sync = false }))
    assert(kept:declare("first", {}))
    assert(kept:declare("second", {}))
  end)

  after_each(function()
    kept:close()
    remove()
  end)

  it("gives back what was stored: groups, messages, records, the highest id", function()
    local spec = { name = "a.*", count = 7, rate = 0.5, durable = true, odd = "\0\xff" }
    assert(kept:declare("key \0 of a group", spec))
    local headers = { ["content-type"] = "text/plain", empty = "" }
    assert(kept:append({
      message(5, { "first", "second" }, { headers = headers, payload = "\0\1\xff", time = 1.25 }),
      message(9, {}, { retain = true }),
      message(10, {}),
    }))
    local groups, deliveries, records, last = reopen()
    assert.same({ first = {}, second = {}, ["key \0 of a group"] = spec }, groups)
    assert.equal("first:5 second:5", names(deliveries))
    local first = deliveries[1]
    assert.same({ id = 5, destination = "orders", headers = headers, payload = "\0\1\xff", time = 1.25 }, first.message)
    assert.equal(first.message, deliveries[2].message)
    assert.same({ 0, nil }, { first.attempts, first.due })
    assert.equal(1, #records)
    assert.equal(9, records[1].id)
    assert.equal(10, last)
  end)

  it("keeps a message until the last group has settled it and retention dropped it", function()
    assert(kept:append({ message(1, { "first", "second" }, { retain = true }), message(2, { "first" }) }))
    kept:settle("first", 1)
    kept:settle("first", 1)
    kept:settle("first", 2)
    local _, deliveries, records = reopen()
    assert.equal("second:1", names(deliveries))
    assert.equal(1, #records)
    kept:evict(1)
    _, deliveries, records = reopen()
    assert.equal("second:1", names(deliveries))
    assert.equal(0, #records)
    assert.equal(1, kept:stats().messages)
    kept:settle("second", 1)
    _, deliveries = reopen()
    assert.equal("", names(deliveries))
    assert.equal(0, kept:stats().messages)
  end)

  it("never gives out an id again, though its message is gone", function()
    assert(kept:append({ message(41, { "first" }) }))
    kept:settle("first", 41)
    local _, _, _, last = reopen()
    assert.equal(41, last)
    _, _, _, last = reopen()
    assert.equal(41, last)
  end)

  it("keeps attempts and due times", function()
    assert(kept:append({ message(1, { "first", "second" }), message(2, { "first" }), message(3, { "first" }) }))
    kept:attempted("first", 1, 1)
    kept:attempted("first", 1, 2)
    kept:requeue("second", 1, 4, 2000000000.5)
    kept:requeue("first", 2, 1, 1234.5)
    kept:attempted("first", 2, 2)
    kept:attempted("first", 3, 1)
    kept:settle("first", 3)
    local _, deliveries = reopen()
    assert.equal("first:1 second:1 first:2", names(deliveries))
    local function state(at)
      return { deliveries[at].attempts, deliveries[at].due }
    end
    assert.same({ 2, nil }, state(1))
    assert.same({ 4, 2000000000.5 }, state(2))
    assert.same({ 2, nil }, state(3))
    kept:settle("first", 2)
    kept:settle("first", 1)
    kept:requeue("second", 1, 5)
    _, deliveries = reopen()
    assert.equal("second:1", names(deliveries))
    assert.same({ 5, nil }, state(1))
  end)

  it("writes nothing for an attempt that is settled in the same turn", function()
    assert(kept:append({ message(1, { "first" }) }))
    local before = kept:stats().bytes
    for id = 2, 200 do
      assert(kept:append({ message(id, { "first" }) }))
      kept:attempted("first", id, 1)
      kept:settle("first", id)
    end
    assert(kept:flush())
    assert.is_nil(next(kept.written))
    assert.is_true(kept:stats().bytes < before + 200 * 1024)
  end)

  it("gives a retained message back to a group that had settled it, or never had it", function()
    assert(kept:append({ message(1, { "first" }, { retain = true }) }))
    kept:settle("first", 1)
    kept:requeue("first", 1, 0)
    kept:requeue("second", 1, 0)
    kept:requeue("second", 77, 0)
    local _, deliveries = reopen()
    assert.equal("first:1 second:1", names(deliveries))
    kept:settle("first", 1)
    kept:settle("second", 1)
    kept:evict(1)
    _, deliveries = reopen()
    assert.equal("", names(deliveries))
  end)

  it("forgets a group with its deliveries, those under way too", function()
    assert(kept:append({ message(1, { "first", "second" }), message(2, { "second" }) }))
    local late = weir.spawn(function()
      return kept:append({ message(3, { "first", "second" }) })
    end)
    runtime.pause()
    assert(kept:forget("second"))
    assert.is_true(late:join())
    assert(kept:append({ message(4, { "first", "second" }), message(5, { "second" }) }))
    local groups, deliveries = reopen()
    assert.same({ first = {} }, groups)
    assert.equal("first:1 first:3 first:4", names(deliveries))
    assert.equal(3, kept:stats().messages)
    assert(kept:declare("second", { again = true }))
    groups, deliveries = reopen()
    assert.is_true(groups.second.again)
    assert.equal("first:1 first:3 first:4", names(deliveries))
  end)

  it("commits what many tasks publish together, and resumes them in their order", function()
    local before, order, tasks = kept:stats().commits, {}, {}
    for id = 1, 500 do
      tasks[id] = weir.spawn(function()
        assert(kept:append({ message(id, { "first" }) }))
        order[#order + 1] = id
      end)
    end
    for id = 1, 500 do
      tasks[id]:join()
    end
    for id = 1, 500 do
      assert.equal(id, order[id])
    end
    assert.is_true(kept:stats().commits - before < 100)
  end)

  it("tells a cancelled publisher the truth", function()
    local ok
    local task = weir.spawn(function()
      ok = kept:append({ message(1, { "first" }) })
    end)
    runtime.pause()
    task:cancel()
    support.eventually(function()
      return ok
    end)
    local _, deliveries = reopen()
    assert.equal("first:1", names(deliveries))
  end)

  it("tells a publisher the truth whose message was stored while the store was closed", function()
    assert(reopen({ sync = true }))
    local task = weir.spawn(kept.append, kept, { message(1, { "first" }) })
    while not kept.committer.current do
      weir.sleep(0)
    end
    kept.committer:close()
    assert.is_true(task:join(5))
    kept:close()
    local _, deliveries = open()
    assert.equal("first:1", names(deliveries))
  end)

  it("answers after close, and is closed once", function()
    assert(kept:append({ message(1, { "first" }) }))
    assert.is_true(kept:close())
    assert.is_true(kept:close())
    support.fails("closed", kept:append({ message(2, { "first" }) }))
    support.fails("closed", kept:declare("third", {}))
    support.fails("closed", kept:forget("first"))
    kept:settle("first", 1)
    kept:requeue("first", 1, 1)
    support.fails("closed", kept:flush())
    local _, deliveries = open()
    assert.equal("first:1", names(deliveries))
  end)

  it("stores what was settled when it is closed", function()
    assert(kept:append({ message(1, { "first" }), message(2, { "first" }) }))
    kept:settle("first", 1)
    local _, deliveries = reopen()
    assert.equal("first:2", names(deliveries))
  end)

  it("refuses options that it does not know", function()
    assert.has_error(function()
      store.open(dir, { synch = true })
    end, "weir.broker.memory: the store: unknown option 'synch'; known are: max_bytes, sync (did you mean 'sync'?)")
    assert.has_error(function()
      store.open(dir, { max_bytes = "much" })
    end)
    assert.has_error(function()
      store.open("")
    end)
  end)

  describe("that is full", function()
    local big = ("x"):rep(4000)

    local function fill()
      local id = 0
      while true do
        local ok, err = kept:append({ message(id + 1, { "first" }, { payload = big }) })
        if not ok then
          return id, err
        end
        id = id + 1
      end
    end

    for _, sync in ipairs({ true, false }) do
      it("takes no more, loses nothing, and recovers " .. (sync and "(sync)" or "(no sync)"), function()
        reopen({ sync = sync, max_bytes = "1 MiB" })
        local count, err = fill()
        assert.equal("full", err.code)
        assert.matches("raise max_bytes", err.message)
        assert.equal(dir, err.dir)
        assert.is_true(count > 100)
        local _, deliveries = reopen({ sync = sync, max_bytes = "1 MiB" })
        assert.equal(count, #deliveries)
        support.fails("full", kept:append({ message(9000, { "first" }, { payload = big:rep(20) }) }))
        for _, each in ipairs(deliveries) do
          kept:settle("first", each.id)
        end
        assert(kept:flush())
        assert(kept:append({ message(9001, { "first" }, { payload = big }) }))
        _, deliveries = reopen({ sync = sync })
        assert.equal("first:9001", names(deliveries))
      end)
    end

    it("refuses of several at once only those that do not fit", function()
      reopen({ sync = false, max_bytes = "1 MiB" })
      local results = {}
      local tasks = {}
      for id = 1, 3 do
        tasks[id] = weir.spawn(function()
          local payload = id == 2 and ("x"):rep(2 * 1024 * 1024) or "small"
          results[id] = { kept:append({ message(id, { "first" }, { payload = payload }) }) }
        end)
      end
      for id = 1, 3 do
        tasks[id]:join()
      end
      assert.is_true(results[1][1])
      assert.equal("full", results[2][2].code)
      assert.is_true(results[3][1])
      local _, deliveries = reopen()
      assert.equal("first:1 first:3", names(deliveries))
    end)
  end)

  describe("on a disk that is full", function()
    it("refuses, loses nothing that was accepted, and recovers", function()
      kept:close()
      local program = [[
        local store = require("weir.broker.memory.store")
        local weir = require("weir")
        local dir, sync = %q, %s
        weir.run(function()
          local kept = assert(store.open(dir, { sync = sync }))
          kept:load(function() end, function() end, function() end)
          assert(kept:declare("first", {}))
          local id, err = 0, nil
          local function publish()
            id = id + 1
            return kept:append({ { id = id, destination = "d", payload = ("x"):rep(4000), keys = { "first" } } })
          end
          repeat
            local _
            _, err = publish()
          until err
          assert(err.code == "no_space", tostring(err))
          print(id - 1)
          for settled = 1, id - 10 do
            kept:settle("first", settled)
          end
          -- The room that is kept for deletions suffices.
          local ok, wrong = kept:flush()
          print(ok and "settled" or wrong.code)
          ok, wrong = publish()
          print(ok and "published" or wrong.code)
          kept:close()
        end)
      ]]
      for _, sync in ipairs({ "true", "false" }) do
        remove()
        local script = os.tmpname()
        shell.write(script, program:format(dir, sync))
        -- The file may have 4 MiB: blocks of 1024 bytes in bash, which Lua's sh need not be.
        local pipe = assert(io.popen(("exec 2>&1; bash -c 'ulimit -f 4096; exec lua5.4 %s'"):format(script)))
        local count, _, settled, published = pipe:read("n", "l", "l", "l")
        local rest = pipe:read("a")
        pipe:close()
        os.remove(script)
        assert.is_number(count, rest)
        assert.is_true(count > 100, count)
        assert.equal("settled", settled)
        assert.equal("published", published)
        local _, deliveries = open()
        assert.equal(("first:%d"):format(count - 8), "first:" .. deliveries[1].id)
        assert.equal(count + 2, deliveries[#deliveries].id)
        assert.equal(10, #deliveries)
        kept:close()
      end
    end)
  end)

  it("belongs to one process", function()
    local err = support.fails("locked", store.open(dir))
    assert.matches("one process at a time", err.message)
    local other = support.program(([[
      local kept, err = require("weir.broker.memory.store").open(%q)
      io.write(tostring(kept), " ", err.code)
    ]]):format(dir))
    assert.equal("nil locked", other.out)
    kept:close()
    assert(open())
  end)

  it("refuses a file that is damaged, and one of another version", function()
    for id = 1, 300 do
      assert(kept:append({ message(id, { "first" }, { payload = ("x"):rep(100) }) }))
    end
    kept:close()
    assert(os.execute(("truncate -s 20000 %s/data.mdb"):format(dir)))
    local err = support.fails("damaged", store.open(dir))
    assert.matches("restore it from a copy", err.message)
    remove()
    assert(open())
    local batch = require("weir.brokers.lmdb").batch()
    batch:put(0, "weir", ("\xff"):rep(8))
    assert(kept.env:commit(batch))
    kept:close()
    support.fails("version", store.open(dir))
    remove()
    assert(open())
    batch:clear()
    batch:put(1, 7, "no message")
    assert(kept.env:commit(batch))
    kept:close()
    support.fails("damaged", open())
  end)

  it("lets the program end, closed or not", function()
    kept:close()
    for _, ending in ipairs({ "kept:close()", "", "os.exit(true, true)", "kept:append({})" }) do
      local result = support.program(([[
        local kept = assert(require("weir.broker.memory.store").open(%q))
        kept:load(print, print, print)
        assert(kept:declare("g", {}))
        %s
      ]]):format(dir, ending))
      assert.equal(0, result.status, ending .. result.err)
    end
  end)

  it("says so where LMDB is missing", function()
    local result = support.program(([[
      package.preload["weir.brokers.lmdb"] = function() error("no such library") end
      local kept, err = require("weir.broker.memory.store").open(%q)
      io.write(tostring(kept), " ", err.code, " ", err.message)
    ]]):format(dir))
    assert.matches("^nil unsupported .*liblmdb%-dev", result.out)
  end)

  -- --- kill -9 ----------------------------------------------------------------------------------

  -- Runs the child until it has printed `lines` lines; kills it. Adds what it said to the sets.
  local function kill_child(sync, lines, said)
    local command = ("store_child.lua %s %s"):format(dir, sync and "sync" or "nosync")
    helper.kill(command, lines, function(kind, id)
      said[kind][id] = true
    end)
  end

  local function check(deliveries, said)
    local seen, previous = {}, 0
    for _, each in ipairs(deliveries) do
      local name = each.key .. ":" .. each.id
      assert.is_nil(seen[name], name .. " is there twice")
      seen[name] = true
      assert.is_true(each.id >= previous)
      previous = each.id
      assert.equal(1, each.message.payload:find(("payload %d "):format(each.id), 1, true))
      assert.equal(tostring(each.id), each.message.headers.number)
      assert.equal(each.id / 2, each.message.time)
    end
    for id in pairs(said.p) do
      if not said.s[id] then
        assert.is_true(seen["first:" .. id], "confirmed and lost: " .. id)
        assert.is_true(id % 3 ~= 0 or seen["second:" .. id], "confirmed and lost in the second: " .. id)
      end
    end
    for id in pairs(said.a) do
      assert.is_nil(seen["first:" .. id], "settled and there: " .. id)
      assert.is_nil(seen["second:" .. id], "settled and there: " .. id)
    end
  end

  for _, sync in ipairs({ true, false }) do
    it("survives kill -9 at any moment " .. (sync and "(sync)" or "(no sync)"), function()
      kept:close()
      math.randomseed(sync and 1 or 2)
      local said = { p = {}, s = {}, a = {}, t = {} }
      for _ = 1, 8 do
        kill_child(sync, math.random(1, 600), said)
        local _, deliveries = open({ sync = sync })
        check(deliveries, said)
        kept:close()
      end
      assert.is_truthy(next(said.a))
    end)
  end
end)
