local nats_server = require("spec.lua.nats_server")
local programs = require("spec.programs")
local shell = require("spec.house.shell")

local dir, remove

before_each(function()
  dir, remove = shell.scratch()
end)

after_each(function()
  remove()
end)

-- Runs a script; the status, and what was written to the standard output and error.
local function script(text, ...)
  local path = dir .. "/script"
  shell.write(path, text)
  local words = { "lua/bin/weir", "repl", ... }
  for i, word in ipairs(words) do
    words[i] = shell.quote(word)
  end
  return programs.run({ "sh", "-c", table.concat(words, " ") .. " <" .. path }, 60)
end

local function prints(expected, text, ...)
  local status, out, err = script(text, ...)
  assert.equal("", err)
  assert.equal(expected, out)
  assert.equal(0, status)
end

-- What it printed before it failed.
local function fails(pattern, text, ...)
  local status, out, err = script(text, ...)
  assert.matches(pattern, err)
  assert.equal(1, status)
  return out
end

-- The name of a file here, written.
local function file(name, text)
  local path = dir .. "/" .. name
  if text then
    shell.write(path, text)
  end
  return path
end

local APP = [[
local weir = require("weir")
local app = weir.app("shop", "1.0.0", { log = { level = "warn" } })
app:broker("memory:")
app:subscriber("orders", { reply = "bills" }, function(order)
  return { id = order.id, from = "%s" }
end)
return app
]]

describe("weir repl with a script", function()
  it("takes no line of more than 4 MiB", function()
    assert.equal("1\n", fails("a line is longer than can be read", "1\n" .. ("x"):rep(5 * 1024 * 1024)))
  end)

  it("prints values, and no prompt", function()
    prints('2\n"a"\nnil, error timeout: no { url = "x" }\n', [[
1 + 1
"a"
x = 1
nil, require("weir.errors").new("timeout", "no", { url = "x" })
]])
  end)

  it("reads inputs of several lines, and a last one without a newline", function()
    prints("7\n", "function f(x)\n  return x + 1\nend\nf(6)")
  end)

  it("ends at the first error with status 1, and says where it is", function()
    assert.equal("1\n", fails("^weir: stdin:3:1: no\n$", "1\nlocal x = nil\nerror('no')\n2\n"))
    assert.equal("", fails("^weir: stdin:1:1: unexpected symbol", "1 +* 2\n3\n"))
    fails("there is no command .frobnicate; .help lists them", ".frobnicate\n")
    fails("did you mean .publish", ".publsh a 1\n")
  end)

  it("reports an input that has no end", function()
    fails("<eof>", "function f()\nlocal x = 1\n")
  end)

  it("fails when a task failed that nobody joined", function()
    fails("behind", "weir.spawn(function() error('behind') end)\nweir.sleep(0)\n1\n")
  end)

  it("reads from a pipe, and with nothing to read ends", function()
    assert.same({ 0, "3\n" }, { shell.run("echo 1 + 2 | lua/bin/weir repl") })
    assert.same({ 0, "" }, { shell.run("lua/bin/weir repl </dev/null") })
  end)

  it("ends quietly when nobody reads what it prints", function()
    local status, out = shell.run("(echo 'for i = 1, 1e5 do print(i) end'; echo 1) | lua/bin/weir repl | head -1")
    assert.same({ 0, "1\n" }, { status, out })
  end)

  it("takes bytes that are no UTF-8, and lines with a carriage return", function()
    prints('"\\xff"\n5\n', "'\255'\r\n5\r\n")
  end)

  it("lets a program have the standard output as a file", function()
    prints("file\none\ntwo\nback\n", ([[
do
  print(io.type(io.stdout))
  io.output():write("one\n")
  io.stdout:write("two\n"):flush()
  io.output(%q)
  io.write("aside")
  io.output():close()
  io.output(io.stdout)
  io.write("back\n")
end
]]):format(file("other")))
    assert.equal("aside", shell.read(file("other")))
  end)

  it("refuses wrong use with status 2", function()
    local status, _, err = script("", "a.lua", "--connect", "memory:")
    assert.equal(2, status)
    assert.matches("exclude each other", err)
  end)

  it("fails when the application cannot be opened, or the broker not be reached", function()
    fails("^weir: load: cannot open", "1", dir .. "/none.lua")
    fails("no known scheme", "1", "--connect", "gopher://x")
  end)

  it("shows what .help lists for each command", function()
    local _, out = script(".help\n")
    for _, name in ipairs(require("weir.repl.commands").names()) do
      assert.matches("%." .. name .. "[ \n]", out)
    end
  end)
end)

