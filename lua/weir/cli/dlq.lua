--- `weir dlq VERB WHERE NAME`: looks at dead letters, sends them back and removes them.
-- @module weir.cli.dlq
local arguments = require("weir.cli.arguments")
local cli = require("weir.cli")
local nearest = require("weir.nearest")
local place = require("weir.cli.place")
local screen_text = require("weir.cli.text")

local FIELDS = { "code", "destination", "error", "handler" }

-- `code=timeout`, `header.tenant=blue`
local function read_filter(text)
  local field, value = text:match("^([^=]+)=(.*)$")
  if not field then
    return nil, "needs FIELD=TEXT"
  end
  local header = field:match("^header%.(.+)$")
  if header then
    return { header = header:lower(), value = value }
  end
  for _, known in ipairs(FIELDS) do
    if known == field then
      return { field = field, value = value }
    end
  end
  local meant = nearest(field, FIELDS)
  return nil, "knows the fields code, destination, error, handler and header.NAME",
    meant and ("; did you mean '%s'?"):format(meant) or ""
end

local WORDS = {
  place.WORD,
  { "name", "NAME", "the name of the dead letters, such as orders.dead", missing = "the name is missing" },
}

local M = {
  summary = "list, show, replay or remove dead letters",
  intro = "Dead letters are messages that could not be handled, with the reason.",
  verbs = {
    {
      "list", "print one line for each, oldest first", words = WORDS,
      examples = { "weir dlq list app.lua orders.dead --limit 20" },
    },
    {
      "show", "print all of each, with its headers and its payload", words = WORDS,
      examples = { "weir dlq show nats://127.0.0.1:4222 orders.dead --filter code=schema --json | jq .error" },
    },
    {
      "replay", "publish them again where they were published first; each is removed once the broker has it",
      words = WORDS, options = { { "to", "NAME", "publish there instead" } },
      examples = { "weir dlq replay app.lua orders.dead --filter code=timeout --filter header.tenant=blue" },
    },
    {
      "remove", "forget them; asks for --filter, --limit or --all", words = WORDS,
      options = { { "all", nil, "without a filter", exclusive = "a" } },
      examples = { "weir dlq remove app.lua orders.dead --all" },
    },
  },
  options = {
    {
      "filter", "FIELD=TEXT", "only letters whose code, destination or handler is TEXT, whose error contains it, or"
        .. " whose header is TEXT (header.NAME=TEXT); may be repeated, and then all must hold",
      many = true, read = read_filter, exclusive = "a",
    },
    { "limit", "N", "look at no more than N letters: 1000", read = arguments.integer(1, 1000000000) },
    { "json", nil, "print JSON: one object for each letter, in lines; of replay and remove, one for the whole" },
    { "quiet", nil, "show no progress on the terminal" },
    table.unpack(place.options()),
  },
}

-- Letters that are looked at, when nobody says how many.
local LIMIT = 1000
-- Bytes of a payload that are shown to people.
local SHOWN = 4096

local function matches(filter, letter)
  if filter.header then
    return letter.headers[filter.header] == filter.value
  elseif filter.field == "error" then
    return letter.error ~= nil and letter.error:find(filter.value, 1, true) ~= nil
  end
  return letter[filter.field == "code" and "error_code" or filter.field] == filter.value
end

local function filter_of(options)
  local filters = options.filter
  return filters and function(letter)
    for _, filter in ipairs(filters) do
      if not matches(filter, letter) then
        return false
      end
    end
    return true
  end
end

local function plain(letter)
  local fields = {
    headers = letter.headers, destination = letter.destination, error = letter.error, code = letter.error_code,
    attempts = letter.attempts, failed_at = letter.failed_at, dead_at = letter.dead_at, handler = letter.handler,
  }
  local message = require("weir.cli.message")
  message.put_payload(fields, letter.payload)
  return fields
end

