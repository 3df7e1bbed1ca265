--- Descriptors: what a subscription of the NATS broker is.
-- @module weir.broker.nats.descriptor

local connections = require("weir.broker.nats.connection")
local errors = require("weir.errors")
local options = require("weir.broker.nats.options")

local M = {}

local Descriptor = { __name = "weir.nats.descriptor" }
Descriptor.__index = Descriptor

local subject_options = { group = "string", messages = "number", bytes = { "number", "string" }, name = "string" }

local stream_options = {
  name = "string",
  filter = "string",
  stream = "string",
  durable = "string",
  ack_wait = "number",
  max_ack_pending = "number",
  max_deliver = "number",
  deliver_policy = "string",
  start_sequence = "number",
  start_time = "number",
  batch = "number",
  expires = "number",
  inactive_threshold = "number",
  confirm_ack = "boolean",
  create = { "boolean", "table" },
}

local policies = { all = true, last = true, new = true, last_per_subject = true }

local create_options = {
  subjects = "table",
  storage = "string",
  retention = "string",
  discard = "string",
  max_msgs = "number",
  max_msgs_per_subject = "number",
  max_bytes = { "number", "string" },
  max_msg_size = { "number", "string" },
  max_age = "number",
  duplicates = "number",
  replicas = "number",
}
M.create_options = create_options

--- Whether a name has wildcards.
function M.is_pattern(name)
  local text = "." .. name .. "."
  return text:find(".*.", 1, true) ~= nil or text:find(".>.", 1, true) ~= nil
end

