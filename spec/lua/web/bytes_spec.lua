local errors = require("weir.errors")
local luv = require("luv")
local runtime = require("weir.runtime")
local tasks = require("weir.task")
local support = require("spec.lua.support")
local eventually, fails = support.eventually, support.fails

-- Two ends of a connection as bytes; `kind` is "memory" or "tcp".
local function ends(kind, opts)
  if kind == "memory" then
    local a, b = runtime.pair()
    return assert(runtime.bytes(a, opts)), assert(runtime.bytes(b, opts))
  end
  local accepted
  local listener = assert(runtime.listen("tcp://127.0.0.1:0", nil, function(conn)
    accepted = runtime.bytes(conn, opts)
  end))
  local a = assert(runtime.bytes(assert(runtime.dial(listener.url)), opts))
  local b = eventually(function()
    return accepted
  end)
  listener:close()
  return a, b
end

for _, kind in ipairs({ "memory", "tcp" }) do
  describe("runtime.bytes over " .. kind, function()
    it("gives what the other side wrote, in order, and the end", function()
      tasks.run(function()
        local a, b = ends(kind)
        assert.is_true(a:write("one "))
        assert.is_true(a:write("two"))
        a:finish()
        local text = ""
        for piece in function()
          return (b:read(5))
        end do
          text = text .. piece
        end
        assert.equal("one two", text)
        fails("closed", b:read(5))
        b:close()
        eventually(function()
          return not a.open
        end)
        fails("closed", a:write("more"))
      end)
    end)

    it("lets the writer wait while the reader does not take, and loses nothing", function()
      tasks.run(function()
        local a, b = ends(kind, { buffer = 65536 })
        local sent, piece = 0, ("0123456789abcdef"):rep(4096)
        local writer = tasks.spawn(function()
          for _ = 1, 400 do
            assert(a:write(piece, 20))
            sent = sent + 1
          end
          a:finish()
        end)
        local before
        eventually(function() -- it stands still
          local same = before == sent
          before = sent
          tasks.sleep(0.02)
          return same
        end)
        assert.is_true(sent < 400)
        local got = 0
        while true do
          local data = b:read(5)
          if not data then
            break
          end
          assert(data == piece:rep(math.ceil(#data / #piece) + 1):sub(got % 16 + 1, got % 16 + #data))
          got = got + #data
        end
        assert(writer:join(5) == nil)
        assert.equal(400 * #piece, got)
        b:close()
      end)
    end)

    it("ends waits by their timeout and by cancellation", function()
      tasks.run(function()
        local a, b = ends(kind)
        fails("timeout", a:read(0.01))
        local reader = tasks.spawn(function()
          return a:read()
        end)
        tasks.sleep(0.005)
        reader:cancel()
        local _, err = reader:join(5)
        assert.is_true(errors.is(err, "cancelled"))
        a:close()
        fails("closed", a:read(1))
        b:close()
      end)
    end)

    it("closes a connection that cannot be finished in time", function()
      tasks.run(function()
        local a, b = ends(kind, { buffer = 4096 })
        fails("timeout", a:write(("x"):rep(64 * 1024 * 1024), 0.05))
        a:finish(0.05)
        eventually(function()
          return not a.open
        end)
        b:close()
      end)
    end)
  end)
end

describe("runtime.bytes", function()
  it("can be written to when the other side sends no more, and is read to the end first", function()
    tasks.run(function()
      local accepted, told = nil, 0
      local listener = assert(runtime.listen("tcp://127.0.0.1:0", nil, function(conn)
        accepted = runtime.bytes(conn)
        accepted.on_end = function()
          told = told + 1
        end
      end))
      local socket, got, over = luv.new_tcp(), "", false
      socket:connect("127.0.0.1", tonumber(listener.url:match("%d+$")), function()
        socket:write("question")
        socket:shutdown()
        socket:read_start(function(_, data)
          got, over = got .. (data or ""), data == nil
        end)
      end)
      eventually(function()
        return told > 0
      end)
      assert.equal("question", accepted:read(5))
      fails("closed", accepted:read(5))
      for i = 1, 3 do
        assert(accepted:write(tostring(i)))
        tasks.sleep(0.002)
      end
      assert.is_true(accepted.open)
      assert.is_false(over)
      accepted:finish()
      eventually(function()
        return over and not accepted.open
      end)
      assert.equal("123", got)
      assert.equal(1, told)
      support.close(socket)
      listener:close()
    end)
  end)
end)
