--- Connections of the libuv runtime: dial, listen, pair.
-- @module weir.runtime.uv_net

local luv = require("luv")
local errors = require("weir.errors")
local url = require("weir.runtime.url")

local LINGER = 1 -- seconds that a connection may take to say goodbye
local TIMEOUT = 30 -- seconds for a dial that was given none
local BACKLOG = 511

-- By libuv's name of an error: our code, and what to say about it.
local reasons = {
  EACCES = { "denied", "permission denied: check the rights on the path, or use a port above 1023" },
  EADDRINUSE = { "in_use", "the address is in use: another program listens there; stop it or choose another" },
  EADDRNOTAVAIL = { "unavailable", "this machine has no such address" },
  ECONNREFUSED = { "refused", "nobody listens there: start the other side or check the address" },
  ECONNRESET = { "reset", "the peer broke the connection off" },
  EHOSTUNREACH = { "unreachable", "there is no way to that host" },
  EMFILE = { "limit", "too many open files in this process: raise the limit (ulimit -n)" },
  ENFILE = { "limit", "too many open files on this machine" },
  ENETUNREACH = { "unreachable", "there is no way to that network" },
  ENOENT = { "refused", "there is no such socket: start the other side or check the path" },
  ENOTDIR = { "refused", "a part of the path is no directory" },
  ENOTSOCK = { "refused", "what is there is no socket" },
  EPERM = { "denied", "the system does not permit it" },
  EPIPE = { "reset", "the peer broke the connection off" },
  EPROTOTYPE = { "refused", "the socket is of another kind" },
  ETIMEDOUT = { "timeout", "the peer does not answer" },
}
reasons.EAGAIN = { "refused", "the listener's queue is full: try again later" }

local function failure(name, what, text)
  local code, why = "failed", "system error " .. name
  if name:find("^EAI_") then
    code = "unresolved"
    why = ("the host name cannot be resolved (%s): check its spelling and the resolver"):format(name)
  elseif reasons[name] then
    code, why = reasons[name][1], reasons[name][2]
  end
  return errors.new(code, ("%s %s: %s"):format(what, text, why), { url = text, system = name })
end

local ended = {
  closed = "the connection was closed",
  limit = "the peer exceeded a limit",
  nomem = "out of memory",
  protocol = "the peer broke the protocol",
  reset = "the peer broke the connection off",
  timeout = "the peer did not answer in time",
  version = "the peer speaks a version that we do not",
}

local Conn = { __name = "weir.conn" }
Conn.__index = Conn

local Listener = { __name = "weir.listener" }
Listener.__index = Listener