local function check_name(what, name, problems)
  if type(name) ~= "string" or not connections.native.subject_valid(name, true) then
    local text = "%s: %q is no subject: tokens with dots between them, no white space, '>' only at the end"
    problems[#problems + 1] = text:format(what, tostring(name))
  end
end

-- Names of streams and consumers are part of subjects.
local function check_part(what, option, name, problems)
  if name ~= nil and (name == "" or #name > 255 or name:find("[%s%.%*>/\\%c]")) then
    problems[#problems + 1] = ("%s: option '%s': %q must have no dots, wildcards, slashes and spaces"):format(
      what,
      option,
      name
    )
  end
end

-- Calls a check that raises, and keeps what it says.
local function keep(problems, fn, ...)
  local ok, result = pcall(fn, ...)
  if ok then
    return result
  end
  problems[#problems + 1] = tostring(result)
end

-- Checks options; every one that is wrong is a problem of its own.
local function check_options(what, opts, known, problems)
  local fine = {}
  for option, value in pairs(type(opts) == "table" and opts or {}) do
    local ok, err = pcall(errors.options, what, { [option] = value }, known, 0)
    if ok then
      fine[option] = value
    else
      problems[#problems + 1] = tostring(err):gsub("^[^\n:]-:%d+: ", "")
    end
  end
  if opts ~= nil and type(opts) ~= "table" then
    problems[#problems + 1] = ("%s: options must be a table, not %s"):format(what, type(opts))
  end
  return fine
end

local function conclude(descriptor, problems)
  if #problems > 0 then
    return nil, errors.new("invalid", table.concat(problems, "; "), { broker = "nats", problems = problems })
  end
  return setmetatable(descriptor, Descriptor)
end

--- A core subject.
-- @tparam string name a subject; with `*` or `>` a pattern
-- @tparam[opt] table opts `group`: members of one share the messages; `messages`, `bytes`: how much may wait here
-- @return a descriptor; or nil and an error that lists what is wrong
function M.subject(name, opts)
  local problems = {}
  opts = check_options("nats.subject", opts, subject_options, problems)
  check_name("nats.subject", name, problems)
  local what = "nats.subject"
  local group = opts.group
  if group and (group == "" or group:find("[%s%c]")) then
    problems[#problems + 1] = what .. ": option 'group' must have no spaces"
  end
  return conclude({
    kind = "subject",
    name = name,
    pattern = type(name) == "string" and M.is_pattern(name) or nil,
    group = group,
    messages = keep(problems, options.count, what, "messages", opts.messages, 1),
    bytes = keep(problems, options.bytes, what, "bytes", opts.bytes),
  }, problems)
end

local function check_start(what, opts, problems)
  local policy = opts.deliver_policy
  if policy and not policies[policy] then
    problems[#problems + 1] = what
      .. ": option 'deliver_policy' must be one of all, last, last_per_subject, new; "
      .. "others are start_sequence and start_time"
  end
  local given = (policy and 1 or 0) + (opts.start_sequence and 1 or 0) + (opts.start_time and 1 or 0)
  if given > 1 then
    problems[#problems + 1] = what .. ": only one of deliver_policy, start_sequence and start_time can be given"
  end
end

--- Checks how a stream is to be made; returns the configuration without what was not given.
function M.stream_config(what, create, problems)
  create = keep(problems, errors.options, what, create ~= true and create or {}, create_options, 0) or {}
  local one_of = {
    storage = { file = true, memory = true },
    retention = { limits = true, interest = true, workqueue = true },
    discard = { old = true, new = true },
  }
  for option, allowed in pairs(one_of) do
    if create[option] and not allowed[create[option]] then
      local names = {}
      for name in pairs(allowed) do
        names[#names + 1] = name
      end
      table.sort(names)
      problems[#problems + 1] = ("%s: option '%s' must be one of %s"):format(what, option, table.concat(names, ", "))
    end
  end
  local function nanoseconds(option)
    local seconds = keep(problems, options.seconds, what, option, create[option])
    return seconds and math.floor(seconds * 1e9)
  end
  return {
    subjects = create.subjects,
    storage = create.storage,
    retention = create.retention,
    discard = create.discard,
    max_msgs = keep(problems, options.count, what, "max_msgs", create.max_msgs, 1),
    max_msgs_per_subject = keep(problems, options.count, what, "max_msgs_per_subject", create.max_msgs_per_subject, 1),
    max_bytes = keep(problems, options.bytes, what, "max_bytes", create.max_bytes),
    max_msg_size = keep(problems, options.bytes, what, "max_msg_size", create.max_msg_size),
    max_age = nanoseconds("max_age"),
    duplicate_window = nanoseconds("duplicates"),
    num_replicas = keep(problems, options.count, what, "replicas", create.replicas, 1),
  }
end

--- A consumer of a stream.
-- @tparam table opts see docs/nats.md
-- @tparam[opt] table settings of the broker
-- @return a descriptor; or nil and an error that lists what is wrong
function M.jetstream(opts, settings)
  local what, problems = "nats.jetstream", {}
  opts = check_options(what, opts, stream_options, problems)
  local name = opts.name or opts.filter
  if name == nil then
    problems[#problems + 1] = what .. ": the option 'name', a subject of the stream, is missing"
  else
    check_name(what, name, problems)
  end
  if opts.filter then
    check_name(what .. ": option 'filter'", opts.filter, problems)
  end
  check_part(what, "stream", opts.stream, problems)
  check_part(what, "durable", opts.durable, problems)
  check_start(what, opts, problems)
  if opts.create and not opts.stream then
    problems[#problems + 1] = what .. ": option 'create' needs the option 'stream'"
  end
  local max_deliver = opts.max_deliver
  if max_deliver ~= -1 then
    max_deliver = keep(problems, options.count, what, "max_deliver", max_deliver, 1)
  end
  local filter = opts.filter or name
  return conclude({
    kind = "jetstream",
    name = name,
    filter = filter,
    pattern = type(filter) == "string" and M.is_pattern(filter) or nil,
    stream = opts.stream,
    durable = opts.durable,
    ack_wait = keep(problems, options.seconds, what, "ack_wait", opts.ack_wait) or (settings or {}).ack_wait,
    max_ack_pending = keep(problems, options.count, what, "max_ack_pending", opts.max_ack_pending, 1),
    max_deliver = max_deliver,
    deliver_policy = opts.deliver_policy,
    start_sequence = keep(problems, options.count, what, "start_sequence", opts.start_sequence, 1, nil, 2 ^ 53),
    start_time = opts.start_time,
    batch = keep(problems, options.count, what, "batch", opts.batch, 1, 256),
    expires = keep(problems, options.seconds, what, "expires", opts.expires, 30),
    inactive_threshold = keep(problems, options.seconds, what, "inactive_threshold", opts.inactive_threshold),
    confirm_ack = opts.confirm_ack,
    create = opts.create and M.stream_config(what .. ": option 'create'", opts.create, problems) or nil,
  }, problems)
end

--- Whether it is one.
function M.is(value)
  return getmetatable(value) == Descriptor
end

-- The consumer that the members of a group share at a subject: "billing-orders-new". Only letters and digits stay what
-- they are, so that different subjects have different consumers.
local function shared_name(group, subject)
  return group .. "-" .. tostring(subject):gsub("[^%w]", function(byte)
    return byte == "." and "-" or ("_%02X"):format(byte:byte())
  end)
end

--- A descriptor of what an application says: a name, a table of options, or a descriptor. `settings.jetstream` has
-- defaults for those of streams; its `group` gives each subject a durable consumer that all of the group share.
function M.from(spec, settings)
  if M.is(spec) then
    return spec
  elseif type(spec) == "string" then
    spec = { name = spec }
  elseif type(spec) ~= "table" then
    error("nats: a descriptor is a subject, or a table of options with `name`, not " .. type(spec), 3)
  end
  local defaults = settings.jetstream
  local stream = defaults ~= nil and not spec.group
  for option in pairs(spec) do
    stream = stream or (stream_options[option] and not subject_options[option])
  end
  if not stream then
    return M.subject(spec.name, spec)
  end
  local merged = {}
  for option, value in pairs(defaults or {}) do
    merged[option] = value
  end
  for option, value in pairs(spec) do
    merged[option] = value
  end
  local group = defaults and defaults.group
  if group ~= nil then
    merged.group = nil
    local subject = merged.filter or merged.name
    merged.durable = merged.durable or type(group) == "string" and shared_name(group, subject) or nil
  end
  return M.jetstream(merged, settings)
end

function Descriptor:__tostring()
  return ("weir.nats.descriptor(%s %s)"):format(self.kind, self.name)
end

return M
