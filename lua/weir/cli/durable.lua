--- `weir durable`: streams over HTTP from the command line.
-- @module weir.cli.durable
local cli = require("weir.cli")

local M = {
  summary = "create, write, read and follow durable streams over HTTP",
  usage = "create|append|read|tail|head|close|delete|fork URL [OPTION...]",
  help = [[
  create URL    [--type TYPE] [--ttl SECONDS] [--expires-at TIME] [--closed]
  append URL    the standard input, exactly once; to a JSON stream each line is a value
  read URL      [--from OFFSET] [--live long-poll|sse|auto] [--json]
  tail URL      follow from the end: [--from OFFSET] [--checkpoint FILE] [--json]
  head URL      what the server knows of the stream
  close URL     no more can be appended
  delete URL
  fork URL      --source URL [--from OFFSET]

Options of all:
  --header 'NAME: VALUE'   with every request; may be given again
  --timeout SECONDS        for one operation (30)
  --json                   each value of a JSON stream on a line of its own; head as JSON

tail --checkpoint FILE keeps its position in FILE: started again it goes on there, and what it had
written is not repeated.]],
}

-- Whether an option takes a word.
local OPTIONS = {
  type = true, ttl = true, ["expires-at"] = true, closed = false, from = true, live = true, json = false,
  checkpoint = true, source = true, header = true, timeout = true,
}

local ALLOWED = {
  create = { type = true, ttl = true, ["expires-at"] = true, closed = true },
  append = {},
  read = { from = true, live = true, json = true },
  tail = { from = true, checkpoint = true, json = true, live = true },
  head = { json = true },
  close = {},
  delete = {},
  fork = { source = true, from = true },
}

local function split_header(text)
  local name, value = text:match("^([^:%s]+):%s*(.-)%s*$")
  if not name then
    return nil, cli.usage_error(("--header '%s': 'NAME: VALUE' is expected"):format(text))
  end
  return name, value
end

-- Takes one option out of the words; the index of the last that it used.
local function take_option(opts, args, i, action)
  local name, value = args[i]:match("^%-%-([%w-]+)=?(.*)$")
  local common = name == "header" or name == "timeout"
  if OPTIONS[name] == nil or not (common or ALLOWED[action][name]) then
    return nil, cli.usage_error(("%s has no option '%s'"):format(action, args[i]))
  elseif not OPTIONS[name] then
    opts[name] = true
    return i
  end
  if not args[i]:find("=", 1, true) then
    i = i + 1
    value = args[i]
  end
  if value == nil or value == "" then
    return nil, cli.usage_error(("--%s needs a value"):format(name))
  elseif name == "header" then
    local key, text = split_header(value)
    if not key then
      return nil, text
    end
    opts.headers[key] = text
  elseif name == "ttl" or name == "timeout" then
    opts[name] = tonumber(value)
    if not opts[name] then
      return nil, cli.usage_error(("--%s needs a number, not '%s'"):format(name, value))
    end
  else
    opts[name] = value
  end
  return i
end

local function parse(args)
  local action = args[1]
  if not ALLOWED[action or ""] then
    local names = "append, close, create, delete, fork, head, read, tail"
    return nil, cli.usage_error(("durable: one of %s is expected%s"):format(names,
      action and (", not '%s'"):format(action) or ""))
  end
  local opts, i = { headers = {} }, 2
  while i <= #args do
    if args[i]:sub(1, 2) == "--" then
      local err
      i, err = take_option(opts, args, i, action)
      if not i then
        return nil, err
      end
    elseif opts.url then
      return nil, cli.usage_error(("unexpected '%s'"):format(args[i]))
    else
      opts.url = args[i]
    end
    i = i + 1
  end
  if not opts.url then
    return nil, cli.usage_error(("durable %s: the URL is missing"):format(action))
  end
  return action, opts
end

local act = {}

function act.create(stream, opts, console)
  local made, err = stream:create({
    content_type = opts.type,
    ttl = opts.ttl,
    expires_at = opts["expires-at"],
    closed = opts.closed,
  })
  if made then
    console.out:write(made.created and "created" or "exists", " ", made.offset or "", "\n")
  end
  return made, err
end

function act.fork(stream, opts, console)
  if not opts.source then
    return nil, cli.usage_error("durable fork: --source is missing: the stream to fork")
  end
  local made, err = stream:fork({ from = opts.source, offset = opts.from })
  if made then
    console.out:write(made.created and "created" or "exists", " ", made.offset or "", "\n")
  end
  return made, err
end

function act.head(stream, opts, console)
  local found, err = stream:head()
  if not found then
    return nil, err
  elseif opts.json then
    console.out:write(require("cjson").encode(found), "\n")
    return true
  end
  for _, name in ipairs({ "content_type", "offset", "closed", "ttl", "expires_at", "etag" }) do
    if found[name] ~= nil then
      console.out:write(("%-13s %s\n"):format(name, tostring(found[name])))
    end
  end
  return true
