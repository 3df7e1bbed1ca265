--- HTTP/2 of the carrier against the server of node: streams beside each other, resets, GOAWAY.
local json = require("cjson")
local luv = require("luv")
local peers = require("spec.lua.peers")
local runtime = require("weir.runtime")
local support = require("spec.lua.support")

local fails = support.fails
local MIB = 1024 * 1024

describe("HTTP/2", function()
  local missing = peers.missing("node", "openssl", "setpriv")
  if missing then
    it("is tested where node is installed", function()
      pending(missing .. " is not installed")
    end)
    return
  end

  local dir, ca, node, client

  setup(function()
    dir = peers.directory()
    ca = peers.authority(dir, "ca") .. ".pem"
    node = peers.node(peers.certificate(dir .. "/ca", "server"))
  end)

  teardown(function()
    node:stop()
    peers.remove(dir)
  end)

  before_each(function()
    client = runtime.http({ ca = ca })
  end)

  after_each(function()
    client:close()
  end)

  local function get(path, more)
    local opts = { url = ("https://localhost:%d/%s"):format(node.ports.h2, path), timeout = 10 }
    for name, value in pairs(more or {}) do
      opts[name] = value
    end
    return client:request(opts)
  end

  local function stats()
    local own = runtime.http()
    local text = assert(own:request({ url = ("http://127.0.0.1:%d/stats"):format(node.ports.plain) })):body()
    own:close()
    return json.decode((text))
  end

  -- How many connections fn makes, besides those of stats().
  local function connections(fn)
    local before = stats().connections
    fn()
    return stats().connections - before - 1
  end

  describe("an answer that nobody reads", function()
    for _, size in ipairs({ 1, 16, 100 }) do
      it(("does not hold up others on its connection: of %d MiB"):format(size), function()
        local made = connections(function()
          local unread = assert(get(("bytes?n=%d"):format(size * MIB), { timeout = 60 }))
          for i = 1, 20 do
            local res = assert(get("bytes?n=" .. i * 100000))
            assert.equal(i * 100000, #assert(res:body()))
            res = assert(get("echo", { method = "POST", body = ("x"):rep(i * 50000) }))
            assert.equal(i * 50000, #assert(res:body()))
          end
          assert.equal(size * MIB, #assert(unread:body("1 GiB")))
        end)
        assert.equal(1, made)
      end)
    end

    it("leaves nothing behind for the next one when it is closed", function()
      local other = assert(get("stall"))
      local unread = assert(get("bytes?n=" .. 10 * MIB))
      support.eventually(function()
        return stats().written == 10 * MIB
      end)
      -- An answer that ends does so after what has come for the unread one.
      assert(assert(get("bytes?n=100000")):body())
      unread:close()
      local res = assert(get("bytes?n=" .. 2 * MIB))
      support.eventually(function()
        return stats().written == 2 * MIB
      end)
      assert(assert(get("echo")):body())
      assert.equal(2 * MIB, #assert(res:body()))
      other:close()
    end)

    -- libcurl lets a server send 32 MiB ahead, and its buffer grows by doubling.
    it("is kept within bounds, as are many of them, and can still be read", function()
      -- A sanitizer would keep what is freed.
      local options = os.getenv("ASAN_OPTIONS")
      luv.os_setenv("ASAN_OPTIONS", (options and options .. ":" or "") .. "quarantine_size_mb=1")
      local result = support.program(([[
        local luv = require("luv")
        local runtime, tasks = require("weir.runtime"), require("weir.task")
        local client = runtime.http({ ca = %q })
        local size, unread, before = 150 * 1024 * 1024, {}, luv.resident_set_memory()
        for i = 1, 3 do
          unread[i] = assert(client:request({ url = %q .. size }))
        end
        local now, last = 0, nil
        repeat
          last = now
          tasks.sleep(0.1)
          now = luv.resident_set_memory()
        until now == last
        assert(now - before < 3 * 64 * 1024 * 1024, now - before)
        local total = 0
        for piece in function() return assert(unread[1]:read(10)) end do
          total = total + #piece
          if total == size then break end
        end
        for i = 2, 3 do
          unread[i]:close()
        end
        assert(luv.resident_set_memory() - before < 4 * 64 * 1024 * 1024)
        print(total == size and "all of it")]]):format(ca, ("https://localhost:%d/bytes?n="):format(node.ports.h2)))
      if options then
        luv.os_setenv("ASAN_OPTIONS", options)
      else
        luv.os_unsetenv("ASAN_OPTIONS")
      end
      assert.equal("", result.err)
      assert.equal("all of it\n", result.out)
    end)
  end)

  describe("a stream that the server resets", function()
    for name, code in pairs({ INTERNAL_ERROR = 2, CANCEL = 8, ENHANCE_YOUR_CALM = 11 }) do
      it("is a broken connection, and the others go on: " .. name, function()
        local made = connections(function()
          local other = assert(get("slow?ms=40"))
          local err = fails("network", get("cancel?code=" .. code))
          assert.is_true(err.sent)
          local res = assert(get("cancel?after&code=" .. code))
          assert.equal("begun", res:read(5))
          err = fails("network", res:read(5))
          assert.is_true(err.sent)
          assert.equal("xxxxx", assert(other:body()))
        end)
        assert.equal(1, made)
      end)
    end

    it("is not sent again if that could be once too often", function()
      local before = stats().posts
      local err = fails("network", get("cancel?code=7", { method = "POST", body = "x" }))
      assert.is_true(err.sent)
      assert.equal(1, stats().posts - before)
    end)

    it("has an answer all the same, when the server only wants no more of the body", function()
      local res = assert(get("enough", { method = "POST", body = ("x"):rep(MIB) }))
      assert.equal(413, res.status)
      assert.equal("enough", res:body())
    end)
  end)

  describe("GOAWAY", function()
    it("lets what is under way end, and new requests go to a new connection", function()
      local made = connections(function()
        local other = assert(get("slow?ms=20"))
        assert.equal("last", assert(get("goaway?code=0")):body())
        assert.equal(200, assert(get("stats")).status)
        assert.equal("xxxxx", other:body())
        assert.equal(200, assert(get("stats")).status)
      end)
      assert.equal(2, made)
    end)

    it("with an error, and the end of the connection, breaks what is under way", function()
      local other = assert(get("stall"))
      assert.equal("begun", other:read(5))
      assert.is_true(fails("network", get("goaway?cut&code=2", { method = "POST", body = "x" })).sent)
      fails("network", other:read(5))
      assert.equal(200, assert(get("stats")).status)
    end)
  end)
end)
