--- The API of JetStream: requests in JSON to subjects of the server's.
--
-- libnats has calls for these, which block; over our own requests they only suspend.
-- @module weir.broker.nats.jetstream

local cjson = require("cjson").new()
local errors = require("weir.broker.nats.errors")

local M = {}

local encode

local function encode_array(list)
  local parts = {}
  for i, value in ipairs(list) do
    parts[i] = encode(value)
  end
  return "[" .. table.concat(parts, ",") .. "]"
end

local function encode_object(object)
  local parts = {}
  for name, value in pairs(object) do
    -- Nobody knows whether an empty table is an array; to the server, what is left out is empty.
    if type(value) ~= "table" or next(value) ~= nil then
      parts[#parts + 1] = cjson.encode(name) .. ":" .. encode(value)
    end
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

-- cjson writes whole numbers above 14 digits with an exponent, and the server takes none: a week in
-- nanoseconds has 15.
function encode(value)
  if type(value) == "number" then
    local whole = math.tointeger(value)
    return whole and ("%d"):format(whole) or ("%.17g"):format(value)
  elseif type(value) ~= "table" then
    return cjson.encode(value)
  elseif value[1] ~= nil then
    return encode_array(value)
  end
  return encode_object(value)
end

M.encode = encode
M.decode = cjson.decode

local Api = {}
Api.__index = Api

--- Makes the API of a connection.
function M.new(connection)
  return setmetatable({ connection = connection, prefix = connection.settings.api }, Api)
end

--- A whole number of the server's JSON.
function M.integer(value)
  return math.tointeger(tonumber(value) or 0) or 0
end

--- The number as JSON takes it: seconds as whole nanoseconds.
function M.nanoseconds(seconds)
  return seconds and math.floor(seconds * 1e9)
end

--- Seconds since 1970 as RFC 3339.
function M.timestamp(seconds)
  local whole = math.floor(seconds)
  return ("%s.%09dZ"):format(os.date("!%Y-%m-%dT%H:%M:%S", whole), math.floor((seconds - whole) * 1e9))
end

-- Days since 1970 of a date of the Gregorian calendar (year, month from 1, day).
local function days(year, month, day)
  if month <= 2 then
    year, month = year - 1, month + 12
  end
  local era = math.floor(year / 400)
  local of_era = year - era * 400
  local of_year = math.floor((153 * (month - 3) + 2) / 5) + day - 1
  return era * 146097 + of_era * 365 + math.floor(of_era / 4) - math.floor(of_era / 100) + of_year - 719468
end

--- RFC 3339 in UTC as seconds since 1970; nil for anything else.
function M.seconds(text)
  local year, month, day, hour, minute, second = tostring(text):match("^(%d+)-(%d+)-(%d+)T(%d+):(%d+):([%d.]+)Z$")
  if not year then
    return nil
  end
  local date = days(tonumber(year), tonumber(month), tonumber(day))
  return date * 86400 + tonumber(hour) * 3600 + tonumber(minute) * 60 + tonumber(second)
end

-- Reads an answer.
local function read(message, doing)
  local ok, answer = pcall(cjson.decode, message.payload)
  if not ok or type(answer) ~= "table" then
    return nil, errors.new("protocol", doing)
  elseif type(answer.error) == "table" then
    return nil, errors.jetstream(answer.error, doing)
  end
  return answer
end

--- Asks the API.
-- @tparam string what the subject below the prefix, such as "STREAM.INFO.ORDERS"
-- @tparam ?table body
-- @tparam[opt] number deadline
-- @return the answer as a table; or nil and an error
function Api:call(what, body, deadline)
  local payload = body and encode(body) or ""
  local message, err = self.connection:request(self.prefix .. what, payload, nil, deadline)
  if not message then
    if err.code == "no_responders" then
      err = errors.new("unsupported", "the server has no JetStream for this account: " .. what)
    end
    return nil, err
  end
  return read(message, what)
end

--- The same for an answer that is not JSON: a message; or nil and an error from its status.
function Api:get(what, body, deadline)
  local message, err = self.connection:request(self.prefix .. what, encode(body), nil, deadline)
  if not message then
    return nil, err
  end
  local status = message.headers.status
  if status then
    return nil, errors.jetstream({ code = tonumber(status), description = message.headers.description }, what)
  end
  return message
end

--- The stream that takes a subject; nil and "no_stream" where there is none.
function Api:stream_of(subject, deadline)
  local answer, err = self:call("STREAM.NAMES", { subject = subject }, deadline)
  if not answer then
    return nil, err
  end
  local name = type(answer.streams) == "table" and answer.streams[1]
  if not name then
    return nil, errors.new("no_stream", subject)
  end
  return name
end

function Api:stream_info(stream, deadline)
  return self:call("STREAM.INFO." .. stream, nil, deadline)
end

-- Whether one of the subjects of a stream covers a subject, token by token.
local function covers(pattern, subject)
  local names = subject:gmatch("[^.]+")
  for token in pattern:gmatch("[^.]+") do
    local name = names()
    if token == ">" then
      return name ~= nil
    elseif not name or (token ~= "*" and token ~= name) or (token == "*" and name == ">") then
      return false
    end
  end
  return names() == nil
end

--- Sees to a stream that takes a subject: makes it, or adds the subject to those it has.
-- @tparam string stream
-- @tparam string subject
-- @tparam table config fields of its configuration
function Api:ensure_stream(stream, subject, config, deadline)
  local info, err = self:stream_info(stream, deadline)
  if not info and err.code ~= "stream_not_found" then
    return nil, err
  elseif not info then
    local wanted = { name = stream, subjects = { subject } }
    for field, value in pairs(config) do
      wanted[field] = value
    end
    info, err = self:call("STREAM.CREATE." .. stream, wanted, deadline)
    if info or err.server_code ~= 10058 then
      return info, err
    end
    -- Somebody else made it meanwhile.
    info, err = self:stream_info(stream, deadline)
    if not info then
      return nil, err
    end
  end
  local subjects = info.config.subjects or {}
  for _, each in ipairs(subjects) do
    if covers(each, subject) then
      return info
    end
  end
  subjects[#subjects + 1] = subject
  info.config.subjects = subjects
  return self:call("STREAM.UPDATE." .. stream, info.config, deadline)
end

local function consumer_config(descriptor)
  local start = descriptor.deliver_policy
  if descriptor.start_sequence then
    start = "by_start_sequence"
  elseif descriptor.start_time then
    start = "by_start_time"
  end
  return {
    durable_name = descriptor.durable,
    deliver_policy = start,
    opt_start_seq = descriptor.start_sequence,
    opt_start_time = descriptor.start_time and M.timestamp(descriptor.start_time),
    ack_wait = M.nanoseconds(descriptor.ack_wait),
    max_deliver = descriptor.max_deliver,
    max_ack_pending = descriptor.max_ack_pending,
    filter_subject = descriptor.filter,
    inactive_threshold = M.nanoseconds(descriptor.inactive_threshold),
  }
end

--- Makes the consumer of a descriptor, or takes the durable one that is there and changes what the descriptor says
-- otherwise.
-- @return what the server says of it; or nil and an error
function Api:ensure_consumer(stream, descriptor, deadline)
  local config = consumer_config(descriptor)
  local durable = descriptor.durable
  if durable then
    local info, err = self:call(("CONSUMER.INFO.%s.%s"):format(stream, durable), nil, deadline)
    if not info and err.code ~= "consumer_not_found" then
      return nil, err
    elseif info then
      local same, given = true, config
      config = info.config
      for field, value in pairs(given) do
        same = same and config[field] == value
        config[field] = value
      end
      if same then
        return info
      end
    end
  end
  config.ack_policy = config.ack_policy or "explicit"
  config.deliver_policy = config.deliver_policy or "all"
  local what = durable and ("CONSUMER.DURABLE.CREATE.%s.%s"):format(stream, durable) or "CONSUMER.CREATE." .. stream
  return self:call(what, { stream_name = stream, config = config }, deadline)
end

return M