end

function act.close(stream, _, console)
  local done, err = stream:close()
  if done then
    console.out:write("closed ", done.offset or "", "\n")
  end
  return done, err
end

function act.delete(stream)
  return stream:delete()
end

-- The next piece of the standard input; nil at its end. Others run meanwhile.
local function read_input()
  local waiter = require("weir.runtime").waiter()
  require("luv").fs_read(0, 65536, -1, function(err, data)
    waiter:wake(data, err)
  end)
  local data, err = waiter:wait()
  if not data then
    return nil, err
  end
  return data ~= "" and data or nil
end

-- Hands the lines of the input to the producer, each as one value.
local function append_lines(producer)
  local rest = ""
  while true do
    local piece, err = read_input()
    if err then
      return nil, err
    end
    rest = rest .. (piece or "\n")
    local from = 1
    for line, behind in rest:gmatch("([^\n]*)\n()") do
      from = behind
      if line:find("%S") then
        local ok
        ok, err = producer:append(line)
        if not ok then
          return nil, err
        end
      end
    end
    rest = rest:sub(from)
    if not piece then
      return true
    end
  end
end

local function append_bytes(producer)
  while true do
    local piece, err = read_input()
    if not piece then
      return not err, err
    end
    local ok
    ok, err = producer:append(piece)
    if not ok then
      return nil, err
    end
  end
end

function act.append(stream, _, console)
  local content_type, err = stream:learn_content_type()
  if not content_type then
    return nil, err
  end
  local producer = stream:producer()
  local json = require("weir.durable.stream").is_json(content_type)
  local ok
  ok, err = (json and append_lines or append_bytes)(producer)
  if ok then
    ok, err = producer:detach()
  end
  if ok then
    console.out:write("appended ", producer:state().offset or "", "\n")
  end
  return ok, err
end

local function saved(path)
  local file = io.open(path, "rb")
  local text = file and file:read("l")
  if file then
    file:close()
  end
  return text ~= "" and text or nil
end

local function save(path, offset)
  local file, err = io.open(path .. ".new", "wb")
  if not file then
    return nil, err
  end
  local ok = file:write(offset, "\n")
  ok = file:close() and ok
  if not ok then
    return nil, "cannot write " .. path
  end
  return os.rename(path .. ".new", path)
end

-- Writes a piece: of a JSON stream each value on a line.
local function writer_of(reader, opts, out)
  local items = opts.json and require("weir.core").json_items()
  return function(chunk)
    if not items then
      return out:write(chunk.data)
    elseif chunk.data ~= "" then
      if not reader:stats().json then
        return nil, "the stream is not JSON; leave out --json"
      end
      items:feed(chunk.data)
      local text = items:next()
      while text do
        out:write(text, "\n")
        text = items:next()
      end
      items:reset()
    end
    return true
  end
end

local function copy(stream, opts, console, live, from)
  local reader = stream:read({ live = live, offset = from })
  local write = writer_of(reader, opts, console.out)
  while true do
    local chunk, err = reader:next()
    if not chunk then
      return not err, err
    end
    local ok
    ok, err = write(chunk)
    if ok then
      ok, err = console.out:flush()
    end
    if ok and opts.checkpoint then
      ok, err = save(opts.checkpoint, reader.offset)
    end
    if not ok then
      reader:close()
      return nil, err
    end
  end
end

local LIVE = { ["long-poll"] = true, sse = true, auto = true }

function act.read(stream, opts, console)
  return copy(stream, opts, console, opts.live or false, opts.from)
end

function act.tail(stream, opts, console)
  local from = opts.checkpoint and saved(opts.checkpoint) or opts.from or "now"
  return copy(stream, opts, console, opts.live or "auto", from)
end

function M.run(args, console)
  local action, opts = parse(args)
  if not action then
    return nil, opts
  elseif opts.live and not LIVE[opts.live] then
    return nil, cli.usage_error(("--live is long-poll, sse or auto, not '%s'"):format(opts.live))
  end
  local durable, weir = require("weir.durable"), require("weir")
  local known, client = pcall(durable.client, { headers = opts.headers, timeout = opts.timeout })
  if not known then
    return nil, cli.usage_error(tostring(client))
  end
  local ok, stream = pcall(client.stream, client, opts.url)
  if not ok then
    return nil, cli.usage_error((tostring(stream):gsub("^[^:]+:%d+: ", "")))
  end
  local done, err = weir.run(function()
    return act[action](stream, opts, console)
  end)
  client:close()
  if not done then
    return nil, err
  end
  return cli.OK
end

return M
