--- The adapter of the Durable Streams client suite. See `adapter`.
--
-- It is serial: a command is answered before the next is read.
local cjson = require("cjson.safe")
local core = require("weir.core")
local durable = require("weir.durable")
local weir = require("weir")

-- Not so many and not so long as by default: a case lasts some seconds.
local RETRY = { max_retries = 8, initial = 0.05, max = 1 }
local READ = 5 -- seconds of a read whose command says nothing
local MOST_CHUNKS = 100

local client, base_url
local types, producers, dynamic -- by path; by path, id and epoch; names to functions

local ARRAY = setmetatable({}, { __name = "array" })

-- --- JSON ---------------------------------------------------------------------------------------

local function encode(value)
  if type(value) == "table" then
    local parts = {}
    if getmetatable(value) == ARRAY then
      for i, each in ipairs(value) do
        parts[i] = encode(each)
      end
      return "[" .. table.concat(parts, ",") .. "]"
    end
    for name, each in pairs(value) do
      parts[#parts + 1] = encode(name) .. ":" .. encode(each)
    end
    return "{" .. table.concat(parts, ",") .. "}"
  elseif math.type(value) == "float" and value % 1 == 0 then
    return ("%d"):format(value)
  end
  return (assert(cjson.encode(value)):gsub("\226\128([\168\169])", { ["\168"] = "\\u2028", ["\169"] = "\\u2029" }))
end

local function whole(number)
  return number and math.tointeger(number) or number
end

-- --- errors -------------------------------------------------------------------------------------

local CODES = {
  not_found = "NOT_FOUND",
  stream_closed = "STREAM_CLOSED",
  already_exists = "CONFLICT",
  conflict = "SEQUENCE_CONFLICT",
  sequence_conflict = "SEQUENCE_CONFLICT",
  invalid_offset = "INVALID_OFFSET",
  parse_error = "PARSE_ERROR",
  network = "NETWORK_ERROR",
  timeout = "TIMEOUT",
  invalid = "INVALID_ARGUMENT",
  not_supported = "NOT_SUPPORTED",
}

local function failure(command, err)
  local code = CODES[err.code] or "UNEXPECTED_STATUS"
  if err.status == 400 then
    code = "INVALID_OFFSET"
  elseif not CODES[err.code] and not err.status then
    code = "INTERNAL_ERROR"
  end
  return {
    type = "error",
    success = false,
    commandType = command.type,
    status = err.status,
    errorCode = code,
    message = err.message,
    producerEpoch = whole(err.epoch),
    producerExpectedSeq = whole(err.expected_seq),
    producerReceivedSeq = whole(err.received_seq),
  }
end

-- --- what commands share ------------------------------------------------------------------------

local function stream_of(command)
  local content_type = command.contentType or types[command.path] or "application/octet-stream"
  return client:stream(command.path, { content_type = content_type })
end

local function count_of(map)
  return next(map) and map or nil
end

-- The dynamic headers and parameters of one command, as they are sent and reported.
local function resolved(command)
  local headers, params = {}, {}
  for name, make in pairs(dynamic.headers) do
    headers[name] = make()
  end
  for name, make in pairs(dynamic.params) do
    params[name] = make()
  end
  local sent = { headers = count_of(headers), params = count_of(params) }
  local all = {}
  for _, map in ipairs({ headers, command.headers or {} }) do
    for name, value in pairs(map) do
      all[name] = value
    end
  end
  return { headers = all, params = params }, sent
end

local function reported(result, sent)
  result.headersSent, result.paramsSent = sent.headers, sent.params
  return result
end

-- --- commands -----------------------------------------------------------------------------------

local run = {}

function run.init(command)
  base_url = command.serverUrl
  if client then
    client:close()
  end
  client = durable.client({ base_url = base_url, retry = RETRY })
  types, producers, dynamic = {}, {}, { headers = {}, params = {} }
  return {
    clientName = "weir",
    clientVersion = require("weir.version"),
    features = {
      batching = true,
      sse = true,
      longPoll = true,
      auto = true,
      streaming = true,
      dynamicHeaders = true,
      retryOptions = true,
      batchItems = true,
      strictZeroValidation = true,
    },
  }
end

function run.create(command)
  types[command.path] = command.contentType
  local made, err = stream_of(command):create({
    ttl = command.ttlSeconds,
    expires_at = command.expiresAt,
    closed = command.closed,
    data = command.data,
    headers = command.headers,
  })
  return made and { status = made.status, offset = made.offset }, err
end

function run.head(command)
  local found, err = client:stream(command.path):head({ headers = command.headers })
  if not found then
    return nil, err
  end
  types[command.path] = found.content_type
  return { status = 200, offset = found.offset, contentType = found.content_type, streamClosed = found.closed }
end

function run.connect(command)
  local found, err = run.head(command)
  return found and { status = 200, offset = found.offset }, err
end

function run.append(command)
  local opts, sent = resolved(command)
  local data = command.binary and core.base64_decode(command.data) or command.data
  opts.seq, opts.at_least_once = whole(command.seq), true
  local done, err = stream_of(command):append(data, opts)
  return done and reported({ status = 200, offset = done.offset }, sent), err
end

function run.close(command)
  local done, err = stream_of(command):close(command.data)
  return done and { finalOffset = done.offset }, err
end

function run.delete(command)
  local done, err = stream_of(command):delete({ headers = command.headers })
  types[command.path] = nil
  return done and { status = 200 }, err
end

-- --- reading ------------------------------------------------------------------------------------

-- What the suite calls a chunk: all that one answer, or one event, brought. Nil when that is nothing.
local function chunk_of(json, text, offset)
  if text == "" then
    return nil
  elseif json then
    if text:match("^%s*%[%s*%]%s*$") then
      return nil
    end
  end
  if not utf8.len(text) then
    return { data = core.base64_encode(text), binary = true, offset = offset }
  end
  return { data = text, offset = offset }
end

local function enough(command, live, chunks, reader)
  if #chunks >= (command.maxChunks or MOST_CHUNKS) or reader.closed then
    return true
  elseif not reader.up_to_date then
    return false
  end
  return not live or command.waitForUpToDate or (not command.maxChunks and #chunks > 0)
end

local function collect(command, live, reader)
  local deadline = weir.now() + (command.timeoutMs and command.timeoutMs / 1000 or READ)
  local chunks = setmetatable({}, ARRAY)
  while true do
    local piece, err = reader:next_whole(math.max(deadline - weir.now(), 0))
    if err and live and err.code == "timeout" then
      return chunks, true
    elseif err then
      return nil, err
    elseif not piece then
      return chunks, reader.up_to_date
    end
    local chunk
    chunk, err = chunk_of(reader:stats().json, piece.data, piece.next_offset)
    if err then
      return nil, err
    end
    chunks[#chunks + 1] = chunk
    if enough(command, live, chunks, reader) then
      return chunks, reader.up_to_date
    end
  end
end

function run.read(command)
  local opts, sent = resolved(command)
  local live = command.live
  opts.offset = command.offset
  opts.live = live == true and "auto" or live or false
  local reader = client:stream(command.path):read(opts)
  local chunks, up_to_date = collect(command, live, reader)
  reader:close()
  if not chunks then
    return nil, up_to_date
  end
  return reported({
    status = #chunks == 0 and reader:stats().status or 200,
    chunks = chunks,
    offset = reader.offset,
    upToDate = up_to_date,
    streamClosed = reader.closed,
  }, sent)
end

-- --- producers ----------------------------------------------------------------------------------

local function producer_key(command)
  return table.concat({ command.path, command.producerId, ("%d"):format(command.epoch) }, "|")
end

local function make_producer(command, more)
  local opts = { producer_id = command.producerId, epoch = whole(command.epoch), auto_claim = command.autoClaim }
  for name, value in pairs(more or {}) do
    opts[name] = value
  end
  return stream_of(command):producer(opts)
end

local function kept_producer(command)
  local key = producer_key(command)
  producers[key] = producers[key] or make_producer(command)
  return producers[key], key
end

-- A producer that failed does not go on: the next command makes a new one.
local function drop(command, err)
  producers[producer_key(command)] = nil
  return nil, err
end

run["idempotent-append"] = function(command)
  local producer = kept_producer(command)
  local duplicates = producer:stats().duplicates
  local ok, err = producer:append(command.data)
  if ok then
    ok, err = producer:flush()
  end
  if not ok then
    return drop(command, err)
  end
  return { status = 200, offset = producer:state().offset, duplicate = producer:stats().duplicates > duplicates or nil }
end

run["idempotent-append-batch"] = function(command)
  local in_flight = whole(command.maxInFlight) or 1
  local producer = make_producer(command, {
    max_in_flight = in_flight,
    max_batch_items = in_flight > 1 and 1 or nil,
    linger = in_flight > 1 and 0 or 1,
  })
  for _, item in ipairs(command.items) do
    local ok, err = producer:append(item)
    if not ok then
      return nil, err
    end
  end
  local ok, err = producer:flush()
  return ok and { status = 200 }, err
end

run["idempotent-close"] = function(command)
  local done, err = kept_producer(command):close(command.data)
  if not done then
    return drop(command, err)
  end
  return { status = 200, finalOffset = done.offset }
end

run["idempotent-detach"] = function(command)
  local producer, key = kept_producer(command)
  producers[key] = nil
  local ok, err = producer:detach()
  return ok and { status = 200 }, err
end

-- --- settings -----------------------------------------------------------------------------------

local function value_maker(command)
  local count = 0
  return function()
    count = count + 1
    if command.valueType == "counter" then
      return tostring(count)
    elseif command.valueType == "timestamp" then
      return tostring(os.time() * 1000)
    end
    return command.initialValue or "token"
  end
end

run["set-dynamic-header"] = function(command)
  dynamic.headers[command.name] = value_maker(command)
  return {}
end

run["set-dynamic-param"] = function(command)
  dynamic.params[command.name] = value_maker(command)
  return {}
end

run["clear-dynamic"] = function()
  dynamic = { headers = {}, params = {} }
  return {}
end

-- The names that the suite has for our options.
local NAMES = {
  max_retries = "maxRetries",
  initial = "initialDelayMs",
  max = "maxDelayMs",
  multiplier = "multiplier",
  epoch = "epoch",
  max_batch_bytes = "maxBatchBytes",
  max_batch_items = "maxBatchItems",
}

local function seconds(ms)
  return ms and ms / 1000
end

local function try(target)
  if target.target == "retry-options" then
    durable.client({ retry = {
      max_retries = target.maxRetries,
      initial = seconds(target.initialDelayMs),
      max = seconds(target.maxDelayMs),
      multiplier = target.multiplier,
    } })
  else
    client:stream("/validate"):producer({
      producer_id = target.producerId,
      epoch = target.epoch,
      max_batch_bytes = target.maxBatchBytes,
      max_batch_items = target.maxBatchItems,
    })
  end
end

function run.validate(command)
  local ok, reason = pcall(try, command.target)
  if ok then
    return {}
  end
  local message = tostring(reason)
  for name, theirs in pairs(NAMES) do
    if message:find("'" .. name .. "'", 1, true) then
      message = theirs .. ": " .. message
    end
  end
  return nil, { code = "invalid", message = message }
end

function run.shutdown()
  client:close()
  return {}
end

-- --- the loop -----------------------------------------------------------------------------------

local function answer(command)
  local perform = run[command.type]
  if not perform then
    return failure(command, { code = "not_supported", message = "unknown command " .. tostring(command.type) })
  end
  local ok, result, err = xpcall(perform, debug.traceback, command)
  if not ok then
    return failure(command, { code = "internal", message = tostring(result) })
  elseif not result then
    return failure(command, err)
  end
  result.type, result.success = command.type, true
  return result
end

weir.run(function()
  for line in io.lines() do
    local command = assert(cjson.decode(line))
    io.stdout:write(encode(answer(command)), "\n")
    io.stdout:flush()
    if command.type == "shutdown" then
      return
    end
  end
end)
