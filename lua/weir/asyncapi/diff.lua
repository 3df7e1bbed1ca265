--- What has changed between two AsyncAPI documents, and what of it breaks those who are at the other end.
--
-- The direction decides: an application that takes less than before breaks who sends to it; one that sends more kinds
-- of values than before breaks who takes them from it. What the extensions of weir say of retries, batches and dead
-- letters is worth a note; dead letters that come nowhere any more break who takes them from there.
-- @module weir.asyncapi.diff

local codec = require("weir.codec")
local errors = require("weir.errors")
local narrow = require("weir.asyncapi.narrow")
local pointer = require("weir.asyncapi.pointer")
local text = require("weir.asyncapi.text")

local RECEIVED = {
  alternative = "no longer takes what alternative %s allows",
  alternatives = "must fit one of %s alternatives now",
  any_type = "took any type, and takes %s only now",
  bound = "must have %s now",
  changed = "has another '%s' now",
  closed = "no longer takes properties that are not named",
  condition = "must fit what depends on a condition now ('if')",
  contains = "must contain other items now",
  excluded = "no longer takes what 'not' describes",
  nothing = "takes nothing any more",
  pattern = "must match %s now",
  removed = "no longer takes this property",
  required = "is required now",
  type = "no longer takes %s",
  value = "no longer takes the value %s",
  values = "takes only %s now",
}

local SENT = {
  alternative = "may be something else than before (alternative %s)",
  alternatives = "need no longer fit one of %s alternatives",
  any_type = "may have any type now, and was %s",
  bound = "need no longer have %s",
  changed = "had another '%s' before",
  closed = "may have properties that are not named now",
  condition = "need no longer fit what depends on a condition ('if')",
  contains = "need no longer contain the items that it did",
  excluded = "may be what 'not' kept out",
  nothing = "may be there now",
  pattern = "need no longer match %s",
  removed = "may be there now",
  required = "need no longer be there",
  type = "may be %s now",
  value = "may be %s now",
  values = "may be something else than %s now",
}

local Diff = {}
Diff.__index = Diff

local function as_table(value)
  return type(value) == "table" and value or {}
end

