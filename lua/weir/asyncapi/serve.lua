--- The document of an application as a page, with a form that sends messages.
--
--     require("weir.asyncapi.serve").run(app, { listen = "http://127.0.0.1:8000" })
--
-- - `GET /`: the page; one file, nothing from elsewhere
-- - `GET /asyncapi`: the document
-- - `POST /publish`: sends a message to where an operation of the application receives from
--
-- Brokers are connected when the first message is sent to them. A message to the memory broker reaches handlers of this
-- process alone, so with `run` the application runs here, too.
-- @module weir.asyncapi.serve

local asyncapi = require("weir.asyncapi")
local channels = require("weir.channel")
local codec = require("weir.codec")
local errors = require("weir.errors")
local addresses = require("weir.http.address")
local http = require("weir.http")
local id = require("weir.id")
local name = require("weir.asyncapi.name")
local pointer = require("weir.asyncapi.pointer")
local signals = require("weir.app.signals")
local utf8_text = require("weir.utf8")

local M = {}

-- Seconds for a broker to connect, a message to be taken, and an answer to come.
local CONNECT, PUBLISH, ANSWER = 5, 5, 5
-- Where it listens when nobody says.
local DEFAULT = "http://127.0.0.1:8000"
-- Bytes of an address that is made of parameters.
local LONGEST_NAME = 1024

local Service = {}
Service.__index = Service

-- --- what can be sent ------------------------------------------------------------------------------

-- The operations that receive: by id, with channel, broker and content type.
local function receiving(app, document)
  local labels, result = {}, {}
  for _, each in ipairs(app.brokers) do
    labels[name.id(each.label)] = each
  end
  for key, operation in pairs(document.operations) do
    if operation.action == "receive" then
      local channel = pointer.resolve(document, operation.channel)
      local message = pointer.resolve(document, operation.messages[1])
      result[key] = {
        channel = channel,
        broker = labels[pointer.key(channel.servers[1]["$ref"])],
        content_type = message.contentType,
        replies = operation.reply ~= nil and operation.reply.address ~= nil,
      }
    end
  end
  return result
end

local function bad(message, ...)
  return nil, errors.new("invalid", message:format(...), { status = 400 })
end

-- Why a value is none for a parameter of an address; nil where it is one.
local function wrong_parameter(key, value)
  if type(value) ~= "string" or value == "" then
    return "is missing"
  elseif value:find("[%s%c*>]") then
    return "must have no spaces and no wildcards"
  elseif key:find("^token") and value:find(".", 1, true) then
    return "is one token, without dots"
  elseif ("." .. value .. "."):find("..", 1, true) then
    return "must have no empty tokens"
  end
end

-- The destination that the parameters make of an address.
local function destination_of(channel, given)
  local wrong
  local address = channel.address:gsub("{([^{}]*)}", function(key)
    local parameter = (channel.parameters or {})[key]
    if not parameter then
      return nil
    elseif parameter.enum then
      return parameter.enum[1]
    end
    local why = wrong_parameter(key, given[key])
    wrong = wrong or (why and ("the parameter '%s' of the address %s"):format(key, why))
    return why and "" or given[key]
  end)
  if wrong then
    return bad("%s", wrong)
  elseif #address > LONGEST_NAME then
    return bad("the address is too long")
  end
  return address
end

-- The payload of a JSON text, in the codec of the channel.
local function payload_of(text, content_type)
  if type(text) ~= "string" then
    return bad("'payload' must be a text")
  end
  local chosen = codec.by_content_type(content_type or "application/json")
  if not chosen or chosen.raw then
    return text
  end
  local value, err = codec.get("json").decode(text)
  if value == nil then
    return bad("the payload is no JSON: %s", err.message)
  elseif chosen.name == "json" then
    return text -- digit by digit as it was written
  end
  return chosen.encode(value)
end

local function headers_of(given, content_type)
  local headers = {}
  for key, value in pairs(given) do
    if type(value) == "number" or type(value) == "boolean" then
      value = tostring(value):gsub("^(%-?%d+)%.0$", "%1")
    end
    if type(value) ~= "string" or type(key) ~= "string" or key:find("[^%w!#$%%&'*+.^_`|~-]") or value:find("%c") then
      return bad("the header '%s' is none", tostring(key):sub(1, 100))
    end
    headers[key:lower()] = value
  end
  headers["content-type"] = headers["content-type"] or content_type
  headers["message-id"] = headers["message-id"] or id.message()
  headers["correlation-id"] = headers["correlation-id"] or headers["message-id"]
  return headers
end

-- --- sending ---------------------------------------------------------------------------------------

function Service:publisher(link)
  if not self.running and link.broker.kind == "memory" and not link.broker:describe().pathname then
    return nil, errors.new("unsupported", "the broker 'memory:' lives within one process, and the handlers do not run"
      .. " in this one; give --run to run them here")
  end
  local known = self.publishers[link]
  if known then
    return known
  end
  local ok, err = true, nil
  if not self.running then
    ok, err = link.broker:connect(CONNECT)
  end
  local publisher
  if ok then
    publisher, err = link.broker:publisher()
  end
  self.publishers[link] = publisher
  return publisher, err
end

