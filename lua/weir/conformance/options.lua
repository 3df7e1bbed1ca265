--- What a conformance run has to know of a broker.
-- @module weir.conformance.options

local errors = require("weir.errors")

local options = {}

local KNOWN = {
  name = "string",
  make = "function",
  probe = "function",
  descriptor = "function",
  subject = "function",
  prepare = "function",
  shared = "boolean",
  server = "table",
  program = "string",
  unauthorized = "function",
  secret = "string",
  max_payload = "number",
  bad_destinations = "table",
  redelivery = "number",
  broker_moves = "table",
  timeouts = "table",
  skip = "table",
  seed = "number",
  in_process = "boolean",
}

local SERVER = { kill = "function", start = "function", port = "number", host = "string" }

local MOVES = { descriptor = "function", refused = "function", attempts = "number", dead = "function" }

--- Seconds.
--
-- - `delivery`: a message that is there must have arrived
-- - `negative`: after so long what has not come does not come
-- - `step`: connect, subscribe, shut down, publish
-- - `redelivery`: what was given back must have come again
-- - `delay`: the delay that is asked for
-- - `server`: a server that was started again must serve again
-- - `check`: a check as a whole; twice that for the long ones
options.TIMEOUTS = {
  delivery = 2,
  negative = 0.1,
  step = 10,
  redelivery = 10,
  delay = 1.5,
  server = 30,
  check = 60,
}

-- A bare name where nothing else is asked for; no form of subscription for more.
local function bare(name, wanted)
  if next(wanted) == nil then
    return name
  end
end

local function merge(defaults, given, what)
  local known, result = {}, {}
  for name, value in pairs(defaults) do
    known[name], result[name] = type(value), value
  end
  for name, value in pairs(errors.options(what, given, known, 4)) do
    result[name] = value
  end
  return result
end

--- Checks options and fills in defaults. Raises for misuse.
--
-- - `name`: of the broker, for people
-- - `make()`: makes a broker that is not connected; called for each connection
-- - `probe()`: the same for asking what it is capable of, where `make` cannot be called yet; `make` when left out
-- - `descriptor(name, wanted)`: what `broker:subscribe` gets for a name. `wanted` may have `group` (members share),
--   `durable` (the group stays when nobody is there), `ack_wait` (seconds until an unsettled delivery goes to somebody
--   else), `prefetch`. Nil where there is no such subscription; the checks that need it are skipped. Left out: only
--   bare names.
-- - `subject(text)`: makes a name of the broker's of a text of letters, digits and dots
-- - `prepare(broker, subject)`: what must be done before a name can be used; the broker is connected
-- - `shared`: whether what two brokers of `make` publish reaches both: there is a server
-- - `server`: `{ kill = function, start = function, port = number, host = "127.0.0.1" }`: ends the server, without
--   warning, and starts it again with what it had kept; `start` does nothing where it runs
-- - `program`: Lua text that returns such options again, for a process that is killed
-- - `unauthorized()`: makes a broker with wrong credentials; `secret`: a password that `make` uses
-- - `max_payload`: the largest payload in bytes, without headers
-- - `bad_destinations`: names that cannot be published to
-- - `redelivery`: seconds after which the broker gives an unsettled delivery to somebody else where it was asked for no
--   `ack_wait`; left out where it never does
-- - `broker_moves`: for brokers that move dead letters themselves: `attempts`, how often they deliver; and functions:
--   `descriptor(name, dead)`, with the cap and the place; `dead(name)`, the name of the place; `refused(name)`, a list
--   of descriptors that say only one half
-- - `timeouts`: see `TIMEOUTS`
-- - `skip`: names of checks to the reasons why they are left out
-- - `seed`: of the random bytes
-- - `in_process`: false leaves the second run on the twin in process out, where other options have had it already
-- @tparam table given
-- @treturn table
function options.check(given)
  errors.options("weir.conformance", given, KNOWN, 3)
  if type(given) ~= "table" or not given.make then
    error("weir.conformance: 'make' is missing: a function that makes a broker", 3)
  end
  errors.options("weir.conformance: server", given.server, SERVER, 3)
  errors.options("weir.conformance: broker_moves", given.broker_moves, MOVES, 3)
  local result = {}
  for name, value in pairs(given) do
    result[name] = value
  end
  result.name = given.name or "broker"
  result.probe = given.probe or given.make
  result.descriptor = given.descriptor or bare
  result.skip = given.skip or {}
  result.shared = given.shared or false
  result.seed = given.seed or 20
  result.timeouts = merge(options.TIMEOUTS, given.timeouts, "weir.conformance: timeouts")
  return result
end

--- The same for the in-process twin of the broker: there is no server, and nothing is shared.
-- @tparam table checked
-- @treturn table
function options.in_process(checked)
  local result = {}
  for name, value in pairs(checked) do
    result[name] = value
  end
  local clock = require("weir.clock")
  local function twin(make)
    return function()
      return make():in_process(clock)
    end
  end
  result.name = checked.name .. " in process"
  result.make, result.probe = twin(checked.make), twin(checked.probe)
  result.shared = false
  result.server, result.program, result.unauthorized, result.secret, result.prepare = nil, nil, nil, nil, nil
  result.is_in_process = true
  return result
end

return options
