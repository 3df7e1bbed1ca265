--- `weir durable VERB URL`: streams of a durable-stream server from the shell.
-- @module weir.cli.durable
local arguments = require("weir.cli.arguments")
local cli = require("weir.cli")

local COUNT = arguments.integer(0, 999999999999999)

local URL = {
  "url", "URL", "the stream, such as http://localhost:4437/events",
  missing = "the URL of the stream is missing, such as http://localhost:4437/events",
}

-- Of a stream that is made.
local CREATION = {
  {
    "content-type", "TYPE", "application/octet-stream when left out; with application/json it is a JSON stream, whose"
      .. " items are values",
  },
  { "ttl", "SECONDS", "it expires after so long without use", read = COUNT },
  { "expires-at", "TIME", "it expires then, such as 2030-01-31T12:00:00Z" },
  { "data", "TEXT", "first content" },
  { "closed", nil, "close it: with that, and nothing more" },
}

local READ_JSON = {
  "json", nil, "items of a JSON stream, one per line, digit by digit as they were sent; so does tail."
    .. " Without, read writes one array",
}
local CHECKPOINT = {
  "checkpoint", "FILE", "keep the position in FILE, and go on from there when FILE has one: then --from does not count;"
    .. " without it that is -1",
}
local LIVE = { "long-poll", "sse", "auto" }
local CHECKPOINT_NOTES = [[
A checkpoint is saved when the output was written. After an end in good order (Ctrl-C, SIGTERM, a closed pipe) nothing
is lost or repeated; after a crash at worst the last chunk comes again.]]

local M = {
  summary = "create, append to, read and follow durable streams over HTTP",
  verbs = {
    {
      "create", "create a stream; one that exists just so is as good", words = { URL }, options = CREATION,
      examples = { "weir durable create http://localhost:4437/log --content-type text/plain" },
    },
    {
      "append", "append the standard input, exactly once", words = { URL },
      intro = [[
The whole input is one append, however long (256 MiB at most); to a JSON stream it is one value, an array too.]],
      options = {
        {
          "lines", nil, "one append for each line, sent while more is read: the lines of a JSON stream are values,"
            .. " those of others keep their line ends",
        },
        { "content-type", "TYPE", "that of the stream; asked for when left out" },
      },
      examples = {
        "weir durable append http://localhost:4437/log <notes.txt",
        "tail -F /var/log/syslog | weir durable append http://localhost:4437/log --lines",
      },
    },
    {
      "read", "write a stream to the standard output", words = { URL },
      options = {
        { "from", "OFFSET", "begin at this offset of the server; -1 is the beginning (when left out), now the end" },
        {
          "live", "MODE", "go on with what is appended later: long-poll, sse or auto, which follows the server",
          choices = LIVE,
        },
        READ_JSON,
        CHECKPOINT,
      },
      notes = CHECKPOINT_NOTES,
      examples = { "weir durable read http://localhost:4437/events --json | jq .name" },
    },
    {
      "tail", "the same, from now on and until the stream is closed", words = { URL },
      options = {
        {
          "from", "OFFSET", "begin at this offset of the server; -1 is the beginning, now the end (when left out, and"
            .. " there is no checkpoint)",
        },
        { "live", "MODE", "how: long-poll, sse or auto (when left out)", choices = LIVE },
        READ_JSON,
        CHECKPOINT,
      },
      notes = CHECKPOINT_NOTES,
      examples = { "weir durable tail http://localhost:4437/log --checkpoint log.position >>copy" },
    },
    {
      "head", "print what the server knows of a stream", words = { URL },
      examples = { "weir durable head http://localhost:4437/log --json | jq -r .offset" },
    },
    {
      "close", "let nothing more be appended: readers come to an end", words = { URL },
      options = { { "data", "TEXT", "append this in the same step" } },
      examples = { "weir durable close http://localhost:4437/log --data 'the end'" },
    },
    {
      "delete", "delete a stream", words = { URL },
      examples = { "weir durable delete http://localhost:4437/log" },
    },
    {
      "fork", "create a stream with what another one has",
      words = {
        URL,
        { "new", "NEW", "the new stream, on the same server", missing = "the URL of the new stream is missing" },
      },
      options = {
        { "at", "OFFSET", "fork there; at the end when left out" },
        { "skip", "N", "fork so many bytes, or JSON items, after --at", read = COUNT },
        table.unpack(CREATION),
      },
      examples = { "weir durable fork http://localhost:4437/log http://localhost:4437/copy" },
    },
  },
  options = {
    {
      "header", "K:V", "send this header with each request, such as 'Authorization: Bearer ...'; may be repeated",
      many = true, read = arguments.header,
    },
    { "json", nil, "print the result as JSON" },
    {
      "retries", "N", "repeat a request up to N times, each time after a longer pause: 8; while it follows or appends"
        .. " lines: for ever", read = COUNT,
    },
    { "timeout", "SECONDS", "for one operation, or one attempt to append: 30", read = arguments.seconds },
    { "ca", "FILE", "certificates to trust" },
    { "insecure", nil, "trust any certificate" },
    { "proxy", "URL", "go through this proxy" },
    { "quiet", nil, "show no progress on the terminal" },
  },
  statuses = "0 done, also when the reader of its output went away; 1 it failed; 2 wrong use; 128 + N: read and tail"
    .. " were interrupted by signal N (SIGHUP, SIGINT, SIGTERM).",
}