local function print_line(out, letter)
  local attempts = letter.attempts and letter.attempts .. "x" or "-"
  -- Headers come from peers.
  local function short(text, most)
    return screen_text.line(text or "-", most)
  end
  return out:write(("%-24s  %-14s  %4s  %s  %s\n"):format(short(letter.dead_at, 40), short(letter.error_code, 40),
    attempts, short(letter.destination, 60), short(letter.error, 200)))
end

local function print_whole(out, letter)
  local function field(name, value)
    if value ~= nil then
      out:write(("%-12s %s\n"):format(name .. ":", screen_text.line(tostring(value), SHOWN)))
    end
  end
  field("destination", letter.destination)
  field("handler", letter.handler)
  field("code", letter.error_code)
  field("error", letter.error)
  field("attempts", letter.attempts)
  field("failed at", letter.failed_at)
  field("dead at", letter.dead_at)
  local names = {}
  for name in pairs(letter.headers) do
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    field("header", name .. ": " .. letter.headers[name])
  end
  return out:write(screen_text.shown(letter.payload, SHOWN), "\n\n")
end

local verbs = {}

-- Prints one; nil when nobody reads any more.
local function print_letter(self, print, letter)
  if self.options.json then
    return self.out:write(require("weir.cli.json").encode(plain(letter)), "\n")
  end
  return print(self.out, letter)
end

-- Prints each while it is here: all of them together may be more than there is room for.
local function look(self, print)
  local limit = self.options.limit or LIMIT
  local cursor, err = self.letters:cursor(limit)
  local seen, shown, open = 0, 0, true
  while cursor and open and seen < limit do
    local letter
    letter, err = cursor:next(self.options.timeout or place.TIMEOUT)
    if not letter then
      break
    end
    seen = seen + 1
    if not self.filter or self.filter(letter) then
      shown, open = shown + 1, print_letter(self, print, letter) and self.out:flush()
    end
  end
  if cursor then
    cursor:close()
  end
  if err then
    return nil, err
  elseif shown == 0 and not self.options.json then
    local what = seen == 0 and "no dead letters in %s\n" or "no dead letter in %s that fits the filter\n"
    self.out:write(what:format(self.options.name))
  end
  return cli.OK
end

function verbs.list(self)
  return look(self, print_line)
end

function verbs.show(self)
  return look(self, print_whole)
end

local function finish(self, what, done, err, left)
  self.progress:finish()
  if not done then
    return nil, err
  end
  if self.options.json then
    local result = { [what] = done, left = left, error = err and tostring(err) or nil }
    self.out:write(require("weir.cli.json").encode(result), "\n")
  else
    self.out:write(("%d %s, %d left as they were\n"):format(done, what, left))
  end
  if err then
    return nil, err
  end
  return cli.OK
end

local function step(self, letter)
  self.bytes, self.count = self.bytes + #letter.payload, self.count + 1
  self.progress:show(self.bytes, self.count)
end

function verbs.replay(self)
  return finish(self, "replayed", self.letters:replay({
    filter = self.filter,
    limit = self.options.limit,
    to = self.options.to,
    on_letter = function(letter)
      step(self, letter)
    end,
  }))
end

function verbs.remove(self)
  return finish(self, "removed", self.letters:remove({
    limit = self.options.limit,
    filter = function(letter)
      local wanted = not self.filter or self.filter(letter)
      if wanted then
        step(self, letter)
      end
      return wanted
    end,
  }))
end

function M.run(options, console)
  if options.verb == "remove" and not (options.all or options.filter or options.limit) then
    return nil, cli.usage_error("remove forgets letters for good: say which with --filter or --limit, or --all")
  end
  local progress = require("weir.cli.durable.progress")
  local self = { options = options, out = console.out, filter = filter_of(options), count = 0, bytes = 0 }
  self.progress = progress.new(console.err, not options.quiet and console:is_terminal(console.err))
  return place.with(options, function(broker)
    self.letters = require("weir.dead_letters")(broker, options.name)
    return verbs[options.verb](self)
  end)
end

return M
