--- Notes what happens in an application: the observer that the application layer tells.
-- @module weir.test.recorder

local content = require("weir.app.content")
local codecs = require("weir.codec")
local contract = require("weir.broker.contract")
local records = require("weir.test.records")
local subscriber = require("weir.test.subscriber")

local recorder = {}

local Recorder = { __name = "weir.test.recorder" }
Recorder.__index = Recorder

local names = contract.headers

-- A payload as a value, by its content type; nil where it cannot be.
local function decode(payload, headers)
  local codec = codecs.get("json")
  local content_type = headers["content-type"]
  if content_type then
    codec = content.codec(content_type, codec)
  end
  local ok, value = pcall(codec.decode, payload)
  return ok and value or nil
end

--- Makes one.
function recorder.new()
  local self = setmetatable({
    subscribers = {}, -- by id of the registration
    published_items = {},
    dead_items = {},
    failures = {},
    events = 0, -- changes with everything that happens
    awaited = nil, -- tells a live kit what was published and settled
  }, Recorder)
  self.observer = self:make_observer()
  return self
end

--- The subscriber of a registration.
function Recorder:of(registration)
  local found = self.subscribers[registration.id]
  if not found then
    found = subscriber.new(registration.id)
    self.subscribers[registration.id] = found
  end
  return found
end

local function note_error(self, registration, handler, err)
  self.noted = err
  local of = self:of(registration)
  of.errors[#of.errors + 1] = err
  table.insert(self.failures, { subscriber = registration.id, handler = handler and handler.id, error = err })
end

--- The functions that the application calls.
function Recorder:make_observer()
  local observer = {}

  function observer.received(registration, message)
    self.events = self.events + 1
    table.insert(self:of(registration).all_received, {
      payload = message.payload,
      headers = message.headers,
      key = message.key,
      destination = message.destination,
    })
  end

  function observer.handled(registration, handler, value, ctx, outcome, err)
    self.events, self.noted = self.events + 1, nil
    if outcome == "fail" then
      note_error(self, registration, handler, err)
    end
    if value == nil then
      return -- it was not decoded, so nobody was called
    end
    local batch = rawget(ctx, "batch")
    table.insert(self:of(registration).all_calls, {
      value = value,
      headers = not batch and ctx.headers or nil,
      attempt = not batch and ctx.attempt or nil,
      key = not batch and ctx.key or nil,
      batch = batch,
      handler = handler.id,
      outcome = outcome,
      error = err,
    })
  end

  -- What the handler did was told already; its answer may have failed, too.
  function observer.failed(registration, handler, _, class, err)
    if class ~= "retry" and err ~= self.noted then
      note_error(self, registration, handler, err)
    end
  end

  function observer.settled(registration, message, how)
    self.events = self.events + 1
    local list = self:of(registration).all_outcomes
    list[#list + 1] = how
    if self.awaited then
      self.awaited:settled(registration, message, how)
    end
  end

  function observer.published(label, destination, payload, headers)
    self.events = self.events + 1
    table.insert(self.published_items, {
      broker = label,
      to = destination,
      payload = payload,
      headers = headers,
      key = headers["partition-key"],
      value = decode(payload, headers),
    })
    if self.awaited then
      self.awaited:published(label, destination, headers)
    end
  end

  function observer.dead_lettered(_, _, message, to, headers)
    self.events = self.events + 1
    table.insert(self.dead_items, {
      to = to,
      payload = message.payload,
      headers = headers,
      value = decode(message.payload, headers),
      error = headers[names.error],
      code = headers[names.error_code],
      attempts = tonumber(headers[names.attempt]),
      handler = headers[names.handler],
      origin = headers[names.origin],
    })
  end

  return observer
end

local function chosen(items, name)
  local list = {}
  for _, item in ipairs(items) do
    if name == nil or item.to == name then
      list[#list + 1] = item
    end
  end
  return list
end

--- What the application published to a destination, all of it when left out.
function Recorder:published(name)
  return records.new(name and ("published to '%s'"):format(name) or "published", chosen(self.published_items, name))
end

--- What became a dead letter there, or anywhere.
function Recorder:dead_letters(name)
  local what = name and ("made a dead letter of '%s'"):format(name) or "made a dead letter"
  return records.new(what, chosen(self.dead_items, name))
end

--- Forgets everything.
function Recorder:clear()
  self.subscribers, self.published_items, self.dead_items, self.failures = {}, {}, {}, {}
end

return recorder