local function sorted(set)
  local names = {}
  for name in pairs(as_table(set)) do
    names[#names + 1] = tostring(name)
  end
  table.sort(names)
  return names
end

function Diff:breaks(where, message, ...)
  table.insert(self.breaking, { where = where, message = message:format(...) })
end

function Diff:notes(where, message, ...)
  table.insert(self.other, { where = where, message = message:format(...) })
end

local function set_of(list)
  local set = {}
  for _, each in ipairs(as_table(list)) do
    set[tostring(each)] = true
  end
  return set
end

-- --- extensions ------------------------------------------------------------------------------------

-- Levels of tables whose fields are compared one by one.
local LEVELS = 4
-- Bytes of a value that are shown.
local SHOWN = 200

local function cut(value)
  return #value <= SHOWN and value or value:sub(1, SHOWN) .. "..."
end

local function shown(value)
  if value == nil or value == codec.null then
    return "none"
  elseif type(value) == "table" then
    local whole = text.to_json({ value })
    return whole and whole:gsub("%s+", " "):gsub("^%[ ", ""):gsub(" %] $", "") or "something"
  end
  return tostring(value)
end

-- Notes what has changed in a value, by its fields.
function Diff:value(where, name, old, new, level)
  if type(old) == "table" and type(new) == "table" and old[1] == nil and new[1] == nil and level < LEVELS then
    local names = {}
    for _, each in ipairs({ old, new }) do
      for key in pairs(each) do
        names[key] = true
      end
    end
    for _, key in ipairs(sorted(names)) do
      self:value(where, name .. "." .. key, old[key], new[key], level + 1)
    end
    return
  end
  local before, after = shown(old), shown(new)
  if before ~= after then
    self:notes(where, "%s is %s now, and was %s", name, cut(after), cut(before))
  end
end

-- The addresses that dead letters go to.
local function graves_of(document)
  local set = {}
  for _, operation in pairs(as_table(document.operations)) do
    local address = as_table(as_table(operation)["x-weir-dead-letter"]).address
    if address ~= nil then
      set[address] = true
    end
  end
  return set
end

function Diff:extensions(where, old, new)
  local before = as_table(old["x-weir-dead-letter"]).address
  if before ~= nil and before ~= as_table(new["x-weir-dead-letter"]).address and not graves_of(self.new)[before] then
    self:breaks(where, "its dead letters do not go to %s any more, and no others do", shown(before))
  end
  local names = { bindings = true }
  for _, each in ipairs({ old, new }) do
    for name in pairs(each) do
      names[name] = type(name) == "string" and name:find("^x%-") and true or names[name]
    end
  end
  for _, name in ipairs(sorted(names)) do
    self:value(where, name, old[name], new[name], 1)
  end
end

-- --- messages --------------------------------------------------------------------------------------

local function payload_of(message, name)
  local value = message[name]
  if type(value) == "table" and value.schemaFormat then
    return value.schema
  end
  return value
end

-- What the one who takes it refuses. `sent`: the application is the other one.
function Diff:refused(old, new, name, sent)
  local before, after = payload_of(old, name), payload_of(new, name)
  if sent then
    return narrow(self.new, after, self.old, before)
  end
  return narrow(self.old, before, self.new, after)
end

local function fits(self, old, new, sent)
  return #self:refused(old, new, "payload", sent) == 0 and #self:refused(old, new, "headers", sent) == 0
end

local function content_type_of(document, message)
  return message.contentType or document.defaultContentType
end

function Diff:message(where, old, new, sent)
  local before, after = content_type_of(self.old, old), content_type_of(self.new, new)
  if before ~= after then
    self:breaks(where, "its content type is %s now, and was %s", tostring(after or "unknown"),
      tostring(before or "unknown"))
  end
  local texts = sent and SENT or RECEIVED
  for _, name in ipairs({ "payload", "headers" }) do
    for _, each in ipairs(self:refused(old, new, name, sent)) do
      local path = each.path ~= "" and name .. " " .. each.path or name
      self:breaks(where, "%s: %s", path, texts[each.kind]:format(tostring(each.detail)))
    end
  end
end

-- The messages of an operation or a reply, by key; all of the channel's where it names none.
local function messages_of(document, holder, channel)
  local result = {}
  if type(holder.messages) == "table" then
    for _, each in ipairs(holder.messages) do
      local reference = as_table(each)["$ref"]
      if type(reference) == "string" then
        result[pointer.key(reference)] = as_table(pointer.resolve(document, each))
      end
    end
  else
    for key, each in pairs(as_table(channel.messages)) do
      result[tostring(key)] = as_table(pointer.resolve(document, each))
    end
  end
  return result
end

local function fits_any(self, one, list, sent, reversed)
  for _, each in pairs(list) do
    local old, new = one, each
    if reversed then
      old, new = each, one
    end
    if fits(self, old, new, sent) then
      return true
    end
  end
  return false
end

function Diff:messages(where, old, new, sent)
  for _, key in ipairs(sorted(old)) do
    local place = ("%s: message %s"):format(where, key)
    if new[key] then
      self:message(place, old[key], new[key], sent)
    elseif sent then
      self:breaks(place, "is no longer sent")
    elseif fits_any(self, old[key], new, sent) then
      self:notes(place, "is called otherwise now")
    else
      self:breaks(place, "is no longer taken")
    end
  end
  for _, key in ipairs(sorted(new)) do
    if not old[key] then
      local place = ("%s: message %s"):format(where, key)
      if sent and next(old) and not fits_any(self, new[key], old, sent, true) then
        self:breaks(place, "is sent now, and is like none that was")
      else
        self:notes(place, "is new")
      end
    end
  end
end

-- --- channels --------------------------------------------------------------------------------------

-- An address without the names of its parameters, but with the values that they can have; nil where it has none.
local function shape(channel)
  local address, parameters = as_table(channel).address, as_table(as_table(channel).parameters)
  return type(address) == "string" and address:gsub("{([^}]*)}", function(name)
    local values = set_of(as_table(parameters[name]).enum)
    return ("{%s}"):format(table.concat(sorted(values), "|"))
  end) or nil
end

-- Where something that refers to a channel goes: for people, and to compare.
local function target(document, holder)
  local reference = as_table(holder.channel)["$ref"]
  local channel = as_table(pointer.resolve(document, holder.channel))
  local place = shape(channel)
  return channel, place or "(where the message says)", type(reference) == "string" and pointer.key(reference) or ""
end

function Diff:channels()
  local old, new = as_table(self.old.channels), as_table(self.new.channels)
  local shapes = {}
  for _, channel in pairs(new) do
    shapes[shape(channel) or false] = true
  end
  for _, id in ipairs(sorted(old)) do
    local where, before, after = "channel " .. id, shape(old[id]), new[id] ~= nil and shape(new[id])
    if new[id] == nil and not (before and shapes[before]) then
      self:breaks(where, "is gone")
    elseif new[id] == nil then
      self:notes(where, "has another id now")
    elseif before ~= after then
      self:breaks(where, "its address is %s now, and was %s", after or "unknown", before or "unknown")
    end
  end
  for _, id in ipairs(sorted(new)) do
    if old[id] == nil then
      self:notes("channel " .. id, "is new")
    end
  end
end

-- --- operations ------------------------------------------------------------------------------------

function Diff:reply(where, old, new, sent)
  if old == nil and new == nil then
    return
  elseif new == nil then
    return self:breaks(where, "has no reply any more")
  elseif old == nil then
    return self:notes(where, "has a reply now")
  end
  old, new = as_table(pointer.resolve(self.old, old)), as_table(pointer.resolve(self.new, new))
  local old_channel, before = target(self.old, old)
  local new_channel, after = target(self.new, new)
  local location, other = as_table(old.address).location, as_table(new.address).location
  if before ~= after then
    self:breaks(where, "its reply goes to %s now, and went to %s", after, before)
  elseif location ~= other then
    self:breaks(where, "its reply goes where %s says now, and went where %s said", shown(other), shown(location))
  end
  self:messages(where .. ": reply", messages_of(self.old, old, old_channel), messages_of(self.new, new, new_channel),
    not sent)
end

function Diff:operation(where, old, new)
  local old_channel, before = target(self.old, old)
  local new_channel, after = target(self.new, new)
  if old.action ~= new.action then
    return self:breaks(where, "its action is %s now, and was %s", tostring(new.action), tostring(old.action))
  elseif before ~= after then
    self:breaks(where, "its channel is %s now, and was %s", after, before)
  end
  local sent = old.action == "send"
  self:messages(where, messages_of(self.old, old, old_channel), messages_of(self.new, new, new_channel), sent)
  self:reply(where, old.reply, new.reply, sent)
  self:extensions(where, old, new)
end

-- An operation that only has another id now: the only new one with the same action and channel.
local function renamed(self, old, list, candidates)
  local _, place = target(self.old, old)
  local found
  for _, id in ipairs(candidates) do
    local each = as_table(list[id])
    local _, there = target(self.new, each)
    if each.action == old.action and there == place then
      if found then
        return nil
      end
      found = id
    end
  end
  return found
end

function Diff:operations()
  local old, new = as_table(self.old.operations), as_table(self.new.operations)
  local added, taken = {}, {}
  for _, id in ipairs(sorted(new)) do
    added[#added + 1] = old[id] == nil and id or nil
  end
  for _, id in ipairs(sorted(old)) do
    local before = as_table(old[id])
    local other = new[id] ~= nil and id or renamed(self, before, new, added)
    if not other or taken[other] then
      self:breaks(id, before.action == "send" and "nothing is sent there any more" or "nobody receives there any more")
    else
      taken[other] = true
      if other ~= id then
        self:notes(id, "is called %s now", other)
      end
      self:operation(id, before, as_table(new[other]))
    end
  end
  for _, id in ipairs(added) do
    if not taken[id] then
      self:notes(id, "is new")
    end
  end
end

-- --- servers ---------------------------------------------------------------------------------------

local function schemes_of(document, server)
  local types = {}
  for _, each in ipairs(as_table(server.security)) do
    types[tostring(as_table(pointer.resolve(document, each)).type)] = true
  end
  return types
end

function Diff:security(where, old, new)
  local before, after = schemes_of(self.old, old), schemes_of(self.new, new)
  if next(after) == nil then
    return
  elseif next(before) == nil then
    return self:breaks(where, "asks for %s now", table.concat(sorted(after), " or "))
  end
  for _, scheme in ipairs(sorted(before)) do
    if not after[scheme] then
      self:breaks(where, "no longer takes %s", scheme)
    end
  end
end

function Diff:servers()
  local old, new = as_table(self.old.servers), as_table(self.new.servers)
  for _, id in ipairs(sorted(old)) do
    local where = "server " .. id
    local before, after = as_table(pointer.resolve(self.old, old[id])), as_table(pointer.resolve(self.new, new[id]))
    if new[id] == nil then
      self:breaks(where, "is gone")
    else
      if before.protocol ~= after.protocol then
        self:breaks(where, "speaks %s now, and spoke %s", tostring(after.protocol), tostring(before.protocol))
      end
      for _, name in ipairs({ "host", "pathname" }) do
        if before[name] ~= after[name] then
          self:notes(where, "its %s is %s now", name, tostring(after[name] or "none"))
        end
      end
      self:security(where, before, after)
    end
  end
  for _, id in ipairs(sorted(new)) do
    if old[id] == nil then
      self:notes("server " .. id, "is new")
    end
  end
end

-- --- all -------------------------------------------------------------------------------------------

local function check(document, which)
  local version = as_table(document).asyncapi
  if type(version) ~= "string" or not version:find("^3%.") then
    local what = type(version) == "string" and "AsyncAPI " .. version:sub(1, 20) or "no AsyncAPI document"
    return nil, errors.new("unsupported", ("the %s document is %s; AsyncAPI 3 is compared"):format(which, what))
  end
  return true
end

--- Compares two documents.
-- @tparam table old
-- @tparam table new
-- @treturn ?table `breaking` and `other`, lists of `{ where, message }`
-- @return or an error: "unsupported" (no AsyncAPI 3), "too_large"
return function(old, new)
  local ok, err = check(old, "old")
  if ok then
    ok, err = check(new, "new")
  end
  if not ok then
    return nil, err
  end
  local self = setmetatable({ old = old, new = new, breaking = {}, other = {} }, Diff)
  local raised
  ok, raised = pcall(function()
    self:servers()
    self:channels()
    self:operations()
  end)
  if ok then
    return { breaking = self.breaking, other = self.other }
  elseif errors.is(raised) then
    return nil, raised
  end
  error(raised, 0)
end
