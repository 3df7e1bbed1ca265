local found, lmdb = pcall(require, "weir.brokers.lmdb")
local memory_dir = require("spec.house.shell").scratch

describe("weir.brokers.lmdb", function()
  if not found then
    pending("this build has no LMDB")
    return
  end

  local dir, remove, env

  before_each(function()
    dir, remove = memory_dir()
    env = assert(lmdb.open(dir, { databases = { "items" } }))
  end)

  after_each(function()
    env:close()
    remove()
  end)

  local function commit(...)
    local batch = lmdb.batch()
    for _, pair in ipairs({ ... }) do
      batch:put(1, pair[1], pair[2])
    end
    assert(env:commit(batch))
  end

  local function all(...)
    local snapshot, list = assert(env:snapshot()), {}
    for key, value in snapshot:range(1, ...) do
      list[#list + 1] = key .. "=" .. value
    end
    snapshot:close()
    return table.concat(list, " ")
  end

  -- Waits for the thread without a loop.
  local function result()
    while true do
      local ok, code, message = env:result()
      if ok or code then
        return ok, code, message
      end
    end
  end

  it("commits a batch as a whole, and keeps it across opening again", function()
    local batch = lmdb.batch()
    batch:put(1, "a", "1")
    batch:put(1, "b", "2", "3", "")
    batch:del(1, "a")
    batch:del(1, "never there")
    batch:put(0, "main", "")
    assert.equal(5, #batch)
    assert.is_true(env:commit(batch))
    env:close()
    env = assert(lmdb.open(dir, { databases = { "items" } }))
    local snapshot = env:snapshot()
    assert.is_nil(snapshot:get(1, "a"))
    assert.equal("23", snapshot:get(1, "b"))
    assert.equal("", snapshot:get(0, "main"))
  end)

  it("keeps integer keys in their order", function()
    local batch = lmdb.batch()
    for _, id in ipairs({ 300, 2, 70000, 0, 256 }) do
      batch:append(1, id, tostring(id))
    end
    assert(env:commit(batch))
    local snapshot, list = env:snapshot(), {}
    for _, value in snapshot:range(1, 2, 300) do
      list[#list + 1] = value
    end
    assert.same({ "2", "256", "300" }, list)
    assert.equal("70000", snapshot:get(1, 70000))
  end)

  it("reads ranges with one end, both, none, and nothing between them", function()
    commit({ "a", "1" }, { "b", "2" }, { "c", "3" })
    assert.equal("a=1 b=2 c=3", all())
    assert.equal("b=2 c=3", all("aa"))
    assert.equal("a=1 b=2", all(nil, "b"))
    assert.equal("b=2", all("b", "b"))
    assert.equal("", all("bb", "bc"))
    assert.equal("", all("d"))
  end)

  it("shows a snapshot what was there when it was made", function()
    commit({ "a", "1" })
    local snapshot = env:snapshot()
    commit({ "a", "2" })
    assert.equal("1", snapshot:get(1, "a"))
    assert.equal("a=2", all())
  end)

  it("commits parts of a batch, and can cut it", function()
    local batch = lmdb.batch()
    batch:put(1, "a", "1")
    local first = batch:position()
    batch:put(1, "b", "2")
    local second = batch:position()
    batch:put(1, "c", "3")
    assert(env:commit(batch, first, second))
    assert.equal("b=2", all())
    batch:cut(first)
    assert.equal(1, #batch)
    local other = lmdb.batch()
    other:put(1, "d", "4")
    batch:join(other)
    assert(env:commit(batch))
    assert.equal("a=1 b=2 d=4", all())
    assert.has_error(function()
      env:commit(batch, 1)
    end, "bad argument #2 to 'commit' (it is none of the positions that the batch had)")
    assert.has_error(function()
      batch:cut(3)
    end)
    batch:clear()
    assert.equal(0, #batch)
  end)

  it("commits in its thread, and guards the batch meanwhile", function()
    local batch = lmdb.batch()
    batch:put(1, "a", ("x"):rep(100000))
    assert.is_nil(env:result())
    assert(env:submit(batch))
    assert.has_error(function()
      batch:put(1, "b", "")
    end, "the batch is being committed")
    local other = lmdb.batch()
    other:put(1, "c", "")
    assert.equal("busy", (select(2, env:submit(other))))
    assert.equal("busy", (select(2, env:commit(other))))
    assert.is_true(result())
    assert.is_nil(env:result())
    batch:clear()
    assert.is_true(env:commit(other))
    assert.equal(100004, #all() - 1)
  end)

  it("tells its size at any time, also while the thread moves the map", function()
    local batch, most = lmdb.batch(), 0
    for id = 1, 100 do
      batch:append(1, id, ("x"):rep(100000))
    end
    env:close()
    for round = 1, 2 do
      os.remove(dir .. "/data.mdb")
      env = assert(lmdb.open(dir, { databases = { "items" }, max_size = 1 << 28, sync = false }))
      assert(env:submit(batch))
      local done
      repeat
        most = math.max(most, (env:size()))
        done = env:result()
      until done
      assert.is_true(env:size() > 10e6 and env:size() >= most, round)
      env:close()
    end
  end)

  it("grows up to its greatest size, and further for deletions only", function()
    env:close()
    env = assert(lmdb.open(dir, { databases = { "items" }, size = 65536, max_size = 1048576 }))
    local count = 0
    local function add(id)
      local batch = lmdb.batch()
      batch:append(1, id, ("x"):rep(3000))
      return env:commit(batch)
    end
    while add(count) do
      count = count + 1
    end
    assert.equal("full", (select(2, add(count))))
    assert.is_true(count > 150, count)
    local _, most = env:size()
    assert.equal(1048576, most)
    local batch = lmdb.batch()
    for id = 0, count do
      batch:del(1, id)
    end
    assert.is_true(env:commit(batch, 0, batch:position(), true))
    assert.equal("", all())
    for id = 1, 100 do
      assert(add(id))
    end
  end)

  it("lets one user have a directory, in this process too", function()
    local _, code, message = lmdb.open(dir)
    assert.equal("locked", code)
    assert.equal("another process uses this directory", message)
    env:close()
    assert(lmdb.open(dir)):close()
  end)

  it("says what is in the way of opening", function()
    local _, code = lmdb.open(dir .. "/no/such")
    assert.equal("not_found", code)
    _, code = lmdb.open(dir .. "/data.mdb")
    assert.equal("not_found", code)
  end)

  it("raises for use after close, and closes whatever was open", function()
    commit({ "a", "1" }, { "b", "2" })
    local snapshot = env:snapshot()
    local pairs_of = snapshot:range(1)
    pairs_of()
    env:close()
    env:close()
    for _, use in ipairs({
      function() env:commit(lmdb.batch()) end,
      function() env:snapshot() end,
      function() env:size() end,
      function() env:fd() end,
    }) do
      assert.has_error(use, "the environment is closed")
    end
    assert.has_error(function() snapshot:get(1, "a") end, "the snapshot is closed")
    assert.has_error(function() snapshot:range(1) end, "the snapshot is closed")
    assert.has_error(pairs_of, "the snapshot is closed")
    snapshot:close()
    assert.equal("weir.lmdb.env: closed", tostring(env))
  end)

  it("raises for keys, databases and batches that cannot be", function()
    local batch = lmdb.batch()
    assert.has_error(function() batch:put(1, "", "") end)
    assert.has_error(function() batch:put(1, ("k"):rep(512), "") end)
    assert.has_error(function() batch:put(1, -1, "") end)
    assert.has_error(function() batch:put(1, 1.5, "") end)
    assert.has_error(function() batch:put(1, "k", {}) end)
    assert.has_error(function() batch:put(99, "k", "") end)
    assert.has_error(function() batch:join(batch) end)
    batch:put(2, "k", "")
    assert.has_error(function() env:commit(batch) end)
    assert.has_error(function() env:commit("batch") end)
    assert.has_error(function() env:snapshot():get(2, "k") end)
    assert.has_error(function() lmdb.open(dir, { size = 0 }) end)
  end)

  it("leaves nothing behind when all is collected in any order", function()
    for _ = 1, 20 do
      local here, done = memory_dir()
      do
        local batch = lmdb.batch()
        batch:put(1, "a", ("x"):rep(10000))
        local other = assert(lmdb.open(here, { databases = { "items" } }))
        assert(other:commit(batch))
        local snapshot = other:snapshot()
        snapshot:range(1)()
        snapshot:close()
        other:snapshot():range(1)()
        batch:put(1, "b", "")
        other:submit(batch)
      end
      collectgarbage()
      collectgarbage()
      done()
    end
  end)

  describe("with a file that is damaged", function()
    local path, used

    before_each(function()
      path = dir .. "/data.mdb"
      local batch = lmdb.batch()
      for id = 1, 2000 do
        batch:append(1, id, ("v"):rep(id % 50 == 0 and 9000 or 100))
      end
      assert(env:commit(batch))
      batch:clear()
      for id = 1, 400 do
        batch:del(1, id)
      end
      assert(env:commit(batch))
      assert(env:commit(batch)) -- now there are free pages
      used = env:size()
      env:close()
    end)

    local function read()
      local file = assert(io.open(path, "rb"))
      local bytes = file:read("a")
      file:close()
      return bytes
    end

    local function write(bytes)
      local file = assert(io.open(path, "wb"))
      file:write(bytes)
      file:close()
    end

    -- Opens it, reads everything, and rewrites much of it. Whatever the bytes are, that ends well or with an error.
    local function try()
      local other, code = lmdb.open(dir, { databases = { "items" } })
      if not other then
        return code
      end
      local snapshot = other:snapshot()
      local ok = pcall(function()
        for _ in snapshot:range(1) do end
      end)
      snapshot:close()
      local changes = lmdb.batch()
      for id = 401, 900 do
        changes:del(1, id)
        changes:put(1, 4000 + id, "w")
      end
      ok = other:commit(changes) and other:commit(changes) and ok
      other:close()
      return ok and "good" or "unreadable"
    end

    it("refuses one that is cut off", function()
      local bytes = read()
      assert.equal("good", try())
      for _, part in ipairs({ 0.99, 0.5, 0.1 }) do
        write(bytes:sub(1, math.floor(used * part)))
        assert.equal("damaged", try())
      end
      write(bytes:sub(1, 100))
      assert.equal("damaged", try())
    end)

    it("refuses one that is something else", function()
      write(("this is no database "):rep(1000))
      assert.equal("damaged", try())
    end)

    it("refuses pages that were overwritten", function()
      local bytes = read()
      local refused = 0
      for page = 2, used // 4096 - 1, 7 do
        write(bytes:sub(1, page * 4096) .. ("\xa5"):rep(4096) .. bytes:sub((page + 1) * 4096 + 1))
        refused = refused + (try() == "damaged" and 1 or 0)
      end
      assert.is_true(refused > 5, refused)
    end)

    it("survives any byte in the places that lead through the file", function()
      local bytes = read()
      math.randomseed(1)
      for n = 1, 600 do
        local page = math.random(0, used // 4096 - 1)
        local at = page * 4096 + math.random(0, 40)
        if n % 2 == 0 then -- in a node
          page = math.random(2, used // 4096 - 1)
          at = page * 4096 + (string.unpack("<I2", bytes, page * 4096 + 17) + math.random(0, 16)) % 4096
        elseif n % 3 == 0 then -- in the first pages
          at = math.random(0, 1) * 4096 + math.random(0, 160)
        end
        write(bytes:sub(1, at) .. string.char(math.random(0, 255)) .. bytes:sub(at + 2))
        assert.is_string(try())
      end
    end)
  end)
end)
