local complete = require("weir.repl.complete")
local shell = require("spec.house.shell")
local weir = require("weir")

local app = weir.app("t", "1.0.0")
app:broker("memory:")
app:subscriber("orders.new", print)
app:subscriber("orders.old", print)

local vars = { app = app, weir = weir, settings = { colour = 1, column = 2, paint = print } }

local session = {
  vars = vars,
  global = function(_, name)
    return vars[name] or rawget(_G, name)
  end,
  destinations = function()
    return { "orders.new", "orders.old" }
  end,
}

-- What is inserted at the end of a line, and the candidates.
local function at(line)
  return complete.complete(session, line, #line)
end

describe("weir.repl.complete", function()
  it("completes globals and keywords", function()
    assert.equal("ng", (at("stri")))
    assert.equal("ngs", (at("x = setti")))
    assert.equal("ction", (at("fun")))
    assert.is_nil((at("nothing_like_this")))
    assert.is_nil((at("")))
  end)

  it("looks at 2000 fields of a value at most", function()
    vars.many = {}
    for i = 1, 3000 do
      vars.many["field" .. i] = i
    end
    assert.equal(2000, #select(2, at("many.field")))
  end)

  it("completes fields, and methods after a colon only", function()
    assert.equal("int", (at("settings.pa")))
    assert.equal("int", (at("settings:pa")))
    assert.is_nil((at("settings:colo")))
    assert.equal("ibe", (at("app:descr")))
    assert.equal("e", (at("app.titl")))
    assert.equal("r", (at("string.uppe")))
  end)

  it("inserts what the candidates have in common, then lists them", function()
    assert.same({ "ol", {} }, { at("settings.c") })
    assert.same({ "", { "colour", "column" } }, { at("settings.col") })
  end)

  it("knows the modules of weir that are loaded when they are used", function()
    assert.equal("eware", (at("weir.middl")))
    assert.equal("_letters", (at("weir.dead")))
  end)

  it("completes the names of options", function()
    assert.equal("_letter = ", (at("app:subscriber('a', { dead")))
    assert.equal("re = ", (at("net:produce('a', { codec = 'json', requi")))
    assert.equal("me = ", (at("weir.network({ na")))
    assert.equal("er = ", (at("app:batch('a', { max = 5, ling")))
    assert.equal("al_docs = ", (at("weir.app('a', '1', { extern")))
    assert.is_nil((at("f({ codc")))
  end)

  it("completes the fields of options that are tables", function()
    assert.equal("_attempts = ", (at("app:subscriber('a', { timeout = 1, retry = { max")))
    assert.equal("or = ", (at("app:subscriber('a', { retry = { backoff = { fact")))
    assert.equal("_letter = ", (at("app:subscriber('a', { retry = { max_attempts = 1 }, dead")))
    assert.is_nil((at("app:subscriber('a', { retry = { tit")))
    assert.is_nil((at("net:produce('a', { buffer = { code")))
  end)

  it("goes by the lines before, whatever their quotes", function()
    assert.equal("_letter = ", (at("-- it's\napp:subscriber('a', {\n  timeout = 1,\n  dead")))
  end)

  it("completes the names of files for the commands that take one", function()
    assert.equal("DME.md", (at(".load REA")))
    assert.equal("es/", (at(".load exampl")))
    assert.equal("xt", (at(".save examples/repl/broker.t")))
    assert.is_nil((at(".load /nowhere/x")))
    local dir, remove = shell.scratch()
    finally(remove)
    shell.check(("touch %s/a$(printf '\\033')[2J %s/b"):format(dir, dir))
    assert.equal("b", (at(".load " .. dir .. "/")))
    assert.is_nil((at(".brokers exampl")))
  end)

  it("completes commands and the destinations that they take", function()
    assert.equal("lish ", (at(".pub")))
    assert.same({ "", { ".save", ".stats", ".subs" } }, { at(".s") })
    assert.equal("orders.", (at(".publish ")))
    assert.equal("ew", (at(".tail orders.n")))
  end)

  it("offers nothing within a text", function()
    assert.is_nil((at("print('str")))
    assert.is_nil((at([[print("a\"str]])))
  end)

  it("looks at what is before the cursor", function()
    assert.equal("ng", (complete.complete(session, "stri.x", 4)))
  end)

  it("calls nothing of the program", function()
    vars.trap = setmetatable({}, { __index = function()
      error("called")
    end, __pairs = error })
    assert.is_nil((at("trap.a")))
    assert.is_nil((at("trap.a.b")))
    assert.is_nil((at("missing.a.b")))
  end)

  it("lists names in as many columns as fit", function()
    assert.equal("aa   bbb  c\nd\n", complete.columns({ "aa", "bbb", "c", "d" }, 16))
    assert.equal("aa\nbbb\n", complete.columns({ "aa", "bbb" }, 3))
  end)

  it("bounds what is listed", function()
    local names = {}
    for i = 1, 5000 do
      names[i] = "n" .. i
    end
    assert.matches("%.%.%. 4800 more\n$", complete.columns(names, 80))
  end)
end)
