local cjson = require("cjson")
local log = require("weir.log")

-- A logger, and the list of lines it wrote.
local function logger(opts)
  local lines = {}
  opts = opts or {}
  opts.out = function(line)
    lines[#lines + 1] = line
  end
  return log.new(opts), lines
end

describe("the log", function()
  it("writes time, level, message and fields in order", function()
    local to, lines = logger()
    to:warn("the queue is full", { queue = "orders", messages = 10000 })
    local time, rest = lines[1]:match("^(%S+) (.*)$")
    assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ$", time)
    assert.equal("warn  the queue is full messages=10000 queue=orders", rest)
  end)

  it("writes JSON, one object a line", function()
    local to, lines = logger({ format = "json" })
    to:error("failed", { attempt = 3, err = setmetatable({}, { __tostring = function()
      return "timeout: too late"
    end }), last = true })
    local object = cjson.decode(lines[1])
    assert.equal("error", object.level)
    assert.equal("failed", object.message)
    assert.equal(3, object.attempt)
    assert.is_true(object.last)
    assert.equal("timeout: too late", object.err)
    assert.matches("Z$", object.time)
  end)

  it("leaves out what is below its level", function()
    local to, lines = logger({ level = "warn" })
    to:debug("a")
    to:info("b")
    to:warn("c")
    to:error("d")
    assert.equal(2, #lines)
    assert.is_false(to:enabled("info"))
    assert.is_true(to:enabled("error"))
    to, lines = logger({ level = "off" })
    to:error("e")
    assert.equal(0, #lines)
  end)

  it("adds the fields of a logger to each of its lines", function()
    local to, lines = logger()
    to:with({ broker = "nats", app = "x" }):info("up", { app = "orders" })
    assert.matches("up app=orders broker=nats$", lines[1])
    to:info("up")
    assert.matches("up$", lines[2])
  end)

  it("lets no value write a line or steer the terminal", function()
    for _, format in ipairs({ "text", "json" }) do
      local to, lines = logger({ format = format })
      to:info("a\nb\27[2J", { ["k\n"] = "\r\nlevel=error \0", bad = "\255" })
      assert.equal(1, #lines)
      assert.is_nil(lines[1]:find("[%z\1-\31\255]"))
    end
  end)

  it("writes a traceback below its line, as text", function()
    local to, lines = logger()
    to:error("failed", { handler = "x", traceback = "stack traceback:\n\ta.lua:1: in f\27[2J\n2026 error b" })
    local expected = "error failed handler=x\n    stack traceback:\n      a.lua:1: in f\\x1b[2J\n    2026 error b"
    assert.equal(expected, lines[1]:match("^%S+ (.*)$"))
    to, lines = logger({ format = "json" })
    to:error("failed", { traceback = "a\nb" })
    assert.is_nil(lines[1]:find("\n"))
  end)

  it("shows only the beginning of a huge value", function()
    local to, lines = logger()
    to:info("x", { payload = ("a"):rep(1e6) })
    assert.is_true(#lines[1] < 5000)
    assert.matches("%(1000000 bytes%)", lines[1])
  end)

  it("survives a value that cannot be shown", function()
    local to, lines = logger()
    to:info("x", { value = setmetatable({}, { __tostring = function()
      error("no")
    end }) })
    assert.matches("value=%(table%)$", lines[1])
  end)

  it("colours the level where it is asked to", function()
    local to, lines = logger({ colour = true })
    to:error("x")
    assert.matches("\27%[31merror\27%[0m x$", lines[1])
  end)

  it("says which levels and formats there are", function()
    assert.error_matches(function()
      log.new({ level = "loud" })
    end, "'level' must be one of debug, info, warn, error, off, not \"loud\"")
    assert.error_matches(function()
      log.new({ format = "xml" })
    end, "'format' must be one of text, json")
    assert.error_matches(function()
      log.new({ levle = "info" })
    end, "did you mean 'level'")
  end)
end)