return function(runtime, loop, schedule)
  -- Calls begin(done) and waits for done(err, value). begin() returns what to give up with, or nil
  -- and an error name. Returns value; or nil, error; or nil, name of a libuv error.
  local function await(deadline, begin, give_up)
    local waiter = runtime.waiter()
    local handle, name = begin(function(failed, value)
      waiter:wake(failed or false, value)
    end)
    if not handle then
      return nil, name
    end
    schedule()
    local failed, value = waiter:wait(deadline)
    if failed == false then
      return handle, value
    end
    give_up(handle)
    schedule()
    return nil, failed or value
  end

  local function cancel(request)
    request:cancel()
  end

  local function close(link)
    link:close()
  end

  local function is_numeric(host)
    return host:find(":", 1, true) or host:find("^%d+%.%d+%.%d+%.%d+$")
  end

  -- The numeric addresses of a host.
  local function resolve(target, deadline, what)
    if is_numeric(target.host) then
      return { target.host }
    end
    local request, list = await(deadline, function(done)
      return loop:resolve(target.host, tostring(target.port), done)
    end, cancel)
    if not request then
      return nil, type(list) == "string" and failure(list, what, target.text) or list
    elseif #list == 0 then
      return nil, failure("EAI_NONAME", what, target.text)
    end
    return list
  end

  local function new_conn(link, target, opts)
    return setmetatable({ link = link, url = target.text, linger = opts.linger or LINGER, state = "open" }, Conn)
  end

  local function timed_out(target, err)
    if errors.is(err, "timeout") then
      err = errors.new("timeout", ("cannot connect to %s in time: the peer does not answer"):format(target.text))
    end
    if errors.is(err) then
      err.url = target.text
    end
    return err
  end

  -- Tries addresses in turn; each may take its share of the time that is left.
  local function connect_tcp(target, deadline)
    local list, err = resolve(target, deadline, "cannot connect to")
    if not list then
      return nil, timed_out(target, err)
    end
    for i = 1, #list do
      local now = runtime.now()
      local share = now + (deadline - now) / (#list - i + 1)
      local link, why = await(share, function(done)
        return loop:connect_tcp(list[i], target.port, done)
      end, close)
      if link then
        return link
      elseif type(why) == "string" then
        err = failure(why, "cannot connect to", target.text)
      else
        err = timed_out(target, why)
        if err.code ~= "timeout" then
          break
        end
      end
    end
    return nil, err
  end

  local function connect_unix(target, deadline)
    local link, why = await(deadline, function(done)
      return loop:connect_unix(target.path, done)
    end, close)
    if link then
      return link
    elseif type(why) == "string" then
      return nil, failure(why, "cannot connect to", target.text)
    end
    return nil, timed_out(target, why)
  end

  local function no_transport(target, what)
    return nil, errors.new("bad_url", ("cannot %s %s: mem:// joins nodes of one process"):format(what, target.text), {
      url = target.text,
    })
  end

  --- Connects. Blocks.
  -- @tparam string text tcp://host:port or unix://path
  -- @tparam[opt] table opts `timeout` in seconds (30), `linger` (1)
  -- @return connection, or nil and an error
  function runtime.dial(text, opts)
    opts = errors.options("dial", opts, { timeout = "number", linger = "number" }, 2)
    local target, bad = url.parse(text)
    if not target then
      return nil, bad
    end
    local deadline = runtime.deadline(opts.timeout or TIMEOUT, 2) or math.huge
    local link, err
    if target.scheme == "mem" then
      return no_transport(target, "dial")
    elseif target.scheme == "unix" then
      link, err = connect_unix(target, deadline)
    elseif target.port == 0 then
      return nil, errors.new("bad_url", ("bad URL %q: port 0 is for listening only"):format(text), { url = text })
    else
      link, err = connect_tcp(target, deadline)
    end
    if not link then
      return nil, err
    end
    return new_conn(link, target, opts)
  end

  --- Starts to move bytes for an endpoint.
  -- @param endpoint userdata whose block begins with a `weir_endpoint *`
  -- @tparam[opt] function on_close called with nil or an error, in a turn, when all is over
  -- @treturn boolean true; or nil and an error
  function Conn:attach(endpoint, on_close)
    local ok, name = self.link:attach(endpoint, self.linger, function(status, system)
      self.state = "closed"
      local err
      if status then
        err = errors.new(status, ended[status] or status, { url = self.url, system = system })
      end
      if on_close then
        runtime.defer(on_close, err)
      end
    end)
    schedule()
    if not ok then
      self.state = "closed"
      return nil, failure(name, "cannot read from", self.url)
    end
    return true
  end

  --- Writes at once what it can, then closes. The endpoint is told, and `on_close` is called with an
  -- error of the code "closed", unless it was closed already.
  function Conn:close()
    self.state = "closed"
    self.link:close()
    schedule()
  end

  --- Bytes that arrived and bytes that left.
  -- @treturn table `received`, `sent`
  function Conn:stats()
    local received, sent = self.link:stats()
    return { received = received, sent = sent }
  end

  --- The peer's address, as a URL; nil for connections in memory.
  function Conn:peer()
    local host, port = self.link:peer()
    if host and host ~= "" then
      return url.tcp(host, port)
    end
    return self.url:find("^unix:") and self.url or nil
  end

  function Conn:__tostring()
    return ("weir.conn(%s, %s)"):format(self.url, self.state)
  end

  local function is_loopback(ip)
    return ip:find("^127%.") or ip == "::1" or ip:find("^::ffff:127%.")
  end

  local function listen_tcp(target, opts, accepted)
    local list, err = resolve(target, runtime.deadline(TIMEOUT), "cannot listen on")
    if not list then
      return nil, err
    end
    for i = 1, #list do
      if not opts.insecure and not is_loopback(list[i]) then
        return nil,
          errors.new(
            "insecure",
            ("will not listen on %s: %s can be reached from other machines, and connections are neither encrypted nor"
              .. " authenticated; listen on 127.0.0.1 or a unix socket, or say insecure = true"):format(
              target.text,
              list[i]
            ),
            { url = target.text }
          )
      end
    end
    local handle, name
    for i = 1, #list do
      handle, name = loop:listen_tcp(list[i], target.port, opts.backlog or BACKLOG, accepted)
      if handle then
        return handle, url.tcp(target.host, handle:port())
      end
    end
    return nil, failure(name, "cannot listen on", target.text)
  end

  -- Whether what is in the way is the file of a socket on which nobody listens any more.
  local function is_stale(target)
    local stat = luv.fs_stat(target.path)
    if not stat or stat.type ~= "socket" then
      return false
    end
    local link, err = connect_unix(target, runtime.deadline(1))
    if link then
      link:close()
      return false
    end
    return err.system == "ECONNREFUSED"
  end

  local function listen_unix(target, opts, accepted)
    local backlog = opts.backlog or BACKLOG
    local handle, name = loop:listen_unix(target.path, backlog, accepted)
    if not handle and name == "EADDRINUSE" and is_stale(target) then
      os.remove(target.path)
      handle, name = loop:listen_unix(target.path, backlog, accepted)
    end
    if not handle then
      local directory = target.path:match("^(.+)/[^/]*$")
      if directory and not luv.fs_stat(directory) then -- libuv says EACCES for that
        local why = ("cannot listen on %s: the directory %s does not exist"):format(target.text, directory)
        return nil, errors.new("denied", why, { url = target.text, system = "ENOENT" })
      end
      return nil, failure(name, "cannot listen on", target.text)
    end
    return handle, target.text
  end

  --- Listens. May block, to resolve a name or to look whether an old socket is still used.
  -- @tparam string text tcp://host:port (port 0: any) or unix://path
  -- @tparam[opt] table opts `insecure` (true: also on addresses that others reach), `backlog` (511),
  --   `linger` of the connections (1)
  -- @tparam function on_conn called with each connection, in a turn; it must not block
  -- @return listener with `url` (the real port in it) and `close()`; or nil and an error
  function runtime.listen(text, opts, on_conn)
    opts = errors.options("listen", opts, { insecure = "boolean", backlog = "number", linger = "number" }, 2)
    local target, bad = url.parse(text)
    if not target then
      return nil, bad
    end
    local listener = setmetatable({ state = "open" }, Listener)
    local function accepted(link)
      runtime.defer(on_conn, new_conn(link, { text = listener.url }, opts))
    end
    local handle, result
    if target.scheme == "mem" then
      return no_transport(target, "listen on")
    elseif target.scheme == "unix" then
      handle, result = listen_unix(target, opts, accepted)
    else
      handle, result = listen_tcp(target, opts, accepted)
    end
    schedule()
    if not handle then
      return nil, result
    end
    listener.handle, listener.url = handle, result
    return listener
  end

  --- Stops listening; connections that were accepted go on.
  function Listener:close()
    if self.state == "open" then
      self.state = "closed"
      self.handle:close()
      schedule()
    end
  end

  function Listener:__tostring()
    return ("weir.listener(%s, %s)"):format(self.url, self.state)
  end

  Listener.__close = Listener.close
  Conn.__close = Conn.close

  --- Two connections in memory, each the other's peer.
  -- @tparam[opt] string name for their `url`
  function runtime.pair(name)
    local a, b = loop:pair()
    local target = { text = name or "mem://pair" }
    return new_conn(a, target, {}), new_conn(b, target, {})
  end
end