local function send(publisher, broker, wants, destination, payload, headers)
  if wants and broker:capabilities().request then
    local answer, err = publisher:request(destination, payload, headers, ANSWER)
    if not answer then
      return nil, err
    end
    local text = answer.payload
    local found = codec.by_content_type(answer.headers["content-type"] or "")
    if found and not found.raw and found.name ~= "json" then
      local value = found.decode(text)
      text = value ~= nil and codec.get("json").encode(value) or text
    end
    return { sent = destination, reply = utf8_text.valid(text), content_type = answer.headers["content-type"] }
  end
  local ok, err = publisher:publish(destination, payload, headers)
  if ok then
    ok, err = publisher:flush(PUBLISH)
  end
  return ok and { sent = destination } or nil, err
end

-- Sends what a request of the page asks for: the result as plain data; or nil and an error.
function Service:publish(request)
  local content_type = request.headers["content-type"] or ""
  if not content_type:lower():find("^application/json") then
    return nil, errors.new("invalid", "application/json is expected", { status = 415 })
  end
  local asked = codec.get("json").decode(request.body or "")
  if type(asked) ~= "table" then
    return bad("the body is no JSON object")
  end
  local known = self.operations[asked.operation]
  if not known then
    return bad("the application has no such operation that receives")
  end
  local parameters, headers = asked.parameters, asked.headers
  local destination, err = destination_of(known.channel, type(parameters) == "table" and parameters or {})
  local payload
  if destination then
    payload, err = payload_of(asked.payload, known.content_type)
  end
  if payload then
    headers, err = headers_of(type(headers) == "table" and headers or {}, known.content_type)
  end
  if not payload or not headers then
    return nil, err
  end
  local publisher
  publisher, err = self:publisher(known.broker)
  if not publisher then
    return nil, err
  end
  return send(publisher, known.broker.broker, known.replies, destination, payload, headers)
end

-- --- answers ---------------------------------------------------------------------------------------

local function json_answer(status, value)
  return status, { ["content-type"] = "application/json", ["cache-control"] = "no-store" },
    assert(codec.get("json").encode(value)) .. "\n"
end

local function page()
  return 200, {
    ["content-type"] = "text/html; charset=utf-8",
    ["cache-control"] = "no-cache",
    ["content-security-policy"] = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
      .. " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ["x-content-type-options"] = "nosniff",
    ["referrer-policy"] = "no-referrer",
  }, require("weir.asyncapi.page")
end

local function routes_of(self)
  return {
    ["GET /"] = page,
    ["GET /asyncapi"] = function()
      return 200, { ["content-type"] = "application/vnd.aai.asyncapi+json;version=" .. asyncapi.VERSION }, self.text
    end,
    ["POST /publish"] = function(request)
      local result, err = self:publish(request)
      if result then
        return json_answer(200, result)
      end
      return json_answer(err.code == "invalid" and (err.status or 400) or 502,
        { error = utf8_text.valid(err.message), code = err.code })
    end,
  }
end

-- --- running ---------------------------------------------------------------------------------------

local function explain(err, listen)
  if errors.is(err, "insecure") then
    local message = "%s can be reached by others, who could send messages; listen on 127.0.0.1"
    return errors.with(err, { message = message:format(listen) })
  elseif errors.is(err, "in_use") then
    return errors.with(err, { message = ("%s is in use; choose another with --listen, port 0 for any"):format(listen) })
  end
  return err
end

-- The page alone, until a signal.
local function run_page(self, options)
  local server, err = http.listen(options.listen, http.routes(routes_of(self)))
  if not server then
    return nil, explain(err, options.listen)
  end
  local ended = channels(1)
  local unwatch = signals.watch(function(number)
    ended:try_send(number)
  end)
  options.ready(server.url)
  local signal = ended:recv()
  server:close(1)
  for link in pairs(self.publishers) do
    link.broker:shutdown(PUBLISH)
  end
  unwatch()
  return signal and 128 + signal or 0
end

-- The page and the application, until a signal or until the application ends.
local function run_app(self, app, options)
  self.running = true
  local endpoint = app:http({ listen = options.listen, routes = routes_of(self) })
  app:on("started", function()
    options.ready(endpoint.url)
  end)
  local ok, signal = app:run()
  if not ok then
    return nil, explain(signal, options.listen)
  end
  return signal and 128 + signal or 0
end

--- Serves the page until SIGINT or SIGTERM.
-- @tparam table app
-- @tparam table options `listen` (of `weir.http.address`; `http://127.0.0.1:8000` when left out), `run` (whether the
--   application runs, too), `ready(url)`, which is called when the page can be had
-- @treturn ?number the status to exit with: 128 and the number of the signal
-- @return or an error: "in_use", "insecure", "bad_url", or why the application could not run
function M.run(app, options)
  options.listen = options.listen or DEFAULT
  local read, err = addresses.read(options.listen)
  if not read then
    return nil, err
  end
  local document
  document, err = asyncapi.document(app)
  local text
  if document then
    text, err = asyncapi.to_json(document)
  end
  if not text then
    return nil, err
  end
  local self = setmetatable({ text = text, operations = receiving(app, document), publishers = {} }, Service)
  if options.run then
    return run_app(self, app, options)
  end
  return run_page(self, options)
end

return M
