--- `weir request WHERE NAME [VALUE]`: asks, and prints the answer.
-- @module weir.cli.request
local arguments = require("weir.cli.arguments")
local cli = require("weir.cli")
local errors = require("weir.errors")
local place = require("weir.cli.place")

local M = {
  summary = "send a request to a handler and print its answer",
  intro = [[
VALUE is JSON, which is sent as it is written, or is encoded as --codec says; - reads it from the standard input. The
answer is printed as JSON, decoded by its content type; text and bytes are printed as they are; on a
terminal, what is no text is escaped.]],
  words = {
    place.WORD,
    { "name", "NAME", "whom to ask: a subject or queue", missing = "the name to ask is missing" },
    { "value", "VALUE", "the value; - reads it from the standard input; null when left out", optional = true },
  },
  options = {
    { "header", "K:V", "a header of the request; may be repeated", many = true, read = arguments.header },
    place.CODEC,
    { "json", nil, "print the answer with its headers, as one JSON object" },
    table.unpack(place.options()),
  },
  examples = {
    [[weir request nats://127.0.0.1:4222 prices '{"item": "tea"}' --timeout 2]],
    "weir request app.lua prices - --json <question.json | jq .value",
  },
  statuses = "0 there is an answer, 1 there is none, or it cannot be read, 2 wrong use.",
}

local function value_of(options)
  if options.value ~= "-" then
    return options.value or (options.codec == "raw" and "" or "null")
  end
  local source, err = require("weir.cli.durable.input").open()
  if not source then
    return nil, err
  end
  local text
  text, err = source:all(require("weir.cli.message").LONGEST, "send where it is to be found instead")
  source:close()
  return text, err
end

-- The value of an answer; nil where it is no more than bytes.
local function decode(answer)
  local codec = require("weir.codec")
  local content_type = answer.headers["content-type"]
  local chosen = content_type and codec.by_content_type(content_type)
  if not chosen or chosen.raw then
    return nil
  end
  return chosen.decode(answer.payload)
end

local function print_answer(options, console, answer)
  local value, err = decode(answer)
  if err then
    return nil, err
  end
  local json = require("weir.cli.json")
  if options.json then
    local result = { headers = answer.headers, value = value }
    if value == nil then
      require("weir.cli.message").put_payload(result, answer.payload)
    end
    console.out:write(json.encode(result), "\n")
    return cli.OK
  end
  local is_json = value ~= nil and (answer.headers["content-type"] or ""):find("json", 1, true)
  local text = (value == nil or is_json) and answer.payload or json.encode(value)
  if console:is_terminal(console.out) then
    text = require("weir.cli.text").shown(text) -- it is a peer's
  end
  console.out:write(text, text:find("\n$") and "" or "\n")
  return cli.OK
end

local function explain(err, options)
  if errors.is(err, "no_responders") then
    return errors.with(err, { message = ("nobody answers at '%s'; does its handler run?"):format(options.name) })
  elseif errors.is(err, "timeout") then
    local message = "no answer from '%s' within %g seconds; --timeout waits longer"
    return errors.with(err, { message = message:format(options.name, options.timeout or place.TIMEOUT) })
  end
  return err
end

function M.run(options, console)
  local message = require("weir.cli.message")
  local name = options.codec or "json"
  local text, err = value_of(options)
  local payload
  if text then
    payload, err = message.encode(text, name)
  end
  if not payload then
    return nil, err
  end
  return place.with(options, function(broker)
    local publisher
    publisher, err = broker:publisher()
    if not publisher then
      return nil, err
    elseif not broker:capabilities().request then
      return nil, ("the broker '%s' has no requests"):format(broker.kind)
    end
    local headers = message.headers(name, options.header)
    local answer
    answer, err = publisher:request(options.name, payload, headers, options.timeout or place.TIMEOUT)
    if not answer then
      return nil, explain(err, options)
    end
    return print_answer(options, console, answer)
  end)
end

return M
