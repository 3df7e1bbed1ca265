--- Key-value buckets: streams with one subject for each key, laid out as other NATS clients do.
-- @module weir.broker.nats.kv

local connections = require("weir.broker.nats.connection")
local descriptors = require("weir.broker.nats.descriptor")
local errors = require("weir.broker.nats.errors")
local pull = require("weir.broker.nats.pull")
local runtime = require("weir.runtime")
local stream = require("weir.broker.nats.stream")
local weir_errors = require("weir.errors")

local M = {}

local Bucket = { __name = "weir.nats.kv" }
Bucket.__index = Bucket

local PATIENCE = 5

local create_options = {
  history = "number",
  ttl = "number",
  max_bytes = { "number", "string" },
  max_value_size = { "number", "string" },
  storage = "string",
  replicas = "number",
}

local function configure(bucket, create)
  weir_errors.options("kv: option 'create'", create, create_options, 0)
  local history = create.history or 1
  if history % 1 ~= 0 or history < 1 or history > 64 then
    error("kv: option 'history' must be a whole number from 1 to 64", 0)
  end
  local problems = {}
  local config = descriptors.stream_config("kv", {
    storage = create.storage,
    max_msgs_per_subject = history,
    max_bytes = create.max_bytes,
    max_msg_size = create.max_value_size,
    max_age = create.ttl,
    replicas = create.replicas,
  }, problems)
  if #problems > 0 then
    error(table.concat(problems, "; "), 0)
  end
  config.name = "KV_" .. bucket
  config.subjects = { "$KV." .. bucket .. ".>" }
  config.discard = "new"
  config.allow_rollup_hdrs = true
  config.deny_delete = true
  config.allow_direct = true
  -- The server's default of two minutes must not exceed the age.
  config.duplicate_window = config.max_age and math.min(config.max_age, 120000000000) or nil
  return config
end

--- Opens a bucket; `broker:kv` does.
function M.open(broker, bucket, opts, deadline)
  opts = weir_errors.options("kv", opts, { create = { "boolean", "table" } }, 3)
  if type(bucket) ~= "string" or not bucket:find("^[%w_-]+$") then
    error("kv: the name of a bucket has letters, digits, '-' and '_' only", 3)
  end
  local create = opts.create
  if create == nil or create == true then
    create = {}
  end
  local self = {
    api = broker.api,
    connection = broker.connection,
    publisher = broker:publisher({ confirm = true }),
    bucket = bucket,
    stream = "KV_" .. bucket,
    prefix = "$KV." .. bucket .. ".",
  }
  local info, err = broker.api:stream_info(self.stream, deadline)
  if not info and err.code == "stream_not_found" and create then
    local ok, config = pcall(configure, bucket, create)
    if not ok then
      error(config, 3)
    end
    info, err = broker.api:call("STREAM.CREATE." .. self.stream, config, deadline)
  end
  if not info then
    return nil, err
  end
  self.direct = info.config.allow_direct == true
  return setmetatable(self, Bucket)
end

local function check_key(key)
  if type(key) ~= "string" or not key:find("^[%w_=/.-]+$") or ("." .. key .. "."):find("..", 1, true) then
    error("kv: a key has letters, digits and '-', '_', '=', '/', '.', and no dot at its ends or beside another", 3)
  end
end

local function operation(headers)
  local name = headers["kv-operation"]
  return name == "DEL" and "delete" or name == "PURGE" and "purge" or "put"
end

