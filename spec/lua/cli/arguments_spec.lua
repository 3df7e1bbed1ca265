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

local URL = { "url", "URL", "where", missing = "the URL is missing" }

local several = {
  summary = "do things",
  verbs = {
    { "give", "give it", words = { URL }, options = { { "at", "OFFSET", "where" } }, examples = { "weir x give" } },
    {
      "take", "take it", words = { URL, { "new", "NEW", "the other one", optional = true } },
      options = { { "json", nil, "take JSON" }, { "all", nil, "all of it", exclusive = "a" } },
      examples = { "weir x take" }, statuses = "0 taken.",
    },
    { "grab", "take all", words = { URL }, options = { { "at", "OFFSET", "where it begins" } }, examples = {} },
  },
  options = {
    { "json", nil, "print JSON" },
    { "only", "NAME", "only this one", exclusive = "a" },
  },
}

local function read(...)
  return arguments.read("thing", command, { ... })
end

local function read_verb(...)
  return arguments.read("thing", several, { ... })
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
      { { "a", "--header", "a:b\nc" }, "--header needs NAME:VALUE, not 'a:b c'" },
      { { "a", "--\27[31m" }, "unknown option '--\\27[31m'" },
    }) do
      assert.same({ nil, each[2] }, { (read(table.unpack(each[1]))), select(2, read(table.unpack(each[1]))) })
    end
  end)

  it("of any length are refused at once, with the beginning of them", function()
    local _, err = read("a", "--" .. ("x"):rep(1000000))
    assert.matches("^unknown option '%-%-x+%.%.%. %(%d+ bytes more%)'$", err)
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

describe("the verbs of a command", function()
  it("have words and options of their own, beside those of all", function()
    assert.same({ verb = "give", url = "u", at = "3", json = true }, read_verb("give", "u", "--at", "3", "--json"))
    assert.same({ verb = "take", url = "u", new = "v", only = "x" }, read_verb("take", "--only=x", "u", "v"))
    assert.same({ verb = "take", url = "take" }, read_verb("take", "take"))
  end)

  it("may come after options, and after --", function()
    assert.same({ verb = "give", url = "u", at = "take" }, read_verb("--at", "take", "give", "u"))
    assert.same({ verb = "give", url = "u", at = "take", json = true }, read_verb("--json", "--at=take", "give", "u"))
    assert.same({ verb = "give", url = "--at" }, read_verb("give", "--", "--at"))
  end)

  it("are refused with a sentence that says what is wrong", function()
    for _, each in ipairs({
      { {}, "what is to be done is missing: one of give, take, grab" },
      { { "--json" }, "what is to be done is missing: one of give, take, grab" },
      { { "gvie" }, "VERB must be one of give, take, grab, not 'gvie'; did you mean 'give'?" },
      { { "give" }, "the URL is missing" },
      { { "give", "u", "v" }, "one word too many: 'v'" },
      { { "give", "u", "--all" }, "--all is an option of take" },
      { { "take", "u", "--at=3" }, "--at is an option of give and grab" },
      { { "give", "u", "--onyl", "x" }, "unknown option '--onyl'; did you mean '--only'?" },
      { { "take", "u", "--all", "--only", "x" }, "--all and --only exclude each other" },
    }) do
      local value, err = read_verb(table.unpack(each[1]))
      assert.same({ nil, each[2] }, { value, err })
    end
  end)

  it("are explained together and one by one", function()
    local text = arguments.help("thing", several)
    assert.matches("^Usage: weir thing VERB %[ARGUMENT%.%.%.%]\n\n  do things\n\nVerbs:\n   give +give it\n", text)
    assert.matches("\nOptions:\n   %-%-json +print JSON\n", text)
    assert.matches("\nExamples:\n   weir x give\n   weir x take\n", text)
    text = arguments.help("thing", several, several.verbs[2])
    assert.matches("^Usage: weir thing take URL %[NEW%] %[OPTION%.%.%.%]\n\n  take it\n", text)
    assert.matches("\n   %-%-json +take JSON\n", text)
    assert.not_matches("print JSON", text)
    assert.matches("\nExit status: 0 taken%.", text)
  end)
end)
