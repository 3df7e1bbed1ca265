--- Shows what is published to a destination, beside whoever handles it.
-- @module weir.repl.tail

local codec = require("weir.codec")
local content = require("weir.app.content")
local printer = require("weir.repl.print")
local tasks = require("weir.task")

local M = {}

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

local function run(self, show)
  while true do
    local message, err = self.subscription:next()
    if not message then
      if err.code ~= "stopped" and err.code ~= "cancelled" then
        show(("%s: ended: %s\n"):format(self.name, printer.clean(tostring(err))))
      end
      return
    end
    show(("%s <- %s\n"):format(printer.clean(message.destination or self.name, 200), printer.format(value_of(message))))
    message:ack()
  end
end

--- Ends it.
function Tail:close()
  self.subscription:stop()
  self.task:cancel("the tail ends")
  pcall(self.task.join, self.task, 1)
  self.subscription:close(1)
end

--- Begins to show.
-- @tparam table broker
-- @tparam string name
-- @tparam function show takes lines
-- @treturn table with `close`; or nil and an error
function M.open(broker, name, show)
  local descriptor, err = broker:descriptor(name)
  if not descriptor then
    return nil, err
  end
  local subscription
  subscription, err = broker:subscribe(descriptor, 10)
  if not subscription then
    return nil, err
  end
  local self = setmetatable({ name = name, subscription = subscription }, Tail)
  self.task = tasks.spawn(run, self, show)
  return self
end

return M
