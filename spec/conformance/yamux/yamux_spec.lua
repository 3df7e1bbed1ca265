--- weir's yamux session against implementations that are not ours, over TCP. See PEER.md.
local uv = require("luv")
local core = require("weir.core")

local WINDOW = 256 * 1024
local MIB = 1024 * 1024
local TIMEOUT = 60 -- seconds that anything may take
local HERE = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$")

-- --- patterns ------------------------------------------------------------------------------------

local rows, blocks = {}, {}
for first = 0, 255 do
  local bytes = {}
  for i = 0, 255 do bytes[i + 1] = string.char((first + 7 * i) % 256) end
  rows[first] = table.concat(bytes)
end

--- The first 64 KiB of a stream with this key; then they repeat.
local function block(key)
  local first = 31 * key % 256
  if not blocks[first] then
    local parts = {}
    for i = 0, 255 do parts[i + 1] = rows[(first + i) % 256] end
    blocks[first] = table.concat(parts)
  end
  return blocks[first]
end

--- Whether `data` is what a stream with this key has at `offset`.
local function matches(key, offset, data)
  local expected, at = block(key), 1
  while at <= #data do
    local from = (offset + at - 1) % 65536
    local count = math.min(#data - at + 1, 65536 - from)
    if data:sub(at, at + count - 1) ~= expected:sub(from + 1, from + count) then return false end
    at = at + count
  end
  return true
end

-- --- a session on a socket -----------------------------------------------------------------------

local Link = {}
Link.__index = Link

--- Errors must not leave callbacks of the loop: they wait for the next wait_for().
function Link:guard(fn)
  return function(...)
    local ok, err = xpcall(fn, debug.traceback, ...)
    if not ok then self.failure = self.failure or err end
  end
end

function Link:wait_for(what, condition)
  local over = false
  local timer = uv.new_timer()
  timer:start(TIMEOUT * 1000, 0, function() over = true end)
  while not condition() and not self.failure and not over do uv.run("once") end
  timer:close()
  if self.failure then error(self.failure, 2) end
  if not condition() then error("waited in vain for " .. what, 2) end
end

local function now() return uv.hrtime() / 1e9 end

--- Writes what the session has to say, while the socket takes it.
function Link:write()
  while not self.closed and self.tcp:get_write_queue_size() < MIB do
    local bytes = self.session:output(256 * 1024, now())
    if bytes == "" then return end
    self.tcp:write(bytes, self:guard(function(err)
      if not err then self:flush() end
    end))
  end
end

--- Gives events to the handlers: a table of functions per stream, by the kind of event. Says whether
-- there were any.
function Link:dispatch()
  local any = false
  for kind, stream, value in self.session.next_event, self.session do
    any = true
    if kind == "stream" then self.handlers[stream] = self.on_stream(stream) end
    local handlers = stream and self.handlers[stream] or self
    if handlers[kind] then handlers[kind](value) end
  end
  return any
end

--- Does all that can be done now: events make output, and output() makes events.
function Link:flush()
  repeat self:write() until not self:dispatch()
end

function Link:received(err, data)
  if data then
    local ok, _, text = self.session:feed(data, now())
    if not ok then error("the session failed: " .. text) end
  else
    self.closed = true
    self.session:ended()
    if not err then self.tcp:shutdown() end
  end
  self:flush()
end

--- Opens a stream; the peer does what `line` says.
function Link:open(line, handlers)
  local stream = assert(self.session:open())
  self.handlers[stream] = handlers or {}
  assert(stream:write(line .. "\n"))
  return stream, self.handlers[stream]
end

--- Writes `total` bytes of the pattern as room comes, then half-closes.
function Link:send(stream, key, total)
  local offset, handlers = 0, self.handlers[stream]
  function handlers.writable()
    while offset < total do
      local from = offset % 65536
      local count = math.min(total - offset, 65536 - from)
      local ok, code = stream:write(block(key):sub(from + 1, from + count))
      if not ok then
        assert(code == "again", code)
        return
      end
      offset = offset + count
    end
    stream:shutdown()
    handlers.writable = nil
  end
  handlers.writable()
  self:flush()
end

--- Takes the pattern; returns a table with the count of bytes and whether they ended.
function Link:take(stream, key)
  local got, handlers = { bytes = 0 }, self.handlers[stream]
  function handlers.data(data)
    assert(matches(key, got.bytes, data), "the bytes of a stream differ")
    got.bytes = got.bytes + #data
    stream:consume(#data)
  end
  handlers["end"] = function() got.ended = true end
  function handlers.close(code) got.closed = code or "ok" end
  return got
end

--- Sends back all that comes, holding the peer up while it does not read.
local function echo(stream)
  stream:accept()
  local waiting, ended, handlers = {}, false, {}
  local function forward()
    while waiting[1] and stream:write(waiting[1]) do stream:consume(#table.remove(waiting, 1)) end
    if ended and not waiting[1] then stream:shutdown() end
  end
  function handlers.data(data)
    waiting[#waiting + 1] = data
    if #waiting == 1 then forward() end
  end
  handlers.writable = forward
  handlers["end"] = function()
    ended = true
    forward()
  end
  return handlers
end

--- The line that a stream is answered with.
function Link:answer(stream)
  local text, handlers, ended = "", self.handlers[stream], false
  function handlers.data(data)
    text = text .. data
    stream:consume(#data)
  end
  handlers["end"] = function() ended = true end
  self:flush()
  self:wait_for("the peer's answer", function() return ended end)
  return (text:gsub("\n$", ""))
end

--- Waits until all that left us so far has been dealt with by the peer.
function Link:round_trip()
  local answered = false
  function self.pong() answered = true end
  assert(self.session:ping(now()))
  self:flush()
  self:wait_for("the answer to a ping", function() return answered end)
end

function Link:wait_for_line(line)
  self:wait_for("'" .. line .. "' from the peer", function() return self.lines[line] end)
end

function Link:close()
  for _, handle in ipairs({ self.tcp, self.stdout, self.process }) do
    if not handle:is_closing() then handle:close() end
  end
end

--- Lines that the peer prints.
function Link:heard(_, data)
  self.partial = self.partial .. (data or "")
  for line in self.partial:gmatch("([^\n]*)\n") do
    self.lines[line] = true
    self.port = self.port or tonumber(line:match("^port (%d+)$"))
    if line:match("^error") or line:match("^bad") then error("the peer: " .. line) end
  end
  self.partial = self.partial:match("[^\n]*$")
end

--- Starts a peer and connects to it; ours is yamux's client or server as `role` says.
local function connect(command, role, options, close_timeout)
  local self = setmetatable({ handlers = {}, lines = {}, partial = "" }, Link)
  self.on_stream = echo
  options = options or {}
  options.client = role == "client"
  self.session = core.yamux(options)
  self.stdout, self.tcp = uv.new_pipe(false), uv.new_tcp()
  local args = { table.unpack(command, 2) }
  args[#args + 1] = role == "client" and "server" or "client"
  args[#args + 1] = close_timeout
  self.process = assert(uv.spawn(command[1], { args = args, stdio = { nil, self.stdout, 2 } },
    self:guard(function() self.exited = true end)))
  self.stdout:read_start(self:guard(function(...) self:heard(...) end))
  self:wait_for("the peer's port", function() return self.port end)
  local connected = false
  self.tcp:connect("127.0.0.1", self.port, self:guard(function(err)
    assert(not err, err)
    connected = true
  end))
  self:wait_for("the connection", function() return connected end)
  self.tcp:nodelay(true)
  self.tcp:read_start(self:guard(function(...) self:received(...) end))
  return self
end

-- --- what every peer must agree on ---------------------------------------------------------------

local function behaviour(role, command)
  local link

  local function start(...) link = connect(command(), role, ...) end

  after_each(function()
    if not link then return end
    if not link.exited then link.process:kill("sigkill") end
    link:close()
    uv.run("nowait")
    link = nil
  end)

  it("moves 1 MiB both ways on each of 100 concurrent streams of ours", function()
    start()
    local results = {}
    for key = 1, 100 do
      local stream = link:open("echo")
      results[key] = link:take(stream, key)
      link:send(stream, key, MIB)
    end
    link:wait_for("100 echoes", function()
      for key = 1, 100 do
        if not results[key].closed then return false end
      end
      return true
    end)
    for key = 1, 100 do assert.same({ bytes = MIB, ended = true, closed = "ok" }, results[key]) end
    assert.equal(0, link.session:streams())
  end)

  it("moves 1 MiB both ways on each of 100 concurrent streams of the peer's", function()
    start()
    local stream = link:open("open 100 " .. MIB)
    assert.equal("ok 100", link:answer(stream))
  end)

  it("does the same with larger windows and small frames", function()
    start({ receive_window = 4 * MIB, max_frame = 1000 })
    local stream = link:open("echo")
    local result = link:take(stream, 5)
    link:send(stream, 5, 10 * MIB)
    assert.equal("ok 10", link:answer(link:open("open 10 " .. MIB)))
    link:wait_for("the echo", function() return result.closed end)
    assert.same({ bytes = 10 * MIB, ended = true, closed = "ok" }, result)
  end)

  it("stalls at the window of a peer that stops reading, and resumes", function()
    start()
    local stream = link:open("hold 7")
    link:send(stream, 7, 4 * MIB)
    link:wait_for("the window to close", function() return stream:room() == 0 and stream:queued() > 0 end)
    link:round_trip()
    local queued = stream:queued()
    link:round_trip()
    assert.same({ queued, 0 }, { stream:queued(), stream:room() })
    assert.is_true(queued > 0)
    assert.equal("ok", link:answer(link:open("resume")))
    assert.equal("ok " .. 4 * MIB, link:answer(stream))
  end)

  it("holds the peer up at our window while we do not consume", function()
    start()
    local stream, handlers = link:open("source 9 1000000")
    local parts, bytes, ended = {}, 0, false
    function handlers.data(data)
      parts[#parts + 1] = data
      bytes = bytes + #data
    end
    handlers["end"] = function() ended = true end
    link:flush()
    link:wait_for("a window full", function() return bytes >= WINDOW end)
    link:round_trip()
    link:round_trip()
    assert.equal(WINDOW, bytes)
    function handlers.writable() end
    while not ended do
      local had = bytes
      stream:consume(WINDOW)
      link:flush()
      link:wait_for("more", function() return bytes > had or ended end)
    end
    assert.equal(1000000, bytes)
    assert.is_true(matches(9, 0, table.concat(parts)))
  end)

  it("reads on after it half-closed", function()
    start()
    local stream = link:open("sink 3")
    link:send(stream, 3, 300000)
    assert.equal("ok 300000", link:answer(stream))
  end)

  it("writes on after the peer half-closed", function()
    start()
    local stream = link:open("source 4 1000")
    local result = link:take(stream, 4)
    link:flush()
    link:wait_for("the end", function() return result.ended end)
    assert.is_nil(result.closed)
    link:send(stream, 4, 600000)
    link:wait_for_line("sunk 600000")
    assert.equal("ok", result.closed)
  end)

  it("is told when the peer resets a stream", function()
    start(nil, "100")
    local stream, handlers = link:open("reset")
    local code
    function handlers.close(value) code = value end
    link:flush()
    link:wait_for("the reset", function() return code end)
    assert.equal("reset", code)
    assert.same({ nil, "closed" }, { stream:write("late") })
    assert.equal("ok", link:answer(link:open("ping")))
  end)

  it("resets a stream while its data is under way", function()
    start()
    local stream = link:open("await-reset")
    assert.is_true(stream:write(block(1)))
    link:flush()
    link:wait_for_line("reading")
    stream:reset()
    link:flush()
    link:wait_for_line("was reset")
    local noisy, noise = link:open("source 1 1000000")
    function noise.data() noisy:reset() end
    link:flush()
    link:wait_for("data to be reset upon", function() return noisy:room() == 0 end)
    assert.equal("ok", link:answer(link:open("ping")))
  end)

  it("pings and is pinged", function()
    start()
    link:round_trip()
    assert.is_true(link.session:rtt() > 0)
    assert.equal("ok", link:answer(link:open("ping")))
  end)

  it("hears the peer's go-away", function()
    start()
    local code
    function link.go_away(value) code = value end
    link:open("go-away")
    link:flush()
    link:wait_for("go-away", function() return code end)
    assert.equal(0, code)
    local stream, why = link.session:open()
    assert.is_nil(stream)
    assert.equal("closed", why)
  end)

  it("says go-away, which the peer heeds", function()
    start()
    local stream = link:open("expect-go-away")
    link:flush()
    link:round_trip()
    link.session:go_away()
    stream:write("now\n")
    link:flush()
    link:wait_for_line("go-away")
  end)

  it("closes in order", function()
    start()
    local stream = link:open("sink 2")
    link:send(stream, 2, 100000)
    assert.equal("ok 100000", link:answer(stream))
    link.session:close()
    link:flush()
    assert.is_true(link.session:finished())
    link.tcp:shutdown()
    link:wait_for_line("closed")
    link:wait_for("the peer's exit", function() return link.exited end)
  end)
end

-- --- the peers -----------------------------------------------------------------------------------

local function run(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local output = pipe:read("a")
  return pipe:close(), output
end

local function find(program) return run("command -v " .. program) end

describe("yamux with libp2p's implementation", function()
  local missing
  if not find("node") then
    missing = "node is not installed"
  elseif not uv.fs_stat(HERE .. "/node_modules/@chainsafe/libp2p-yamux") then
    missing = "npm ci was not run in " .. HERE
  end
  if missing then
    pending("is skipped: " .. missing)
    return
  end
  local function command() return { "node", HERE .. "/peer.mjs" } end
  describe("as client", function() behaviour("client", command) end)
  describe("as server", function() behaviour("server", command) end)
end)

describe("yamux with HashiCorp's implementation", function()
  if not find("go") then
    pending("is skipped: go is not installed")
    return
  end
  if not run("cd '" .. HERE .. "/go' && go mod download") then
    pending("is skipped: go cannot download modules")
    return
  end
  local binary
  setup(function()
    binary = os.tmpname()
    -- A sanitizer that is preloaded into this process is nothing for the Go toolchain's own programs.
    local ok, output = run(("cd '%s/go' && env -u LD_PRELOAD go build -o '%s' ."):format(HERE, binary))
    assert(ok, output)
  end)
  teardown(function() os.remove(binary) end)
  local function command() return { binary } end
  describe("as client", function() behaviour("client", command) end)
  describe("as server", function() behaviour("server", command) end)
end)
