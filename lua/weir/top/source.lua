--- Where `weir top` has its numbers from: an address that serves metrics, or an application that it runs itself.
--
-- A source has `name`, `sample()`, which waits and returns samples (or nil and an error), and `close()`. That of an
-- application also has `log()`, its last line, and `ended()`, whether it has stopped, and why.
-- @module weir.top.source

local errors = require("weir.errors")
local measures = require("weir.app.measures")
local prometheus = require("weir.top.prometheus")
local runtime = require("weir.runtime")

local M = {}

-- Bytes of the metrics, and seconds for them.
local MOST_BYTES, TIMEOUT = 16 * 1024 * 1024, 5

-- --- addresses ------------------------------------------------------------------------------------

--- The whole address for what was given: `host:port` is enough.
-- @tparam string text
-- @treturn ?string nil where it is no address
function M.url(text)
  if not text:find("^https?://") then
    if not (text:find("^[%w._-]*:%d+$") or text:find("^[%w._-]*:%d+/") or text:find("^%[[%x:.]+%]:%d+$")
      or text:find("^%[[%x:.]+%]:%d+/")) then
      return nil
    end
    text = "http://" .. (text:sub(1, 1) == ":" and "127.0.0.1" or "") .. text
  end
  local base, path = text:match("^(https?://[^/?#%s]+)([^#%s]*)$")
  if not base then
    return nil
  end
  return base .. ((path == "" or path == "/") and "/metrics" or path)
end

local Remote = {}
Remote.__index = Remote

-- An error of the client, which names the whole address.
local function without_password(self, err)
  if self.name == self.url then
    return err
  end
  local whole = self.url:gsub("%p", "%%%0")
  return errors.new(err.code, (err.message:gsub(whole, (self.name:gsub("%%", "%%%%")))))
end

function Remote:sample()
  local response, err = self.http:request({
    url = self.url,
    headers = { { "accept", "text/plain;version=0.0.4" } },
    timeout = TIMEOUT,
  })
  if not response then
    return nil, without_password(self, err)
  end
  local text
  text, err = response:body(MOST_BYTES)
  response:close()
  if not text then
    return nil, without_password(self, err)
  elseif response.status ~= 200 then
    return nil, errors.new("http", ("the status is %d, not 200: %s"):format(response.status, self.name))
  end
  local samples
  samples, err = prometheus.parse(text, runtime.pause)
  if not samples then
    return nil, errors.new("parse", ("this is no text of metrics: %s: %s"):format(err, self.name))
  end
  return samples
end

function Remote:close()
  self.http:close()
end

--- The metrics of an address.
-- @tparam string url whole; what is shown of it has no password
function M.remote(url)
  local name = url:gsub("^(https?://)[^/]*@", "%1")
  return setmetatable({ name = name, url = url, http = runtime.http({ max_connections = 1 }) }, Remote)
end

-- --- applications ---------------------------------------------------------------------------------

local Local = {}
Local.__index = Local

function Local:sample()
  return prometheus.samples(self.app.metrics:collect())
end

function Local:log()
  return self.output.last
end

function Local:ended()
  if self.app:is_live() then
    return false
  end
  local _, err = self.running:join()
  return true, err
end

function Local:close()
  self.unmeasure()
  self.running:stop()
end

--- An application, which is started.
-- @tparam table app
-- @tparam table output of `weir.top.output`: what the application says
-- @treturn ?table the source; or nil and why it does not start
function M.application(app, output)
  local self = setmetatable({ app = app, output = output, name = ("%s %s"):format(app.title, app.version) }, Local)
  app.options.log = require("weir.log").new({ level = "info", colour = false, out = function(line)
    output:note(line)
  end })
  local running, err = app:start()
  if not running then
    return nil, err
  end
  self.running = running
  self.unmeasure = measures.start(app, app.metrics)
  return self
end

return M