-- An entry of the answer to a direct get, which has what is known in headers.
local function direct_entry(self, message)
  local headers = message.headers
  local subject = headers["nats-subject"] or ""
  return {
    key = subject:sub(#self.prefix + 1),
    value = message.payload,
    revision = math.tointeger(tonumber(headers["nats-sequence"]) or 0),
    operation = operation(headers),
  }
end

local function entry(self, message)
  return {
    key = message.destination:sub(#self.prefix + 1),
    value = message.payload,
    revision = message.position,
    time = message.time,
    operation = operation(message.headers),
  }
end

local function last(self, key, deadline)
  if self.direct then
    local what = ("DIRECT.GET.%s.%s%s"):format(self.stream, self.prefix, key)
    local message, err = self.connection:request(self.api.prefix .. what, "", nil, deadline)
    if not message then
      return nil, err
    elseif message.headers.status then
      local code = message.headers.status == "404" and "not_found" or "protocol"
      return nil, errors.new(code, message.headers.description)
    end
    return direct_entry(self, message)
  end
  local message, err = stream.get(self.api, self.stream, { last_by_subj = self.prefix .. key }, deadline)
  if not message then
    return nil, err
  end
  return entry(self, message)
end

local function deadline_of(timeout)
  return runtime.deadline(timeout or PATIENCE, 3)
end

--- The value of a key.
-- @tparam string key
-- @tparam[opt] number timeout in seconds
-- @return the value, and its revision; or nil and an error: "not_found", ...
function Bucket:get(key, timeout)
  check_key(key)
  local found, err = last(self, key, deadline_of(timeout))
  if not found then
    return nil, err
  elseif found.operation ~= "put" then
    return nil, errors.new("not_found", key .. " was deleted")
  end
  return found.value, found.revision
end

local function store(self, key, value, headers, options, timeout)
  options = options or {}
  options.timeout = timeout
  local done, receipt = self.publisher:publish(self.prefix .. key, value, headers, options)
  if not done then
    return nil, receipt
  end
  return receipt.sequence
end

--- Sets a key, whatever it was.
-- @return its revision; or nil and an error
function Bucket:put(key, value, timeout)
  check_key(key)
  return store(self, key, value, nil, nil, timeout)
end

--- Sets a key whose revision is known.
-- @return its new revision; or nil and an error: "conflict" if somebody set it meanwhile
function Bucket:update(key, value, revision, timeout)
  check_key(key)
  return store(self, key, value, nil, { expect_last_subject_sequence = revision }, timeout)
end

--- Sets a key that is not there, or was deleted.
-- @return its revision; or nil and an error: "conflict" if it is there
function Bucket:create(key, value, timeout)
  check_key(key)
  local revision, err = self:update(key, value, 0, timeout)
  if revision or err.code ~= "conflict" then
    return revision, err
  end
  local found = last(self, key, deadline_of(timeout))
  if found and found.operation ~= "put" then
    return self:update(key, value, found.revision, timeout)
  end
  return nil, err
end

--- Deletes a key; its history stays.
-- @tparam string key
-- @tparam[opt] number revision "conflict" if it has another
function Bucket:delete(key, revision, timeout)
  check_key(key)
  local options = revision and { expect_last_subject_sequence = revision } or nil
  local done, err = store(self, key, "", { ["KV-Operation"] = "DEL" }, options, timeout)
  if not done then
    return nil, err
  end
  return true
end

--- The keys, sorted.
function Bucket:keys(timeout)
  local watch, err = self:watch(nil, nil, timeout)
  if not watch then
    return nil, err
  end
  local keys = {}
  local deadline = deadline_of(timeout)
  while watch.initial > 0 do
    local found, why = watch:next(math.max(0, deadline - runtime.now()))
    if not found then
      watch:close()
      return nil, why
    end
    if found.operation == "put" then
      keys[#keys + 1] = found.key
    end
  end
  watch:close()
  table.sort(keys)
  return keys
end

local Watch = { __name = "weir.nats.watch" }
Watch.__index = Watch

--- The next change: `key`, `value`, `revision`, `operation` ("put", "delete", "purge").
-- @tparam[opt] number timeout in seconds
function Watch:next(timeout)
  local message, err = self.subscription:next(timeout)
  if not message then
    return nil, err
  end
  message:ack()
  if self.initial > 0 then
    self.initial = self.initial - 1
  end
  return entry(self.bucket, message)
end

--- Ends it.
function Watch:close()
  return self.subscription:close()
end

Watch.__close = Watch.close

--- Changes of keys, beginning with what is there; `initial` is how many entries of that are still to come.
-- @tparam[opt] string keys a pattern; all when left out
-- @tparam[opt] table opts `new`: only changes from now on
-- @return a watch with `next` and `close`; or nil and an error
function Bucket:watch(keys, opts, timeout)
  opts = weir_errors.options("watch", opts, { new = "boolean" }, 2)
  local subject = self.prefix .. (keys or ">")
  if not connections.native.subject_valid(subject, true) then
    error("watch: keys are given as one key or a pattern such as \"users.*\"", 2)
  end
  local descriptor = assert(descriptors.jetstream({
    name = subject,
    stream = self.stream,
    deliver_policy = opts.new and "new" or "last_per_subject",
    inactive_threshold = 300,
  }))
  local subscription, err = pull.open(self.api, descriptor, deadline_of(timeout))
  if not subscription then
    return nil, err
  end
  local initial = subscription.pending
  return setmetatable({ bucket = self, subscription = subscription, initial = initial }, Watch)
end

function Bucket:__tostring()
  return ("weir.nats.kv(%s)"):format(self.bucket)
end

return M