describe("weir repl and an application", function()
  it("opens that of a file, publishes, and shows subscriptions and brokers", function()
    local path = file("app.lua", APP:format("the file"))
    local status, out, err = script([[
app
answers = weir.channel(1)
app:subscriber("bills", function(bill) answers:send(bill) end)
.publish orders { id = 1 }
(answers:recv(5))
.publish orders {"id": "two"}
(answers:recv(5))
.subs
.brokers
.stats orders
.stats order
]], path)
    assert.matches("^weir.app%(shop 1.0.0, running%)\n", out)
    assert.matches('{ from = "the file", id = 1 }\n{ from = "the file", id = "two" }\n', out)
    assert.matches("\norders  memory  up  2 done, 0 failed, 0 in flight  ", out)
    assert.matches("\nmemory  memory  up  ", out)
    assert.matches("ack = 2,", out)
    assert.matches("did you mean 'orders'", err)
    assert.equal(1, status)
  end)

  it("replaces a handler while messages flow, and loses none", function()
    prints('true\n1000\ntrue\n', [[
seen, counts, done = {}, { old = 0, new = 0 }, weir.channel(1)
function note(which, n)
  assert(not seen[n])
  seen[n] = true
  counts[which] = counts[which] + 1
  if counts.old + counts.new == 1000 then done:send(true) end
end
_ = app:subscriber("numbers", function(n) weir.sleep(0) note("old", n) end) and nil
numbers = app:publisher({ to = "numbers" })
sender = weir.spawn(function()
  for i = 1, 1000 do
    assert(numbers:publish(i))
    if i % 50 == 0 then weir.sleep(0.001) end
  end
end)
while counts.old < 100 do weir.sleep(0.001) end
new = app:subscriber("numbers", function(n) note("new", n) end)
(done:recv(20))
counts.old + counts.new
counts.old >= 100 and counts.new > 0
]])
  end)

  it("loses no message of a group that stays when options change while messages flow", function()
    prints('true\n1000\n0\n', [[
seen, count, again, done = {}, 0, 0, weir.channel(1)
function define(workers)
  return app:subscriber({ name = "numbers", group = "g", durable = true }, { workers = workers }, function(n)
    again = again + (seen[n] and 1 or 0)
    seen[n], count = true, count + 1
    if count == 1000 then done:send(true) end
  end)
end
_ = define(1) and nil
numbers = app:publisher({ to = "numbers" })
sender = weir.spawn(function()
  for i = 1, 1000 do
    assert(numbers:publish(i))
    if i % 20 == 0 then weir.sleep(0.001) end
  end
end)
for workers = 2, 5 do
  local before = count
  while count < before + 50 do weir.sleep(0.001) end
  assert(define(workers))
end
(done:recv(20))
count
again
]])
  end)

  it("keeps the former handler when the options of the new one are wrong", function()
    prints('nil, "wiring"\n"first"\n', [[
answers = weir.channel(1)
first = app:subscriber("a", function() answers:send("first") end)
second, err = app:subscriber("a", { retries = 1 }, function() answers:send("second") end)
second, err.code
.publish a 1
(answers:recv(5))
]])
  end)

  it("has the new handler work with other options, and shows them", function()
    local _, out = script([[
_ = app:subscriber("a", { workers = 2 }, function() end) and nil
.subs
_ = app:subscriber("a", { workers = { count = 3, by = "key" } }, function() end) and nil
.subs
_ = app:batch("b", { max = 10 }, function() end) and nil
.subs
]])
    assert.matches("0 in flight, 2 workers  stdin:1:1\n", out)
    assert.matches("0 in flight, 3 workers by key  stdin:3:1\n", out)
    assert.matches("0 in flight, batches of 10 +stdin:5:1\n", out)
    prints('"second"\n2\n', [[
answers = weir.channel(1)
first = app:subscriber("a", function() answers:send("first") end)
second = app:subscriber("a", { workers = 2 }, function() answers:send("second") end)
.publish a 1
(answers:recv(5))
app:describe().subscriptions[1].workers.count
]])
  end)

  it("closes a handler", function()
    prints("true\n0\n", [[
handler = app:subscriber("a", print)
handler:close()
#app:describe().subscriptions
]])
  end)

  it("loads a file again and gives the handlers anew", function()
    local path = file("app.lua", APP:format("before"))
    local after = file("after.lua", APP:format("after"):gsub("return app", [[
app:subscriber("more", function() end)
return app]]))
    prints('"before"\nhandlers: 1 replaced, 1 new, 0 closed\n"after"\n', ([[
sub = app.brokers[1].broker:subscribe(app.brokers[1].broker:descriptor("bills"))
function answer() local m = sub:next(5) m:ack() return require("cjson").decode(m.payload).from end
.publish orders { id = 1 }
answer()
ok = os.rename(%q, %q)
.reload
.publish orders { id = 2 }
answer()
]]):format(after, path), path)
  end)

  it("goes on with the old handlers when the file has an error", function()
    local path = file("app.lua", APP:format("before"))
    local status, out, err = script(("io.open(%q, 'w'):write('return +'):close()\n.reload\n"):format(path), path)
    assert.equal(1, status)
    assert.matches("app.lua:1: unexpected symbol", err)
    assert.equal("true\n", out)
  end)

  it("runs a file with the session's globals, and makes its application the session's", function()
    local plain = file("plain.lua", "function triple(x) return 3 * x end")
    local path = file("app.lua", APP:format("x"))
    prints(("%s is loaded\n6\nweir.app(shop 1.0.0, running)\n"):format(plain),
      (".load %s\ntriple(2)\n.load %s\n"):format(plain, path))
  end)

  it("saves what was defined as an application that runs", function()
    local path = file("saved.lua")
    local status, out, err = script(([[
looked = 1 + 1
net = weir.network()
function price(n) return 5 * n end
answers = weir.channel(1)
1 + 1
app:subscriber("orders", function() answers:send("first") end)
sub = app:subscriber("orders", { reply = "bills" }, function(order)
  return { total = price(order.quantity) }
end)
.save %s
.save %s
]]):format(path, path))
    assert.equal("", err)
    assert.equal(0, status)
    assert.matches("definitions in .*saved.lua; weir run", out)
    local text = shell.read(path)
    assert.not_matches("first", text)
    assert.not_matches("network", text)
    assert.matches("\nfunction price%(n%) return 5 %* n end\n", text)
    assert.equal("repl 0.1.0: the wiring is right\n", shell.check("lua/bin/weir check " .. path))
    local found = shell.check("luacheck -q --no-color " .. path .. " || true")
    assert.not_matches("undefined", found) -- names that the file does not give
  end)

  -- What a session saves, as the lines below what every file begins with.
  local function what_is_saved(text)
    local path = file("saved.lua")
    assert.equal(0, (script(text .. ".save " .. path .. "\n")))
    assert.equal("repl 0.1.0: the wiring is right\n", shell.check("lua/bin/weir check " .. path))
    return (shell.read(path):gsub("\n+", "\n"):gsub("^.-%(\"BROKER\".-\n", ""):gsub("return app\n$", ""))
  end

  it("saves what builds on what was there, and fields, once each", function()
    assert.equal([[
local M, n
n = 0
n = n + 1
M = {}
M.rate = 3
function M.price(q) return M.rate * q end
]], what_is_saved([[
n = 5
n = 0
n = n + 1
M = { old = true }
M.gone = 1
M = {}
function M.price(q) return q end
M.rate = 2
M.rate = 3
function M.price(q) return M.rate * q end
if n > 5 then M.never = 1 end
M.rate
]]))
  end)

  it("saves inputs in the form that a file can have", function()
    assert.equal([[
do local _ = app:subscriber("a", print)
end
do local _ = app:subscriber("b", print)
end
;(app):subscriber("c", print)
do
local own = 1 app:subscriber("d", function() return own end)
end
do local _ = (function()
app:subscriber("e", print) return 1
end)()
end
]], what_is_saved([[
= app:subscriber("a", print)
return app:subscriber("b", print)
(app):subscriber("c", print)
local own = 1 app:subscriber("d", function() return own end)
app:subscriber("e", print) return 1
]]))
  end)

  it("saves routers, and replaces their handlers", function()
    prints('"first"\n"second"\n', [[
answers = weir.channel(1)
shop = weir.router({ prefix = "shop." })
_ = shop:subscriber("a", function() answers:send("first") end) and nil
_ = app:include(shop) and nil
.publish shop.a 1
(answers:recv(5))
_ = shop:subscriber("a", function() answers:send("second") end) and nil
.publish shop.a 1
(answers:recv(5))
]])
    assert.equal([[
local shop
shop = weir.router()
shop:subscriber("a", print)
app:include(shop)
]], what_is_saved([[
shop = weir.router()
shop:subscriber("a", function() end)
shop:subscriber("a", print)
app:include(shop)
]]))
  end)

  it("leaves a file alone that no session saved", function()
    local path = file("mine.lua", "-- mine\n")
    local status, _, err = script("app:subscriber('a', print)\n.save " .. path .. "\n")
    assert.equal(1, status)
    assert.matches("exists and was not saved by a session", err)
    assert.equal("-- mine\n", shell.read(path))
  end)

  it("saves through a link, keeps permissions, and leaves nothing beside", function()
    local saved = file("saved.lua")
    local input = "app:subscriber('%s', function() end)\n.save " .. saved .. "\n"
    assert.equal(0, (script(input:format("first"))))
    shell.check(("cd %s && mv saved.lua real.lua && ln -s real.lua saved.lua && chmod 640 real.lua")
      :format(shell.quote(saved:match("^(.*)/"))))
    assert.equal(0, (script(input:format("second"))))
    assert.matches("second", shell.read((saved:gsub("saved.lua$", "real.lua"))))
    assert.equal("640 real.lua saved.lua script\n", shell.check(("cd %s && echo $(stat -c %%a real.lua) $(ls)")
      :format(shell.quote(saved:match("^(.*)/")))))
    local status, _, err = script("app:subscriber('a', function() end)\n.save /nowhere/app.lua\n")
    assert.equal(1, status)
    assert.matches("cannot write /nowhere/app.lua: no such file or directory", err)
  end)

  it("saves what was added to the application of a file", function()
    local path, saved = file("app.lua", APP:format("x")), file("saved.lua")
    local status = script(("app:subscriber('orders', { reply = 'bills' }, function() return 'anew' end)\n.save %s\n")
      :format(saved), path)
    assert.equal(0, status)
    assert.equal("shop 1.0.0: the wiring is right\n", shell.check("lua5.4 lua/bin/weir check " .. saved))
  end)

  it("connects a second broker, on which handlers can be", function()
    prints('connected: memory2\n"there"\n', [[
answers = weir.channel(1)
one = app:subscriber("a", function() answers:send("here") end)
.connect memory:
two = app:subscriber("a", { broker = "memory2" }, function() answers:send("there") end)
sent = app:publisher({ to = "a", broker = "memory2" }):publish(1)
(answers:recv(5))
]])
  end)

  it("says why a broker cannot be connected", function()
    fails("no known scheme", ".connect gopher://x\n")
  end)
end)

