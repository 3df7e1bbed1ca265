--- `weir publish WHERE NAME [VALUE]`: publishes a message, or each line of the standard input.
-- @module weir.cli.publish
local arguments = require("weir.cli.arguments")
local cli = require("weir.cli")
local place = require("weir.cli.place")

local M = {
  summary = "publish a message to a broker",
  intro = [[
VALUE is JSON, which is sent as it is written, or is encoded as --codec says. With -, or when it is left out, it is
read from the standard input.]],
  words = {
    place.WORD,
    { "name", "NAME", "where to publish: a subject, queue or stream", missing = "the name to publish to is missing" },
    { "value", "VALUE", "the value; - reads it from the standard input", optional = true },
  },
  options = {
    { "header", "K:V", "a header of the message; may be repeated", many = true, read = arguments.header },
    { "key", "KEY", "its partition key" },
    place.CODEC,
    { "lines", nil, "each line of the standard input is a value, published while more is read" },
    { "json", nil, "print what was published as JSON" },
    { "quiet", nil, "say nothing, and show no progress on the terminal" },
    table.unpack(place.options()),
  },
  examples = {
    [[weir publish nats://127.0.0.1:4222 orders '{"id": "a", "quantity": 3}']],
    "weir publish app.lua orders - --header tenant:blue <order.json",
    "tail -F /var/log/syslog | weir publish nats://127.0.0.1:4222 logs --lines --codec raw",
  },
}

-- Seconds without input after which what was published is pushed out.
local PAUSE = 0.2

local function publish_one(self, text)
  local message = require("weir.cli.message")
  local payload, err = message.encode(text, self.codec)
  if not payload then
    return nil, err
  end
  local headers = message.headers(self.codec, self.options.header)
  if self.options.key then
    headers["partition-key"] = self.options.key
  end
  local ok
  ok, err = self.publisher:publish(self.options.name, payload, headers)
  if not ok then
    return nil, err
  end
  self.count, self.bytes, self.id = self.count + 1, self.bytes + #payload, headers["message-id"]
  return true
end

local function flush(self)
  if self.publisher.flush then
    return self.publisher:flush(self.options.timeout or place.TIMEOUT)
  end
  return true
end

-- How far it came is part of what went wrong.
local function after(self, err)
  flush(self)
  if self.options.lines and self.count > 0 then
    return ("%s; lines published before it: %d"):format(tostring(err), self.count)
  end
  return err
end

local function publish_lines(self, source)
  local message = require("weir.cli.message")
  local number = 0
  local next_line = source:lines(message.LONGEST, PAUSE, function()
    return flush(self)
  end)
  while true do
    local line, err = next_line()
    if not line then
      return not err, err
    end
    local ok
    number = number + 1
    line = line:gsub("\r?\n$", "")
    if line ~= "" or self.codec == "raw" then
      ok, err = publish_one(self, line)
      if not ok then
        return nil, ("line %d of the standard input: %s"):format(number, tostring(err))
      end
    end
    self.progress:show(self.bytes, self.count)
  end
end

local function publish_input(self, source)
  if self.options.lines then
    return publish_lines(self, source)
  end
  local message = require("weir.cli.message")
  local text, err = source:all(message.LONGEST, "publish it in parts, or by lines with --lines")
  if not text then
    return nil, err
  elseif text == "" and self.codec ~= "raw" then
    return nil, "there is nothing on the standard input to publish"
  end
  return publish_one(self, text)
end

local function publish(self)
  local options = self.options
  if options.value and options.value ~= "-" then
    return publish_one(self, options.value)
  end
  local source, err = require("weir.cli.durable.input").open()
  if not source then
    return nil, err
  end
  local ok
  ok, err = publish_input(self, source)
  source:close()
  self.progress:finish()
  return ok, err
end

local function report(self, console)
  local options = self.options
  if options.json then
    local result = { destination = options.name, count = self.count, bytes = self.bytes, message_id = self.id }
    console.out:write(require("weir.cli.json").encode(result), "\n")
  elseif not options.quiet then
    local size = require("weir.cli.durable.progress").size(self.bytes)
    local what = self.count == 1 and "one message" or self.count .. " messages"
    console.out:write(("published %s (%s) to %s\n"):format(what, size, options.name))
  end
  return cli.OK
end

local function check(options)
  local luv = require("luv")
  if options.lines and options.value and options.value ~= "-" then
    return nil, cli.usage_error("--lines reads the standard input, so there is no VALUE with it")
  elseif not options.value and not options.lines and luv.guess_handle(0) == "tty" then
    return nil, cli.usage_error("the value is missing; - reads it from the standard input")
  end
  return true
end

function M.run(options, console)
  local ok, err = check(options)
  if not ok then
    return nil, err
  end
  local self = { options = options, codec = options.codec or "json", count = 0, bytes = 0 }
  local visible = not options.quiet and console:is_terminal(console.err)
  self.progress = require("weir.cli.durable.progress").new(console.err, visible)
  return place.with(options, function(broker)
    self.publisher, err = broker:publisher()
    if not self.publisher then
      return nil, err
    end
    ok, err = publish(self)
    if ok then
      ok, err = flush(self)
    else
      err = after(self, err)
    end
    if not ok then
      return nil, err
    end
    return report(self, console)
  end)
end

return M
