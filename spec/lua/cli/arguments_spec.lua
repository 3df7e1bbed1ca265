local arguments = require("weir.cli.arguments")

local command = {
  summary = "do a thing",
  words = {
    { "file", "FILE", "what to take", missing = "the file is missing" },
    { "more", "MORE", "more", optional = true },
  },
  options = {
    { "env", "NAME=VALUE", "a variable", many = true, read = arguments.variable },
    { "log", "FORMAT", "how to log", choices = { "text", "json" } },
    { "fast", nil, "hurry", exclusive = "speed" },
    { "slow", nil, "do not", exclusive = "speed" },
    { "count", "N", "how many", read = arguments.integer(1, 10) },
    { "wait", "SECONDS", "how long", read = arguments.seconds },
    { "header", "K:V", "a header", read = arguments.header },
  },
  examples = { "weir thing a.lua" },
}

local function read(...)
  return arguments.read("thing", command, { ... })
end

describe("the arguments of a command", function()
  it("are words and options in any order, with = or without", function()
    assert.same({ file = "a" }, read("a"))
    assert.same({ file = "a", more = "b", fast = true, log = "json" }, read("--fast", "a", "--log=json", "b"))
    assert.same({ file = "a", env = { { "X", "1" }, { "Y", "" } } }, read("--env", "X=1", "a", "--env=Y="))
    assert.same({ file = "-" }, read("-"))
  end)

  it("may begin with a dash where they are the value of an option or follow --", function()
    assert.same({ file = "a", env = { { "-n", "-1" } } }, read("a", "--env", "-n=-1"))
    assert.same({ file = "--fast", more = "-x" }, read("--", "--fast", "-x"))
    assert.same({ file = "--", more = nil }, read("--", "--"))
  end)

  it("are converted", function()
    assert.same({ file = "a", count = 7, wait = 0.5, header = { "a", "b" } },
      read("a", "--count", "7", "--wait", ".5", "--header", "a: b "))
  end)

  it("are refused with a sentence that says what is wrong", function()
    for _, each in ipairs({
      { {}, "the file is missing" },
      { { "a", "b", "c" }, "one word too many: 'c'" },
      { { "a", "--fats" }, "unknown option '--fats'; did you mean '--fast'?" },
      { { "a", "-f" }, "unknown option '-f'" },
      { { "a", "--fast=1" }, "--fast takes no value" },
      { { "a", "--log" }, "--log needs a value" },
      { { "a", "--log", "jsn" }, "--log must be one of text, json, not 'jsn'; did you mean 'json'?" },
      { { "a", "--fast", "--slow" }, "--fast and --slow exclude each other" },
      { { "a", "--count", "0" }, "--count must be a whole number from 1 to 10, not '0'" },
      { { "a", "--count", "0x3" }, "--count must be a whole number from 1 to 10, not '0x3'" },
      { { "a", "--wait", "nan" }, "--wait must be a number of seconds above 0, not 'nan'" },
      { { "a", "--header", "a:b\nc" }, "--header needs NAME:VALUE, not 'a:b?c'" },
      { { "a", "--\27[31m" }, "unknown option '--?[31m'" },
    }) do
      assert.same({ nil, each[2] }, { (read(table.unpack(each[1]))), select(2, read(table.unpack(each[1]))) })
    end
  end)

  it("of any length are refused at once, with the beginning of them", function()
    local _, err = read("a", "--" .. ("x"):rep(1000000))
    assert.matches("^unknown option '%-%-x+%.%.%.'$", err)
    assert.is_true(#err < 300)
  end)

  it("are explained with usage, options, examples and exit status", function()
    local text = arguments.help("thing", command)
    assert.matches("^Usage: weir thing FILE %[MORE%] %[OPTION%.%.%.%]\n\n  do a thing\n", text)
    assert.matches("\n   %-%-env NAME=VALUE +a variable\n", text)
    assert.matches("\nExamples:\n   weir thing a.lua\n", text)
    assert.matches("\nExit status: 0", text)
  end)
end)