describe("weir repl and a server", function()
  if not nats_server.available() then
    pending("nats-server or weir.brokers.nats is missing", function() end)
    return
  end

  it("begins with a broker, publishes to it and takes from it", function()
    local weir = require("weir")
    weir.run(function()
      local server = nats_server.start()
      local url = server.url:gsub("//", "//user:secret@")
      local saved = file("saved.lua")
      local text = ([[
answers = weir.channel(1)
one = app:subscriber("a", function(value) answers:send(value) end)
.publish a { n = 1 }
(answers:recv(5))
.brokers
.save %s
]]):format(saved)
      local status, out, err = script(text, "--connect", url)
      server:stop()
      assert.equal("", err)
      assert.equal(0, status)
      assert.matches("^{ n = 1 }\nnats  nats  up  127.0.0.1", out)
      assert.not_matches("secret", shell.read(saved))
    end)
  end)
end)

describe("the stock prompt with weir loaded", function()
  it("runs the loop in calls that wait", function()
    local path = file("typed", [[
net = weir.network()
producer = net:produce("a")
consumer = net:consume("a")
producer:send("x")
= consumer:recv(5)
= consumer:recv(0.01)
app = weir.app("t", "1", { log = { level = "off" } })
broker = app:broker("memory:")
done = weir.channel(1)
one = app:subscriber("o", function(v) done:send(v) end)
running = app:start()
ok = app:publisher({ to = "o" }):publish(7)
= done:recv(5)
= running:stop()
]])
    local status, out = shell.run("lua5.4 -l weir -i <" .. path)
    assert.equal(0, status)
    assert.matches("x\tweir.meta", out)
    assert.matches("nil\ttimeout: the time is over", out)
    assert.matches("\n[> ]*7\tnil\n", out)
    assert.matches("7\tnil\n.*\n?[> ]*true\n", out)
  end)
end)
