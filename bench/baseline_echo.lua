--- Ping-pong over TCP loopback with luv alone: the baseline of the latency benchmark.
--
--     baseline_echo.lua serve               prints port=N, echoes one connection until it ends
--     baseline_echo.lua ping PORT SIZE COUNT
--                                           sends SIZE bytes COUNT times, each after the answer to the
--                                           one before, and prints count=N p50=US p99=US seconds=S
--     baseline_echo.lua                     both, in processes and on CPUs of their own: 100 bytes

local uv = require("luv")
local support = dofile("bench/support.lua")

local function serve()
  local listener = assert(uv.new_tcp())
  assert(listener:bind("127.0.0.1", 0))
  assert(listener:listen(1, function(err)
    assert(not err, err)
    local connection = assert(uv.new_tcp())
    assert(listener:accept(connection))
    assert(connection:nodelay(true))
    listener:close()
    connection:read_start(function(failed, bytes)
      if bytes then
        connection:write(bytes)
      else
        assert(not failed or failed:find("ECONNRESET", 1, true), failed)
        connection:close()
      end
    end)
  end))
  print("port=" .. listener:getsockname().port)
  io.stdout:flush()
  uv.run()
end

local function ping(port, size, count)
  local payload = ("x"):rep(size)
  local times, sent, missing = {}, 0, 0
  local warm_up = math.min(1000, count)
  local connection = assert(uv.new_tcp())

  local function send()
    missing = size
    sent = uv.hrtime()
    connection:write(payload)
  end

  local rounds, begin = 0, nil
  local function on_answer()
    local now = uv.hrtime()
    rounds = rounds + 1
    if rounds == warm_up then
      begin = now
    elseif rounds > warm_up then
      times[rounds - warm_up] = (now - sent) / 1000
    end
    if #times < count then
      return send()
    end
    connection:close()
    print(("count=%d p50=%.2f p99=%.2f seconds=%.6f"):format(count, support.percentile(times, 50),
      support.percentile(times, 99), (now - begin) / 1e9))
  end

  assert(connection:connect("127.0.0.1", port, function(err)
    assert(not err, err)
    assert(connection:nodelay(true))
    connection:read_start(function(failed, bytes)
      assert(not failed, failed)
      missing = missing - #assert(bytes, "the server closed the connection")
      if missing == 0 then
        on_answer()
      end
    end)
    send()
  end))
  uv.run()
end

local function both()
  local server = support.spawn(support.lua(arg[0], "serve"), { cpu = 1 })
  local client = support.spawn(support.lua(arg[0], "ping", server:fields().port, 100, 20000), { cpu = 0 })
  local result = client:result()
  server:finish()
  print(("luv echo, 100 bytes: p50 %.1f us, p99 %.1f us"):format(result.p50, result.p99))
end

local mode = arg[1]
if mode == "serve" then
  serve()
elseif mode == "ping" and #arg == 4 then
  ping(assert(math.tointeger(arg[2])), assert(math.tointeger(arg[3])), assert(math.tointeger(arg[4])))
elseif mode == nil then
  both()
else
  io.stderr:write("usage: baseline_echo.lua [serve | ping PORT SIZE COUNT]\n")
  os.exit(2)
end
