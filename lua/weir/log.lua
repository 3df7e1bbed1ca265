--- Structured logs: a sentence, and fields.
--
--     local log = require("weir.log").new({ format = "json" })
--     log:warn("the queue is full", { queue = "orders", messages = 10000 })
--
-- As text, one line for people: time, level, message, fields; in colour on a terminal. Of several lines is only the
-- field `traceback`, and those after the first begin with spaces. As JSON, one object a line:
-- `time` (ISO 8601, UTC), `level`, `message` and the fields, for programs. Bytes that are no UTF-8 and control
-- characters are escaped, so that what a message carries cannot write a line of its own.
-- @module weir.log

local cjson = require("cjson")
local errors = require("weir.errors")
local runtime = require("weir.runtime")

local M = {}

local LEVELS = { debug = 1, info = 2, warn = 3, error = 4, off = 5 }
local NAMES = { "debug", "info", "warn", "error", "off" }
local COLOURS = { debug = "\27[2m", info = "", warn = "\27[33m", error = "\27[31m" }
local RESET = "\27[0m"

-- Longest text of one field, in bytes.
local LONGEST = 4096

local json = cjson.new()
json.encode_invalid_numbers("null")
json.encode_sparse_array(true)

local OPTIONS = { level = "string", format = "string", out = { "table", "userdata", "function" }, colour = "boolean" }

local Log = { __name = "weir.log" }
Log.__index = Log

-- ISO 8601 in UTC, to the millisecond.
local function stamp(seconds)
  local ms = math.floor(seconds * 1000)
  return ("%s.%03dZ"):format(os.date("!%Y-%m-%dT%H:%M:%S", math.floor(ms / 1000)), ms % 1000)
end

M.timestamp = stamp

-- Lua 5.4's utf8.len knows; LuaJIT has none, and escapes all that is not ASCII.
local function is_utf8(text)
  local utf8 = rawget(_G, "utf8")
  return utf8 and utf8.len(text) ~= nil
end

local function escape(byte)
  return ("\\x%02x"):format(byte:byte())
end

-- The text without what would break a line or a terminal.
local function clean(text)
  if #text > LONGEST then
    text = ("%s... (%d bytes)"):format(text:sub(1, LONGEST), #text)
  end
  text = text:gsub("\n", "\\n"):gsub("\t", "\\t"):gsub("[%z\1-\31\127]", escape)
  if text:find("[\128-\255]") and not is_utf8(text) then
    text = text:gsub("[\128-\255]", escape)
  end
  return text
end

local function text_of(value)
  local ok, text = pcall(tostring, value)
  return ok and text or "(" .. type(value) .. ")"
end

local function sorted_keys(fields)
  local keys = {}
  for key in pairs(fields) do
    keys[#keys + 1] = tostring(key)
  end
  table.sort(keys)
  return keys
end

local function quoted(value)
  local text = clean(text_of(value))
  return text:find('[%s"=]') and '"' .. text:gsub('"', '\\"') .. '"' or text
end

-- The lines of a traceback, below the line that it belongs to.
local function indented(traceback)
  local lines = {}
  for line in traceback:sub(1, LONGEST):gmatch("[^\n]+") do
    lines[#lines + 1] = "\n    " .. clean((line:gsub("\t", "  ")))
  end
  return table.concat(lines)
end

local function as_text(self, seconds, level, message, fields)
  local colour = self.colour and COLOURS[level] or ""
  local reset = colour ~= "" and RESET or ""
  local parts = { ("%s %s%-5s%s %s"):format(stamp(seconds), colour, level, reset, clean(message)) }
  local traceback = type(fields.traceback) == "string" and indented(fields.traceback) or nil
  for _, key in ipairs(sorted_keys(fields)) do
    if key ~= "traceback" or not traceback then
      parts[#parts + 1] = ("%s=%s"):format(clean(key), quoted(fields[key]))
    end
  end
  return table.concat(parts, " ") .. (traceback or "")
end

-- What JSON cannot say becomes text.
local function plain(value)
  local kind = type(value)
  if kind == "number" or kind == "boolean" then
    return value
  end
  return clean(text_of(value))
end

local function as_json(_, seconds, level, message, fields)
  local object = {}
  for key, value in pairs(fields) do
    object[clean(tostring(key))] = plain(value)
  end
  object.time, object.level, object.message = stamp(seconds), level, clean(message)
  return json.encode(object)
end

local FORMATS = { text = as_text, json = as_json }

local function merged(a, b)
  if not b or next(b) == nil then
    return a
  elseif next(a) == nil then
    return b
  end
  local all = {}
  for key, value in pairs(a) do
    all[key] = value
  end
  for key, value in pairs(b) do
    all[key] = value
  end
  return all
end

local function write(self, level, message, fields)
  local all = merged(self.fields, fields)
  local line = FORMATS[self.format](self, runtime.time(), level, text_of(message), all)
  if type(self.out) == "function" then
    self.out(line)
  else
    self.out:write(line, "\n")
  end
end

--- Writes a line of a level, if the logger's level lets it through.
-- @tparam string message
-- @tparam[opt] table fields name to value
function Log:debug(message, fields)
  if self.least <= 1 then
    write(self, "debug", message, fields)
  end
end

function Log:info(message, fields)
  if self.least <= 2 then
    write(self, "info", message, fields)
  end
end

function Log:warn(message, fields)
  if self.least <= 3 then
    write(self, "warn", message, fields)
  end
end

function Log:error(message, fields)
  if self.least <= 4 then
    write(self, "error", message, fields)
  end
end

--- Whether lines of this level are written.
-- @tparam string level
function Log:enabled(level)
  return LEVELS[level] >= self.least
end

--- A logger whose lines carry these fields too.
-- @tparam table fields
function Log:with(fields)
  return setmetatable({
    least = self.least,
    format = self.format,
    out = self.out,
    colour = self.colour,
    fields = merged(self.fields, fields),
  }, Log)
end

local function one_of(what, value, known, level)
  for _, each in ipairs(known) do
    if each == value then
      return
    end
  end
  local list = table.concat(known, ", ")
  error(("log: option '%s' must be one of %s, not %q"):format(what, list, tostring(value)), level + 1)
end

local function on_terminal(out)
  local ok, luv = pcall(require, "luv")
  return out == io.stderr and ok and not os.getenv("NO_COLOR") and os.getenv("TERM") ~= "dumb"
    and luv.guess_handle(2) == "tty"
end

--- Makes a logger.
-- @tparam[opt] table opts
-- @tparam[opt="info"] string opts.level "debug", "info", "warn", "error" or "off"
-- @tparam[opt="text"] string opts.format "text" or "json"
-- @param[opt=io.stderr] opts.out a file, or a function that takes a line
-- @tparam[opt] boolean opts.colour whether text is coloured; on a terminal, unless NO_COLOR is set
function M.new(opts)
  opts = errors.options("log", opts, OPTIONS, 2)
  local level, format, out = opts.level or "info", opts.format or "text", opts.out or io.stderr
  one_of("level", level, NAMES, 2)
  one_of("format", format, { "text", "json" }, 2)
  local colour = opts.colour
  if colour == nil then
    colour = on_terminal(out)
  end
  return setmetatable({ least = LEVELS[level], format = format, out = out, colour = colour, fields = {} }, Log)
end

return M
