--- Shows what is published to a destination, beside whoever handles it.
--
-- On a terminal some messages of each second are shown and the others counted, so that there is still something to read
-- and room to type where many go by.
-- @module weir.repl.tail

local codec = require("weir.codec")
local content = require("weir.app.content")
local printer = require("weir.repl.print")
local runtime = require("weir.runtime")
local tasks = require("weir.task")

local M = {}

-- Messages that are shown in a second on a terminal.
local MOST = 20

local Tail = { __name = "weir.repl.tail" }
Tail.__index = Tail

local function value_of(message)
  local kind = message.headers and message.headers["content-type"]
  if kind then
    local ok, value = pcall(content.codec(kind, codec.get("json")).decode, message.payload)
    if ok and value ~= nil then
      return value
    end
  end
  return message.payload
end

-- A second is over: says how many were not shown in it.
local function end_second(self)
  self.second = nil
  if self.unseen > 0 then
    self.show(("%s: %d more\n"):format(self.name, self.unseen))
  end
end

-- Whether one more message is to be shown.
local function has_room(self)
  if not self.bounded then
    return true
  elseif not self.second then
    self.shown, self.unseen = 0, 0
    self.second = runtime.timer(runtime.now() + 1, function()
      end_second(self)
    end)
  end
  if self.shown < MOST then
    self.shown = self.shown + 1
    return true
  end
  self.unseen = self.unseen + 1
  return false
end

local function run(self)
  while true do
    local message, err = self.subscription:next()
    if not message then
      if err.code ~= "stopped" and err.code ~= "cancelled" then
        self.show(("%s: ended: %s\n"):format(self.name, printer.clean(tostring(err))))
      end
      return
    end
    if has_room(self) then
      local where, value = message.destination or self.name, value_of(message)
      self.show(("%s <- %s\n"):format(printer.clean(where, 200), printer.format(value)))
    end
    message:ack()
  end
end

--- Ends it.
function Tail:close()
  self.subscription:stop()
  self.task:cancel("the tail ends")
  pcall(self.task.join, self.task, 1)
  self.subscription:close(1)
  if self.second then
    self.second:cancel()
    end_second(self)
  end
end

--- Begins to show.
-- @tparam table broker
-- @tparam string name
-- @tparam function show takes lines
-- @tparam boolean bounded whether only some messages of each second are shown
-- @treturn table with `close`; or nil and an error
function M.open(broker, name, show, bounded)
  local descriptor, err = broker:descriptor(name)
  if not descriptor then
    return nil, err
  end
  local subscription
  subscription, err = broker:subscribe(descriptor, 10)
  if not subscription then
    return nil, err
  end
  local self = setmetatable({ name = name, subscription = subscription, show = show, bounded = bounded }, Tail)
  self.task = tasks.spawn(run, self)
  return self
end

return M
