--- What several specs need.
local support = {}

local errors = require("weir.errors")
local programs = require("spec.programs")
local runtime = require("weir.runtime")
local shell = require("spec.house.shell")
local tasks = require("weir.task")

--- Waits until check() returns something true, and returns that. Fails after `seconds` (5).
function support.eventually(check, seconds)
  local deadline = runtime.now() + (seconds or 5)
  while true do
    local value = check()
    if value then
      return value
    elseif runtime.now() > deadline then
      error("it did not happen in time", 2)
    end
    tasks.sleep(0.001)
  end
end

--- Asserts that the results are nil and an error with this code; returns the error.
function support.fails(code, value, err)
  assert(value == nil, "nil was expected, not " .. tostring(value))
  assert(errors.is(err), "an error was expected, not " .. tostring(err))
  assert(err.code == code, ("the code %q was expected, not %s"):format(code, tostring(err)))
  return err
end

--- The body of a test that runs in a task: busted's own coroutine may wait too, but has no tasks beside it.
function support.in_task(fn)
  return function()
    return tasks.run(fn)
  end
end

--- Runs a program text in an interpreter of its own, with the paths and sanitizers of this one.
-- @return table `status`, `out`, `err`
function support.program(text)
  local path = os.tmpname()
  shell.write(path, text)
  local status, out, err = programs.run({ "lua5.4", path })
  os.remove(path)
  return { status = status, out = out, err = err }
end

--- Bytes that Lua holds, and could not let go.
function support.kept()
  collectgarbage()
  collectgarbage()
  return collectgarbage("count") * 1024
end

--- Closes a luv handle and lets the loop finish with it (luv's own end of a state cannot).
function support.close(handle)
  handle:close()
  runtime.pause()
end

--- The name of a file that does not exist, for a socket.
function support.socket_path()
  local path = os.tmpname()
  os.remove(path)
  return path .. ".sock"
end

--- Runs fn with what weir writes to stderr kept from the report; returns that text.
function support.silence(fn, ...)
  local real, path = io.stderr, os.tmpname()
  local file = assert(io.open(path, "wb"))
  rawset(io, "stderr", file)
  local ok, err = pcall(fn, ...)
  rawset(io, "stderr", real)
  file:close()
  local text = shell.read(path)
  os.remove(path)
  if not ok then
    error(err, 0)
  end
  return text
end

-- --- a peer: a yamux session with one stream that matters ---------------------------------------

local core = require("weir.core")
local peers = setmetatable({}, { __mode = "k" })

local Peer = {}
Peer.__index = Peer

local function pump(peer)
  local out = peer.out
  while peer.stream and out[1] and peer.stream:write(out[1]) do
    table.remove(out, 1)
  end
end

local handle = {
  stream = function(peer, stream)
    peer.stream = stream
    stream:accept()
  end,
  data = function(peer, stream, bytes)
    peer.received = peer.received + #bytes
    if peer.keep then
      peer.parts[#peer.parts + 1] = bytes
    end
    if peer.echo then
      peer.out[#peer.out + 1] = bytes
      pump(peer)
    end
    if not peer.stalled then
      stream:consume(#bytes)
    end
  end,
  writable = pump,
}

local hooked = false
local function dispatch()
  for peer in pairs(peers) do
    while true do
      local kind, stream, value = peer.endpoint:next_event()
      if not kind then
        break
      elseif handle[kind] then
        handle[kind](peer, stream, value)
      end
    end
  end
end

--- Makes a peer. Options: `client` (it opens the stream), `echo`, `keep` (the bytes), `stalled`
-- (consumes nothing), `keepalive`, `keepalive_timeout`.
function support.peer(opts)
  if not hooked then
    hooked = true
    runtime.on_dispatch(dispatch)
  end
  local endpoint = core.yamux({
    client = opts.client,
    keepalive = opts.keepalive,
    keepalive_timeout = opts.keepalive_timeout,
  })
  local peer = { endpoint = endpoint, out = {}, received = 0, parts = {} }
  peer.keep, peer.echo, peer.stalled = opts.keep, opts.echo, opts.stalled
  setmetatable(peer, Peer)
  if opts.client then
    peer.stream = endpoint:open()
  end
  peers[peer] = true
  return peer
end

--- Attaches it to a connection; `peer.closed` is true, and `peer.err` set, when that has ended.
function Peer:attach(conn)
  self.conn = conn
  assert(conn:attach(self.endpoint, function(err)
    self.closed, self.err = true, err
  end))
  return self
end

function Peer:send(bytes)
  for at = 1, #bytes, 65536 do
    self.out[#self.out + 1] = bytes:sub(at, at + 65535)
  end
  pump(self)
end

function Peer:text()
  return table.concat(self.parts)
end

return support
