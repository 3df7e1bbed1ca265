--- What a document says in the words of a protocol.
--
-- Of NATS and HTTP, as the bindings of AsyncAPI define them: NATS 0.1.0 has a queue of operations, HTTP 0.3.0 has the
-- method and the query of operations, and the headers and the status of messages. Neither has anything for servers and
-- channels. Durable streams are HTTP: who receives asks by GET, who sends appends by POST.
-- @module weir.asyncapi.bindings

local bindings = {}

local NATS, HTTP = "0.1.0", "0.3.0"
-- Bytes of the name of a queue, by the binding.
local LONGEST_QUEUE = 255

--- The schema of a header, or of a part of a query.
-- @tparam string description
-- @tparam[opt] table more keywords
-- @treturn table
function bindings.text(description, more)
  local result = { type = "string", description = description }
  for key, value in pairs(more or {}) do
    result[key] = value
  end
  return result
end

local text = bindings.text

local function number(description)
  return { type = "integer", minimum = 0, description = description }
end

-- What a reader of a durable stream asks for.
local function query()
  return {
    type = "object",
    properties = {
      offset = text("Where to go on: what the last response named, -1 for the start or now for the end."),
      live = text("Wait for what comes: by one request after the other, or by one that does not end.",
        { enum = { "long-poll", "sse" } }),
      cursor = text("What the last response named, for caches."),
    },
  }
end

local ITEM = "The body has a JSON object for each message: its headers, and its payload as text or as base64."

local function received_headers()
  return {
    ["Content-Type"] = text(ITEM, { enum = { "application/json", "text/event-stream" } }),
    ["Stream-Next-Offset"] = text("Where the next request goes on."),
    ["Stream-Cursor"] = text("For the next request."),
    ["Stream-Up-To-Date"] = text("That this is all there is.", { const = "true" }),
    ["Stream-Closed"] = text("That nothing more will come.", { const = "true" }),
  }
end

local function sent_headers()
  return {
    ["Content-Type"] = text(ITEM, { enum = { "application/json" } }),
    ["Producer-Id"] = text("Who appends, so that what is sent twice is there once."),
    ["Producer-Epoch"] = number("How often the producer has begun anew."),
    ["Producer-Seq"] = number("The number of the request in this epoch."),
  }
end

--- The bindings of an operation.
-- @tparam table broker one of the `brokers` of `app:describe()`
-- @tparam string action "receive" or "send"
-- @tparam[opt] table settings of the subscription
-- @treturn ?table nil where there is nothing to say
function bindings.operation(broker, action, settings)
  local protocol = broker.server and broker.server.protocol
  if protocol == "nats" then
    local queue = action == "receive" and settings and settings.group
    return queue and #queue <= LONGEST_QUEUE and { nats = { queue = queue, bindingVersion = NATS } } or nil
  elseif protocol == "http" or protocol == "https" then
    local receives = action == "receive"
    return {
      http = {
        method = receives and "GET" or "POST",
        query = receives and broker.kind == "durable" and query() or nil,
        bindingVersion = HTTP,
      },
    }
  end
end

--- The bindings of a message of durable streams.
-- @tparam table broker one of the `brokers` of `app:describe()`
-- @tparam table actions a set: "receive", "send" or both
-- @treturn ?table nil where there is nothing to say
function bindings.message(broker, actions)
  if broker.kind ~= "durable" then
    return nil
  end
  local headers = { type = "object", properties = actions.receive and received_headers() or {} }
  if actions.send then
    for name, header in pairs(sent_headers()) do
      headers.properties[name] = headers.properties[name] or header
    end
  end
  if not actions.receive then
    headers.required = { "Content-Type", "Producer-Epoch", "Producer-Id", "Producer-Seq" }
  end
  return {
    http = {
      headers = headers,
      statusCode = not actions.send and 200 or nil, -- of the response that has it; a request has none
      bindingVersion = HTTP,
    },
  }
end

return bindings
