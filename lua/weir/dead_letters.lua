--- Dead letters: messages that could not be handled, with the reason. They can be looked at, sent back to where they
-- came from, and removed.
--
--     local letters = weir.dead_letters(broker, "orders.dead")
--     for _, letter in ipairs(letters:list()) do print(letter.error, letter.payload) end -- cursor(): one at a time
--     letters:replay({ filter = function(letter) return letter.error_code == "timeout" end })
--
-- A letter is a table: `payload` and `headers` as the message had them, `destination` (where it was published first),
-- `error` and `error_code`, `attempts`, `failed_at` (of its first failure) and `dead_at` (times, ISO 8601), `handler`.
-- @module weir.dead_letters

local contract = require("weir.broker.contract")
local errors = require("weir.errors")

local names = contract.headers

local Letters = { __name = "weir.dead_letters" }
Letters.__index = Letters

-- Letters that are looked at, when nobody says how many.
local LIMIT = 1000
-- Seconds without a further letter after which there are no more.
local IDLE = 0.5

local REPLAY = { limit = "number", filter = "function", to = "string", idle = "number", on_letter = "function" }
local REMOVE = { limit = "number", filter = "function", idle = "number" }

local OWN = {}
for _, name in pairs(names) do
  OWN[name] = true
end

local function letter_of(message)
  local headers = {}
  for name, value in pairs(message.headers) do
    if not OWN[name] then
      headers[name] = value
    end
  end
  local of = message.headers
  return {
    payload = message.payload,
    headers = headers,
    destination = of[names.origin],
    error = of[names.error],
    error_code = of[names.error_code],
    attempts = tonumber(of[names.attempt]),
    failed_at = of[names.failed_at],
    dead_at = of[names.dead_at],
    handler = of[names.handler],
    position = message.position,
  }
end

local Cursor = { __name = "weir.dead_letters.cursor" }
Cursor.__index = Cursor

--- The next letter.
-- @tparam[opt] number timeout in seconds
-- @treturn ?letter nil at the end
-- @return or an error
function Cursor:next(timeout)
  local message, err = self.messages:next(timeout)
  if message then
    return letter_of(message)
  end
  return nil, err
end

--- Ends it.
function Cursor:close()
  self.messages:close()
end

Cursor.__close = Cursor.close

-- A cursor of a broker that gives lists alone.
local function over_list(list)
  local at = 0
  return {
    next = function()
      at = at + 1
      return list[at]
    end,
    close = function()
      list = {}
    end,
  }
end

--- Looks at letters one after the other, oldest first, and leaves them where they are. Where the broker has cursors, no
-- more than one is held at a time; `list` holds them all.
-- @tparam[opt=1000] number limit of letters, where the broker has no cursors
-- @return a cursor: `next([timeout])`, `close()`; or nil and an error: "unsupported", "closed", ...
function Letters:cursor(limit)
  local broker = self.broker
  local messages, err
  if broker.cursor then
    messages, err = broker:cursor(self.name)
  elseif broker.browse then
    messages, err = broker:browse(self.name, limit or LIMIT)
    messages = messages and over_list(messages)
  else
    err = contract.unsupported(broker.kind, "way to look at messages without taking them")
  end
  if not messages then
    return nil, err
  end
  return setmetatable({ messages = messages }, Cursor)
end

--- Lists letters, oldest first, and leaves them where they are.
-- @tparam[opt=1000] number limit
-- @treturn {letter,...}; or nil and an error: "unsupported", "closed", ...
function Letters:list(limit)
  limit = limit or LIMIT
  local cursor, err = self:cursor(limit)
  if not cursor then
    return nil, err
  end
  return contract.collect(cursor, limit)
end

local function subscribe(self)
  local descriptor, err
  if self.broker.dead_letters then
    descriptor, err = self.broker:dead_letters(self.name)
  else
    err = contract.unsupported(self.broker.kind, "place where dead letters are kept")
  end
  if not descriptor then
    return nil, err
  end
  return self.broker:subscribe(descriptor)
end

-- Takes letters one after the other. `act(letter)` returns true when it is done with it, false to leave it,
-- nil and an error to stop.
local function each(self, options, act)
  local subscription, err = subscribe(self)
  if not subscription then
    return nil, err
  end
  local done, left = 0, {}
  local message
  while done + #left < (options.limit or LIMIT) do
    message, err = subscription:next(options.idle or IDLE)
    if not message then
      err = err.code ~= "timeout" and err or nil
      break
    end
    local finished, failure = act(letter_of(message))
    if finished then
      done = done + 1
      failure = select(2, message:ack())
    else
      left[#left + 1] = message
    end
    if failure then
      err = failure
      break
    end
  end
  for _, one in ipairs(left) do
    one:nack()
  end
  subscription:close()
  return done, err, #left
end

--- Publishes letters again where they were published first, as they were; those that the broker has confirmed are
-- removed. A letter that cannot be published stays, and the replay ends there.
-- @tparam[opt] table options
-- @tparam[opt] function options.filter of a letter: whether to replay it; the others stay
-- @tparam[opt=1000] number options.limit letters that are looked at
-- @tparam[opt] string options.to a destination in place of theirs
-- @tparam[opt=0.5] number options.idle seconds without a further letter after which there are no more
-- @tparam[opt] function options.on_letter called with each that was replayed
-- @treturn ?number how many were replayed
-- @return the error that ended it, or nil
-- @treturn ?number how many were left
function Letters:replay(options)
  options = errors.options("letters:replay", options, REPLAY, 2)
  local publisher = self.origin:publisher()
  return each(self, options, function(letter)
    if options.filter and not options.filter(letter) then
      return false
    end
    local to = options.to or letter.destination
    if not to then
      return nil, errors.new("no_destination", "a letter does not say where it came from; name a destination with 'to'")
    end
    local ok, err = publisher:publish(to, letter.payload, letter.headers)
    if ok and publisher.flush then
      ok, err = publisher:flush()
    end
    if not ok then
      return nil, err
    end
    if options.on_letter then
      options.on_letter(letter)
    end
    return true
  end)
end

--- Removes letters.
-- @tparam[opt] table options `filter`, `limit` and `idle`, as for `replay`; without a filter all go
-- @treturn ?number how many were removed
-- @return the error that ended it, or nil
-- @treturn ?number how many were left
function Letters:remove(options)
  options = errors.options("letters:remove", options, REMOVE, 2)
  return each(self, options, function(letter)
    return not options.filter or options.filter(letter) and true or false
  end)
end

function Letters:__tostring()
  return ("weir.dead_letters(%s)"):format(self.name)
end

--- The dead letters of a name.
-- @tparam table broker where they are; connected
-- @tparam string name
-- @tparam[opt=broker] table origin the broker that they came from, to which `replay` publishes
return function(broker, name, origin)
  contract.check(broker, 2)
  if type(name) ~= "string" or name == "" then
    error("weir.dead_letters: a name is expected, not " .. tostring(name), 2)
  end
  return setmetatable({ broker = broker, name = name, origin = origin or broker }, Letters)
end