-- What is loaded only when a stream is used, so that the list of commands needs none of it.
local codec, core, durable, errors, is_json, luv, runtime, signals, tasks
local checkpoint, input, output, progress

local function load_modules()
  codec, core = require("weir.codec"), require("weir.core")
  durable, errors = require("weir.durable"), require("weir.errors")
  is_json = require("weir.durable.stream").is_json
  luv, runtime, signals = require("luv"), require("weir.runtime"), require("weir.app.signals")
  tasks = require("weir.task")
  checkpoint, input = require("weir.cli.durable.checkpoint"), require("weir.cli.durable.input")
  output, progress = require("weir.cli.durable.output"), require("weir.cli.durable.progress")
end

local RETRIES = 8
local LONGEST_INPUT = 256 * 1024 * 1024
local LONGEST_LINE = 16 * 1024 * 1024
local PAUSE = 0.05 -- seconds without input after which what was read is confirmed

-- --- errors -------------------------------------------------------------------------------------

local HINTS = {
  not_found = "create it with 'weir durable create'",
  unauthorized = "give them with --header 'Authorization: Bearer ...'",
  invalid_offset = "give --from an offset of this server, -1 or now",
  already_exists = "ask with 'weir durable head' what is there, or delete it",
}

-- The error with what can be done about it.
local function explain(err, options)
  if not errors.is(err) then
    return err
  end
  local hint = HINTS[err.code]
  if err.code == "invalid_offset" and options.checkpoint then
    hint = ("remove %s to begin anew"):format(options.checkpoint)
  end
  return hint and errors.with(err, { message = err.message .. "; " .. hint }) or err
end

-- Calls what raises an error for misuse; returns that as a usage error.
local function checked(fn, ...)
  local ok, result = pcall(fn, ...)
  if ok then
    return result
  end
  return nil, cli.usage_error((tostring(result):gsub("^[^:]+:%d+: ", ""):gsub("^durable: ", "")))
end

-- --- what every verb needs ----------------------------------------------------------------------

local function headers_of(options)
  local headers = {}
  for _, pair in ipairs(options.header or {}) do
    headers[pair[1]] = pair[2]
  end
  return headers
end

local function open_client(options)
  return checked(durable.client, {
    headers = headers_of(options),
    timeout = options.timeout,
    retry = { max_retries = options.retries or RETRIES },
    tls = { ca = options.ca, verify = not options.insecure },
    proxy = options.proxy,
    cache = 0,
  })
end

-- Of a producer or a reader that must not give up once it has begun.
local function lasting(options)
  return options.retries and { max_retries = options.retries } or {}
end

-- Says what was done, for people only.
local function note(self, text)
  if self.terminal then
    self.console.err:write(text, "\n")
  end
end

local function json_text(value)
  local text = assert(codec.get("json").encode(value))
  return (text:gsub("\\(.)", { ["/"] = "/" })) -- which need not be escaped
end

