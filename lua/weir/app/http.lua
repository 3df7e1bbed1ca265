--- Metrics, health and a live page of an application over HTTP.
--
-- - `/metrics`: for Prometheus
-- - `/livez`: 200 while the process answers and the application has not failed
-- - `/readyz`: 200 when it runs and all its brokers are up, else 503; JSON says which is not
-- - `/asyncapi`: its AsyncAPI document
-- - `/events`: a snapshot each second, as server-sent events
-- - `/`: a page that shows them
--
-- The server listens from the start hooks of the application until it has stopped, so that `/readyz` tells how the
-- start and the end go on.
-- @module weir.app.http

local address = require("weir.http.address")
local cjson = require("cjson").new()
local collect = require("weir.app.collect")
local errors = require("weir.errors")
local http = require("weir.http")
local measures = require("weir.app.measures")
local prometheus = require("weir.metrics.prometheus")
local runtime = require("weir.runtime")
local snapshot = require("weir.app.snapshot")
local tasks = require("weir.task")
local text = require("weir.utf8")

local M = {}

-- Seconds between two events, for which a snapshot is good for other clients too, and for the server to close.
local EVERY, FRESH, CLOSING = 1, 0.5, 1

local OPTIONS = {
  listen = "string",
  insecure = "boolean",
  hosts = "table",
  network = "table",
  routes = "table",
}

local Endpoint = { __name = "weir.app.http" }
Endpoint.__index = Endpoint

-- --- what is answered -----------------------------------------------------------------------------

local function registry_of(app)
  return app.running and app.running.metrics or app.metrics
end

-- With arrays that stay arrays when they are empty. Large numbers are rounded, which the codec of messages refuses.
local function to_json(value)
  return (cjson.encode(value):gsub('"(%a+)":{}', function(name)
    return ('"%s":%s'):format(name, (name == "runtime" or name == "outcomes") and "{}" or "[]")
  end))
end

local NO_STORE = { ["cache-control"] = "no-store", ["content-type"] = "application/json" }

local function answer_json(status, value)
  return status, NO_STORE, to_json(value) .. "\n"
end

local function ready(app)
  local health = app:health()
  return answer_json(health.ready and 200 or 503, {
    ready = health.ready,
    state = health.state,
    error = health.error and text.valid(tostring(health.error)) or nil,
    brokers = snapshot.brokers(health),
  })
end

local function live(app)
  local state = app:health().state
  return answer_json(state == "failed" and 503 or 200, { live = state ~= "failed", state = state })
end

local function describe(app)
  local asyncapi = require("weir.asyncapi")
  local document, err = asyncapi.document(app)
  local written
  if document then
    written, err = asyncapi.to_json(document)
  end
  if not written then
    return 500, nil, tostring(err) .. "\n"
  end
  return 200, { ["content-type"] = "application/vnd.aai.asyncapi+json;version=" .. asyncapi.VERSION }, written
end

-- The text of a snapshot, which all who look at the same moment share.
local function current(self)
  local now = runtime.now()
  if not self.taken or now - self.taken > FRESH then
    self.taken, self.text = now, to_json(snapshot.take(self.app, registry_of(self.app), self.history))
  end
  return self.text
end

local function events(self)
  local begun = false
  return 200, { ["cache-control"] = "no-store", ["content-type"] = "text/event-stream", ["x-accel-buffering"] = "no" },
    function()
      if begun and not tasks.sleep(EVERY) then
        return nil
      end
      begun = true
      return http.event(current(self))
    end
end

-- All metrics; those of very many subscriptions in pieces, with turns for everything else in between.
local function metrics(registry)
  local pieces = prometheus.pieces(registry)
  local first, second = pieces(), pieces()
  if not second then
    return first
  end
  local made = { first, second }
  return function()
    runtime.pause()
    return table.remove(made, 1) or pieces()
  end
end

local function page()
  return 200, {
    ["cache-control"] = "no-cache",
    ["content-type"] = "text/html; charset=utf-8",
    ["content-security-policy"] = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
      .. " connect-src 'self'; frame-ancestors 'none'",
    ["x-content-type-options"] = "nosniff",
  }, require("weir.app.page")
end

local function routes_of(self)
  local app = self.app
  local routes = {
    ["GET /"] = page,
    ["GET /asyncapi"] = function()
      return describe(app)
    end,
    ["GET /events"] = function()
      return events(self)
    end,
    ["GET /livez"] = function()
      return live(app)
    end,
    ["GET /metrics"] = function()
      return 200, { ["content-type"] = prometheus.CONTENT_TYPE }, metrics(registry_of(app))
    end,
    ["GET /readyz"] = function()
      return ready(app)
    end,
  }
  for route, handler in pairs(self.options.routes or {}) do
    routes[route] = handler
  end
  return http.routes(routes)
end

-- --- start and end --------------------------------------------------------------------------------

local function measure(self)
  local app, registry = self.app, registry_of(self.app)
  self.measures[1] = measures.start(app, registry)
  local network = self.options.network
  if network then
    self.measures[2] = require("weir.metrics.streams")(registry, network)
  end
end

-- Workers of `weir run --workers` are processes of their own, and each tells of itself: the first one at the address,
-- the others at the ports, or sockets, that follow.
local function address_of(self)
  local where, number = self.options.listen, tonumber(os.getenv("WEIR_WORKER")) or 1
  local read = number > 1 and address.read(where) or ""
  local start, port = read:match("^(tcp://.*:)(%d+)$")
  if start and port ~= "0" then
    return ("%s%d"):format(start, port + number - 1)
  end
  return read:find("^unix:") and ("%s.%d"):format(read, number) or where
end

local function open(self)
  local log = self.app:logger()
  local server, err = http.listen(address_of(self), self.handler, {
    insecure = self.options.insecure,
    hosts = self.options.hosts,
    log = log,
  })
  if not server then
    return nil, err
  end
  self.server, self.url, self.measures = server, server.url, {}
  self.history, self.taken = snapshot.history(), nil
  measure(self)
  log:info("metrics, health and a live page are served", { url = self.url })
end

local function close(self)
  if self.server then
    for _, stop in ipairs(self.measures) do
      stop()
    end
    self.server:close(CLOSING)
    self.server, self.url = nil, nil
  end
end

function Endpoint:__tostring()
  return ("weir.app.http(%s)"):format(self.url or self.options.listen)
end

--- Lets an application serve them while it runs.
-- @tparam table app
-- @tparam table options
-- @tparam string options.listen an address, such as "http://127.0.0.1:9090" (port 0: any); worker N of
--   `weir run --workers` adds N - 1 to the port
-- @tparam[opt=false] boolean options.insecure listen on addresses that other machines reach, too
-- @tparam[opt] {string,...} options.hosts names, besides those of this machine, under which it may be asked
-- @param[opt] options.network of `weir.network`, whose streams are measured, too
-- @tparam[opt] table options.routes more of `weir.http.routes`
-- @return what serves them: `url` while it does
function M.add(app, options)
  options = errors.options("app:http", options, OPTIONS, 3)
  if not options.listen then
    error("app:http: 'listen' is missing: an address such as \"http://127.0.0.1:9090\"", 3)
  elseif app:is_live() then
    error("app:http: it must be called before the application starts", 3)
  end
  local self = setmetatable({ app = app, options = options }, Endpoint)
  self.handler = routes_of(self)
  local source = collect.source(3)
  table.insert(app.hooks.startup, 1, {
    source = source,
    fn = function()
      return open(self)
    end,
  })
  table.insert(app.hooks.stopped, {
    source = source,
    fn = function()
      close(self)
    end,
  })
  return self
end

return M
