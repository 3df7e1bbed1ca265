--- Servers that are not ours for the specs of HTTP: nginx, tinyproxy and node, each on free loopback ports,
-- and certificates for them.
local json = require("cjson")
local clean_environment = require("spec.environment")
local luv = require("luv")
local shell = require("spec.house.shell")
local support = require("spec.lua.support")

local peers = {}

--- The first of these programs that is not installed; nil when all are.
function peers.missing(...)
  for _, name in ipairs({ ... }) do
    if not os.execute(("PATH=$PATH:/usr/sbin command -v %s >/dev/null 2>&1"):format(name)) then
      return name
    end
  end
end

function peers.read_file(path)
  return assert(shell.read(path), path)
end

--- A new directory; `peers.remove(dir)` removes it and all in it.
function peers.directory()
  return assert(luv.fs_mkdtemp((os.getenv("TMPDIR") or "/tmp") .. "/weir-peers.XXXXXX"))
end

function peers.remove(dir)
  assert(os.execute(("rm -rf '%s'"):format(dir)))
end

-- --- certificates -------------------------------------------------------------------------------

local AUTHORITY = [[openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2
  -keyout %s.key -out %s.pem -subj /CN=%s -addext basicConstraints=critical,CA:TRUE]]
local REQUEST = [[openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes
  -keyout %s.key -out %s.csr -subj /CN=%s]]
local SIGN = [[openssl x509 -req -in %s.csr -CA %s.pem -CAkey %s.key -CAcreateserial -days %d
  -extfile %s.ext -out %s.pem]]

local function openssl(command, ...)
  command = command:format(...):gsub("\n", " ")
  assert(os.execute(command .. " >/dev/null 2>&1"), command)
end

--- Makes an authority: the files `name`.pem and `name`.key in the directory.
-- @return the name without its ending
function peers.authority(dir, name)
  local path = dir .. "/" .. name
  openssl(AUTHORITY, path, path, name)
  return path
end

--- Makes a certificate, signed by an authority, for localhost and 127.0.0.1.
-- @tparam table opts `names` ("DNS:localhost,IP:127.0.0.1"), `days` (2; -1: it has expired)
-- @return the name without its ending
function peers.certificate(authority, name, opts)
  opts = opts or {}
  local path = authority:match("^.*/") .. name
  shell.write(path .. ".ext", "subjectAltName=" .. (opts.names or "DNS:localhost,IP:127.0.0.1") .. "\n")
  openssl(REQUEST, path, path, name)
  openssl(SIGN, path, authority, authority, opts.days or 2, path, path)
  return path
end

-- --- programs -----------------------------------------------------------------------------------

local Program = {}
Program.__index = Program

-- nginx is not where everybody's programs are.
local function environment()
  return clean_environment({ PATH = os.getenv("PATH") .. ":/usr/sbin" })
end

--- Starts a program that ends with us, whatever ends us.
-- @tparam string name
-- @tparam table args
-- @tparam[opt] table stdio as for luv.spawn; nothing when left out
-- @treturn table with `await(port)`, `signal(name)`, `stop()`
function peers.start(name, args, stdio)
  table.move(args, 1, #args, 5)
  args[1], args[2], args[3], args[4] = "--pdeathsig", "SIGTERM", "--", name
  local self = setmetatable({ name = name }, Program)
  local pid
  self.handle, pid = luv.spawn("setpriv", { args = args, env = environment(), stdio = stdio or {} }, function()
    self.ended = true
  end)
  assert(self.handle, pid)
  return self
end

--- Sends it a signal, such as "sighup".
function Program:signal(name)
  self.handle:kill(name)
end

--- Ends it, at once unless another signal is given, and waits for its end.
function Program:stop(signal)
  if not self.ended then
    self.handle:kill(signal or "sigterm")
  end
  support.eventually(function()
    return self.ended
  end, 10)
  support.close(self.handle)
  if self.stdin then
    support.close(self.stdin)
  end
end

--- A port of 127.0.0.1 that nobody listens on.
function peers.free_port()
  local probe = luv.new_tcp()
  assert(probe:bind("127.0.0.1", 0))
  local port = probe:getsockname().port
  support.close(probe)
  return port
end

local function connects(port)
  local state
  local probe = luv.new_tcp()
  probe:connect("127.0.0.1", port, function(err)
    state = err and "refused" or "open"
  end)
  support.eventually(function()
    return state
  end)
  support.close(probe)
  return state == "open"
end

--- Waits until somebody listens on the port.
function Program:await(port)
  support.eventually(function()
    if self.ended then
      error(("%s did not start: see %s"):format(self.name, self.log or "what it wrote"), 0)
    end
    return connects(port)
  end, 10)
  return self
end

--- Starts nginx.
-- @tparam string dir for its files
-- @tparam string http the contents of the block `http`
-- @tparam number port that it listens on when it is ready
-- @treturn table with `stop()`, `signal(name)`
function peers.nginx(dir, http, port)
  local conf = dir .. "/nginx.conf"
  shell.write(conf, ([[
    daemon off;
    %s
    pid %s/nginx.pid;
    error_log %s/error.log;
    worker_processes 1;
    events { worker_connections 512; }
    http {
      access_log off;
      client_max_body_size 0;
      client_body_temp_path %s/client;
      proxy_temp_path %s/proxy;
      fastcgi_temp_path %s/fastcgi;
      uwsgi_temp_path %s/uwsgi;
      scgi_temp_path %s/scgi;
      %s
    }
  ]]):format(luv.getuid() == 0 and "user root root;" or "", dir, dir, dir, dir, dir, dir, dir, http))
  local self = peers.start("nginx", { "-p", dir, "-c", conf, "-e", dir .. "/error.log" })
  self.log = dir .. "/error.log"
  return self:await(port)
end

--- Starts tinyproxy.
-- @tparam string dir for its files
-- @tparam string lines of its configuration
-- @treturn table with `url`, `port`, `stop()`, `requests()`: the lines of its log about requests
function peers.tinyproxy(dir, lines)
  local port = peers.free_port()
  local conf, log = ("%s/tinyproxy-%d.conf"):format(dir, port), ("%s/tinyproxy-%d.log"):format(dir, port)
  shell.write(conf, ("Port %d\nListen 127.0.0.1\nTimeout 60\nLogFile \"%s\"\nLogLevel Info\n%s\n"):format(port, log,
    lines or ""))
  local self = peers.start("tinyproxy", { "-d", "-c", conf })
  self.log, self.port, self.url = log, port, "http://127.0.0.1:" .. port
  return self:await(port)
end

--- Starts the servers of http_server.mjs.
-- @tparam string cert the name of key and certificate without their endings
-- @treturn table with `ports`, `stop()`
function peers.node(cert)
  local stdin, stdout = luv.new_pipe(), luv.new_pipe()
  local self = peers.start("node", { "spec/lua/http_server.mjs", cert .. ".key", cert .. ".pem" }, { stdin, stdout, 2 })
  local text = ""
  stdout:read_start(function(_, data)
    text = text .. (data or "")
  end)
  support.eventually(function()
    return self.ended or text:find("\n")
  end, 30)
  support.close(stdout)
  self.stdin = stdin
  self.ports = json.decode(text)
  return self
end

return peers
