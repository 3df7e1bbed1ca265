--- A small HTTP server on luv that takes what a collector takes, and answers as it is told.
local luv = require("luv")
local support = require("spec.lua.app.support")
local decoder = require("spec.lua.otlp.decoder")

local Collector = {}
Collector.__index = Collector

local function hang_up(self, client)
  if not client:is_closing() then
    client:close(function()
      self.open = self.open - 1
    end)
  end
end

local function respond(self, client, request)
  self.requests[#self.requests + 1] = request
  local answer = table.remove(self.answers, 1) or self.usual
  if answer == "silence" then
    return
  elseif answer == "hang up" then
    return hang_up(self, client)
  end
  if #request.body > self.most then
    answer = { status = 413 }
  end
  local body = answer.body or "{}"
  client:write(("HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%s\r\n%s"):format(
    answer.status or 200, #body, answer.headers or "", body))
  if (answer.status or 200) == 200 then
    if request.path == "/v1/traces" then
      local spans, resource = decoder.traces(request.body)
      self.resource = resource
      for _, span in ipairs(spans) do
        self.spans[#self.spans + 1] = span
      end
    else
      self.metrics = decoder.metrics(request.body)
      for _, each in pairs(self.metrics) do
        self.points = self.points + #each.points
      end
    end
  end
end

-- The first request in the text, and what comes after it.
local function parse(text)
  local head, rest = text:match("^(.-\r\n)\r\n(.*)$")
  if not head then
    return nil, text
  end
  local length = tonumber(head:lower():match("\r\ncontent%-length: (%d+)")) or 0
  if #rest < length then
    return nil, text
  end
  local request = { head = head, path = head:match("^%u+ (%S+)"), body = rest:sub(1, length), at = luv.hrtime() / 1e9 }
  return request, rest:sub(length + 1)
end

local function accept(self)
  local client = luv.new_tcp()
  self.server:accept(client)
  self.clients[#self.clients + 1] = client
  self.open = self.open + 1
  local text = ""
  client:read_start(function(_, data)
    if not data then
      return hang_up(self, client)
    end
    text = text .. data
    local request
    repeat
      request, text = parse(text)
      if request then
        local ok, err = pcall(respond, self, client, request)
        if not ok then
          self.errors[#self.errors + 1] = err
        end
      end
    until not request
  end)
end

-- All of it is over when this returns: luv calls nothing back that belongs to a Lua state which ends.
function Collector:close()
  for _, handle in ipairs({ self.server, table.unpack(self.clients) }) do
    if not handle:is_closing() then
      handle:close(function()
        self.open = self.open - 1
      end)
    end
  end
  support.eventually(function()
    return self.open == 0
  end)
end

--- The span of a name; of several the n-th.
function Collector:span(name, n)
  local left = n or 1
  for _, span in ipairs(self.spans) do
    if span.name == name then
      left = left - 1
      if left == 0 then
        return span
      end
    end
  end
end

--- Opens one.
-- @tparam[opt] {table,...} answers to the first requests: `{ status, headers, body }`, "silence" or "hang up"
return function(answers)
  local self = setmetatable({
    answers = answers or {},
    usual = { status = 200 },
    requests = {},
    spans = {},
    points = 0, -- of all metrics that came
    most = math.huge, -- bytes of a request that is not too large
    errors = {},
    clients = {},
    open = 1, -- handles that luv has
    server = luv.new_tcp(),
  }, Collector)
  self.server:bind("127.0.0.1", 0)
  self.server:listen(16, function()
    accept(self)
  end)
  self.url = "http://127.0.0.1:" .. self.server:getsockname().port
  return self
end