-- Prints the fields of a result that are there: as JSON, or as lines if `lines`.
local function print_result(self, result, names, lines)
  local out, parts = self.console.out, {}
  for _, name in ipairs(names) do
    local value = result[name]
    if value ~= nil and self.options.json then
      parts[#parts + 1] = ('"%s":%s'):format(name, json_text(value))
    elseif value ~= nil and lines then
      out:write(name, ": ", tostring(value), "\n")
    end
  end
  if self.options.json then
    out:write("{", table.concat(parts, ","), "}\n")
  end
  return cli.OK
end

-- Calls fn() in a task that SIGHUP, SIGINT and SIGTERM cancel; a second signal ends the program at once. What
-- fn returned, or the exit status of the interruption. SIGPIPE does nothing meanwhile: writing fails.
local function interruptible(fn)
  local task, interrupted = tasks.spawn(fn), nil
  local sigpipe = luv.new_signal()
  sigpipe:start("sigpipe", function() end)
  local forget = signals.watch(function(number)
    interrupted = 128 + number
    task:cancel("interrupted")
  end)
  local status, err = task:join()
  sigpipe:close()
  forget()
  if interrupted and (err == nil or errors.is(err, "cancelled")) then
    return interrupted
  end
  return status, err
end

-- --- create, fork, head, close, delete ----------------------------------------------------------

local verbs = {}

local CREATED = { "created", "offset", "content_type", "closed", "location" }

local function creation(options)
  return {
    content_type = options["content-type"],
    ttl = options.ttl,
    expires_at = options["expires-at"],
    data = options.data,
    closed = options.closed,
  }
end

local function report_creation(self, stream, result)
  note(self, ("%s %s"):format(result.created and "created" or "there is already", stream.url))
  return print_result(self, result, CREATED)
end

function verbs.create(self)
  local result, err = self.stream:create(creation(self.options))
  if not result then
    return nil, err
  end
  return report_creation(self, self.stream, result)
end

function verbs.fork(self)
  local target, err = checked(self.client.stream, self.client, self.options.new)
  if not target then
    return nil, err
  end
  local opts = creation(self.options)
  opts.from, opts.offset, opts.sub_offset = self.stream, self.options.at, self.options.skip
  local result
  result, err = target:fork(opts)
  if not result then
    return nil, err
  end
  return report_creation(self, target, result)
end

function verbs.head(self)
  local result, err = self.stream:head()
  if not result then
    return nil, err
  end
  return print_result(self, result, { "offset", "content_type", "closed", "ttl", "expires_at", "etag" }, true)
end

function verbs.close(self)
  local result, err
  if self.options.data then
    -- By a producer, so that the data is there once whatever happens to the answer.
    result, err = self.stream:producer({ timeout = self.options.timeout }):close(self.options.data)
  else
    result, err = self.stream:close()
  end
  if not result then
    return nil, err
  end
  note(self, "closed " .. self.stream.url)
  return print_result(self, { closed = true, offset = result.offset }, { "closed", "offset" })
end

function verbs.delete(self)
  local ok, err = self.stream:delete()
  if not ok then
    return nil, err
  end
  note(self, "deleted " .. self.stream.url)
  return print_result(self, { deleted = true }, { "deleted" })
end

-- --- append -------------------------------------------------------------------------------------

local function check_value(text, what)
  local ok, reason, position = core.json_check(text)
  if ok then
    return true
  end
  return nil, errors.new("parse_error", ("%s is no JSON: %s at byte %d"):format(what, reason, position + 1))
end

local function append_all(self, source, producer)
  local text, err = source:all(LONGEST_INPUT, "append it in parts, or by lines with --lines")
  if not text then
    return nil, err
  elseif not text:find(self.json and "%S" or ".") then
    return nil, errors.new("input", "there is nothing on the standard input to append")
  elseif self.json then
    local ok
    ok, err = check_value(text, "the standard input")
    if not ok then
      return nil, errors.with(err, { message = err.message .. "; with --lines each line is a value" })
    end
  end
  self.bytes = #text
  return producer:append(text)
end

local function append_lines(self, source, producer)
  local number = 0
  local next_line = source:lines(LONGEST_LINE, PAUSE, function()
    self.progress:show(self.bytes, number, "waiting for input", true)
    return producer:flush()
  end)
  while true do
    local line, err = next_line()
    if not line then
      return not err, err
    end
    number = number + 1
    local ok = true
    if self.json and line:find("%S") then
      ok, err = check_value(line, ("line %d of the standard input"):format(number))
    end
    if ok and (not self.json or line:find("%S")) then
      ok, err = producer:append(line)
      self.bytes = self.bytes + #line
    end
    if not ok then
      return nil, err
    end
    self.progress:show(self.bytes, number)
  end
end

-- Lets what was appended before a failure arrive, and says how much that is.
local function after_failure(producer, err)
  producer:flush()
  local confirmed = producer:stats().confirmed
  return errors.with(err, { message = ("%s; lines appended before it: %d"):format(err.message, confirmed) })
end

function verbs.append(self)
  local options = self.options
  local content_type, err = options["content-type"]
  if not content_type then
    local found
    found, err = self.stream:head()
    if not found then
      return nil, err
    end
    content_type = found.content_type or "application/octet-stream"
  end
  self.json, self.bytes = is_json(content_type), 0
  local source
  source, err = input.open()
  if not source then
    return nil, err
  end
  local producer = self.stream:producer({
    content_type = content_type,
    timeout = options.timeout,
    retry = options.lines and lasting(options) or nil,
  })
  self.progress = progress.new(self.console.err, self.terminal)
  local ok
  ok, err = (options.lines and append_lines or append_all)(self, source, producer)
  source:close()
  local state
  if ok then
    state, err = producer:detach()
  elseif options.lines and errors.is(err) then
    err = after_failure(producer, err)
  end
  self.progress:finish()
  if not state then
    return nil, err
  end
  local count = producer:stats().confirmed
  note(self, ("appended %s"):format(progress.size(self.bytes)))
  return print_result(self, { offset = state.offset, items = count }, { "offset", "items" })
end

-- --- read, tail ---------------------------------------------------------------------------------

local function not_json()
  return errors.new("parse_error", "the stream is not JSON: leave --json out")
end

local function write_chunks(self, reader, out, position)
  while true do
    local chunk, err = reader:next()
    if err then
      return nil, err
    end
    local json = reader:stats().json
    if chunk and chunk.data ~= "" and self.options.json and not json then
      return nil, not_json()
    end
    local ok
    if chunk then
      ok, err = out:chunk(chunk.data, json)
    else
      ok, err = out:finish(json)
    end
    -- Only now: what was not written must be read again.
    if ok and position and reader.offset ~= "now" then
      ok, err = position:save(reader.offset)
    end
    if not ok then
      return nil, err
    elseif not chunk then
      return true
    end
    self.progress:show(out.bytes, out.items, chunk.up_to_date and "up to date" or nil, chunk.up_to_date)
  end
end

local function open_reader(self, live, position)
  local options = self.options
  local from = position and position.offset or options.from
  if not from then
    from = options.verb == "tail" and not position and "now" or "-1"
  end
  return checked(self.stream.read, self.stream, {
    offset = from,
    live = live,
    retry = live and lasting(options) or nil,
  })
end

local function read(self)
  local options = self.options
  local live = options.live or (options.verb == "tail" and "auto") or false
  local position, reader, err
  if options.checkpoint then
    position, err = checkpoint.open(options.checkpoint, self.stream.url)
    if not position then
      return nil, err
    end
  end
  reader, err = open_reader(self, live, position)
  if not reader then
    return nil, err
  end
  if live then -- a reader that follows does not give up; so find out first whether there is anything
    local found
    found, err = self.stream:head()
    if not found then
      return nil, err
    elseif options.json and not is_json(found.content_type) then
      return nil, not_json()
    end
  end
  local out = output.new(self.console.out, options.json or live)
  self.progress = progress.new(self.console.err, self.terminal and not self.console:is_terminal(self.console.out))
  local ok
  ok, err = write_chunks(self, reader, out, position)
  reader:close()
  self.progress:finish()
  if ok or errors.is(err, "broken_pipe") then
    return cli.OK
  end
  return nil, err
end

function verbs.read(self)
  return interruptible(function()
    return read(self)
  end)
end

verbs.tail = verbs.read

-- --- all ----------------------------------------------------------------------------------------

function M.run(options, console)
  load_modules()
  local self = { options = options, console = console }
  self.terminal = not options.quiet and console:is_terminal(console.err)
  local client, err = open_client(options)
  self.client = client
  if not client then
    return nil, err
  end
  self.stream, err = checked(self.client.stream, self.client, options.url)
  local status
  if self.stream then
    status, err = verbs[options.verb](self)
  end
  self.client:close()
  runtime.pause()
  if status == nil then
    return nil, explain(err, options)
  end
  return status
end

return M
