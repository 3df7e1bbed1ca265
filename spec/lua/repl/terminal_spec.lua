local shell = require("spec.house.shell")
local terminal = require("spec.lua.repl.terminal")

local missing = terminal.missing()

-- Keys.
local ENTER, TAB, INTERRUPT, EOF = "\r", "\t", "\3", "\4"

-- The steps of typing a line and seeing the prompt again; what is expected comes between.
local function steps(...)
  local list = { { "expect", "> " } }
  for _, each in ipairs({ ... }) do
    for _, step in ipairs(type(each[1]) == "table" and each or { each }) do
      list[#list + 1] = step
    end
  end
  return list
end

local function line(text, ...)
  local list = { { "send", text .. ENTER }, { "expect", "\r\n" } }
  for _, expected in ipairs({ ... }) do
    list[#list + 1] = { "expect", expected }
  end
  list[#list + 1] = { "expect", "> " }
  return list
end

local function send(text, expected)
  return { { "send", text }, { "expect", expected } }
end

-- Ctrl-D is for the prompt to see.
local prompt = { { "expect", "> " } }
local leave = { { "send", EOF }, { "quit" } }

if missing then
  pending("weir repl in a terminal (" .. missing .. ")", function() end)
  return
end

describe("weir repl in a terminal", function()
  it("prints the values of expressions, and keeps the last one", function()
    terminal.passes({
      steps = steps(line("6 * 7", "42"), line("_ + 1", "43"), line("nil, 2", "nil, 2"), line("x = 1"), line("x", "1"),
        leave),
    })
  end)

  it("reads an input of several lines", function()
    terminal.passes({
      steps = steps(send("function double(x)" .. ENTER, ">> "), send("return 2 * x" .. ENTER, ">> "), line("end"),
        line("double(4)", "8"), leave),
    })
  end)

  it("shows errors and goes on", function()
    terminal.passes({
      steps = steps(line("error('no')", "error: prompt:1: no"), line("1 +* 2", "error: prompt:1:"),
        line("weir.ap()", "error: prompt:1:"), line("1", "1"), leave),
    })
  end)

  it("writes what tasks print above the line that is being typed", function()
    local output = terminal.passes({
      steps = steps(line("gate = weir.channel(1)"),
        line("task = weir.spawn(function() gate:recv() print('from behind') io.write('and more\\n') end)"),
        line("timer = weir.spawn(function() weir.sleep(0.2) gate:send(1) end)"),
        send("1 + 41", "1 + 41"), { { "expect", "from behind\r\nand more\r\n" }, { "expect", "> 1 + 41" } },
        send(ENTER, "42\r\n"), prompt, leave),
    })
    -- The line is taken off the screen before.
    assert.matches("1 %+ 41\r\27%[Jfrom behind", output)
  end)

  it("delivers messages while somebody types", function()
    terminal.passes({
      steps = steps(
        line("app:subscriber('orders', function(order) print('order ' .. order) end)", "weir.registration(prompt:1)"),
        line("weir.spawn(function() weir.sleep(0.1) app:publisher({ to = 'orders' }):publish('a') end)", "weir.task"),
        send("half a li", "half a li"), { { "expect", "order a\r\n" }, { "expect", "> half a li" } },
        send(INTERRUPT, "^C"), { { "expect", "> " } }, leave),
    })
  end)

  it("shows what goes by, until it is told not to", function()
    local output = terminal.passes({
      steps = steps(line(".tail a", "showing a"), send(".publish a { id = 1 }" .. ENTER, "a <- { id = 1 }\r\n"),
        send(".publish a '\\27[2J'" .. ENTER, 'a <- "\\x1b[2J"\r\n'), line(".tail a", "a is not shown any more"),
        line(".publish a 'unseen'"), line("1", "1"), leave),
    })
    assert.not_matches('a <- "unseen"', output, 1, true)
  end)

  it("ends what waits with Ctrl-C, and keeps the session", function()
    terminal.passes({
      steps = steps(line("x = 5"),
        send("net = weir.network(); consumer = net:consume('none'); consumer:recv()" .. ENTER, "\r\n"),
        send(INTERRUPT, "cancelled: interrupted by Ctrl-C"), { { "expect", "> " } }, line("x", "5"), leave),
    })
  end)

  it("ends with Ctrl-C what does not wait", function()
    terminal.passes({
      steps = steps(send("print('be' .. 'gun') while true do end" .. ENTER, "begun\r\n"),
        send(INTERRUPT, "interrupted by Ctrl-C"),
        { { "expect", "> " } }, line("1", "1"), leave),
    })
  end)

  it("discards a line with Ctrl-C, also one of several", function()
    terminal.passes({
      steps = steps(send("x = 1 + ", "x = 1 + "), send(INTERRUPT, "> "), line("2", "2"),
        send("f = function()" .. ENTER, ">> "), send(INTERRUPT, "> "), line("f", "nil"), leave),
    })
  end)

  it("asks at the first Ctrl-C at an empty prompt, and ends at the second", function()
    terminal.passes({
      steps = steps(send(INTERRUPT, "Ctrl-C again, or Ctrl-D, ends the session."), { { "expect", "> " } },
        line("1", "1"), send(INTERRUPT, "ends the session."), { { "expect", "> " } }, send(INTERRUPT, "^C"),
        { "quit" }),
    })
  end)

  it("closes everything at Ctrl-D", function()
    local dir, remove = shell.scratch()
    finally(remove)
    shell.write(dir .. "/app.lua", [[
      local app = require("weir").app("files", "1.0.0", { log = { level = "off" } })
      app:broker("memory:")
      app:on("stopped", function() print("the hook ran") end)
      return app
    ]])
    local output = terminal.passes({
      words = { dir .. "/app.lua" },
      steps = steps(line("net = weir.network({ listen = 'tcp://127.0.0.1:0' })"), leave),
    })
    assert.matches("the hook ran", output)
  end)

  it("says what it waits for at the end, and waits no more at Ctrl-C or another SIGTERM", function()
    for _, how in ipairs({ { steps = { { "send", EOF } }, again = { "send", INTERRUPT }, status = 130 },
      { steps = { { "signal", "SIGTERM" } }, again = { "signal", "SIGTERM" }, status = 143 } }) do
      local result = terminal.play({
        steps = steps(line("app:subscriber('slow', function() print('be' .. 'gun') weir.sleep(1e4) end)", "weir.reg"),
          send(".publish slow 1" .. ENTER, "begun\r\n"), prompt, how.steps, { { "expect", "Ctrl-C ends at once" } },
          { how.again, { "quit" } }),
      })
      assert.equal(how.status, result.status)
      assert.is_true(result.canonical)
    end
  end)

  it("lets inputs, and programs that they start, read from the terminal", function()
    terminal.passes({
      steps = steps(send("print('be' .. 'gun') return io.read()" .. ENTER, "begun\r\n"),
        send("typed" .. ENTER, '"typed"\r\n'), prompt,
        send("os.execute('echo be${x}gun; head -n 1')" .. ENTER, "begun\r\n"),
        send("taken" .. ENTER, "taken\r\ntaken\r\n"), prompt, leave),
    })
  end)

  it("begins a prompt in a line of its own", function()
    terminal.passes({
      steps = steps({ "send", "for i = 1, 3 do io.write('x' .. i) end" .. ENTER }, { "screen",
        { "> for i = 1, 3 do io.write('x' .. i) end", "x1x2x3", ">" } }, leave),
    })
  end)

  it("completes globals, methods, fields, options and commands", function()
    terminal.passes({
      steps = steps(send("app:descr" .. TAB, "ibe"), send("()" .. ".tit" .. TAB, ".tit"), send(INTERRUPT, "> "),
        line("some_long_name = { inner_field = 1 }"), send("some_l" .. TAB, "ong_name"),
        send(".inn" .. TAB, "er_field"),
        send(ENTER, "1\r\n"), { { "expect", "> " } }, line("net = weir.network()"),
        send("net:produce('x', { max_c" .. TAB, "onsumers = "), send(INTERRUPT, "> "),
        send(".conn" .. TAB, "ect "), send(INTERRUPT, "> "), send("weir.netw" .. TAB, "ork"),
        send(INTERRUPT, "> "), leave),
    })
  end)

  it("completes options in the lines that follow the first", function()
    terminal.passes({
      steps = steps(send("app:subscriber('a', {" .. ENTER, ">> "), send("dead_l" .. TAB, "etter = "),
        send(INTERRUPT, "> "), leave),
    })
  end)

  it("lists the candidates when there are several", function()
    terminal.passes({
      steps = steps(line("alpha_one, alpha_two = 1, 2"), send("alpha_" .. TAB, "alpha_one  alpha_two\r\n"),
        { { "expect", "> alpha_" } }, send("t" .. TAB, "wo"), send(ENTER, "2\r\n"), prompt, leave),
    })
  end)

  it("does what Tab means with nothing to complete: nothing", function()
    terminal.passes({ steps = steps(send("zzz_" .. TAB .. TAB, "zzz_"), send(INTERRUPT, "> "), leave) })
  end)

  it("remembers lines from session to session, within bounds", function()
    local dir, remove = shell.scratch()
    finally(remove)
    local env = { WEIR_HISTORY = dir .. "/deep/history" }
    terminal.passes({ env = env, steps = steps(line("11 + 11", "22"), leave) })
    assert.equal("11 + 11\n", shell.read(env.WEIR_HISTORY))
    assert.equal("600\n", shell.check("stat -c %a " .. env.WEIR_HISTORY))
    terminal.passes({ env = env, steps = steps(send("\27[A", "11 + 11"), send(ENTER, "22"), prompt, leave) })
    local lines = {}
    for i = 1, 3000 do
      lines[i] = "old " .. i
    end
    shell.write(env.WEIR_HISTORY, table.concat(lines, "\n") .. "\n")
    terminal.passes({ env = env, steps = steps(line("'new'", "new"), leave) })
    local text = shell.read(env.WEIR_HISTORY)
    assert.equal(1000, select(2, text:gsub("\n", "")))
    assert.matches("old 3000\n'new'\n$", text)
  end)

  it("goes without a history that cannot be read or written", function()
    local env = { WEIR_HISTORY = "/dev/null/history" }
    local output = terminal.passes({ env = env, steps = steps(line("1", "1"), leave) })
    assert.matches("the history was not kept", output)
  end)

  it("keeps off a history that is read-only, or no file", function()
    local dir, remove = shell.scratch()
    finally(remove)
    shell.write(dir .. "/history", "11 + 11\n")
    shell.check("chmod 400 " .. dir .. "/history && mkfifo " .. dir .. "/fifo")
    local output = terminal.passes({
      env = { WEIR_HISTORY = dir .. "/history" },
      steps = steps(send("\27[A", "11 + 11"), send(ENTER, "22"), prompt, line("1", "1"), leave),
    })
    assert.matches("the history was not kept: .*history: it is read%-only", output)
    assert.equal("11 + 11\n", shell.read(dir .. "/history"))
    output = terminal.passes({ env = { WEIR_HISTORY = dir .. "/fifo" }, steps = steps(line("1", "1"), leave) })
    assert.matches("the history was not kept: .*fifo: it is no file", output)
  end)

  it("takes what can be typed from a history of anything, and writes through a link", function()
    local dir, remove = shell.scratch()
    finally(remove)
    shell.write(dir .. "/real", "grün = 1\n\27[2J\n\255\254\n" .. ("x"):rep(5000) .. "\n")
    shell.check("ln -s real " .. dir .. "/history")
    terminal.passes({
      env = { WEIR_HISTORY = dir .. "/history" },
      steps = steps(send("\27[A", "grün = 1"), send(INTERRUPT, "> "), line("2", "2"), leave),
    })
    assert.equal("grün = 1\n2\n", shell.read(dir .. "/real"))
  end)

  it("takes what is no UTF-8", function()
    terminal.passes({
      steps = steps({ "send", "#'" }, { "bytes", "fffec328" }, { "send", "'" .. ENTER }, { "expect", "10\r\n" },
        { "expect", "> " },
        line("'\\xff\\xfe'", "\"\\xff\\xfe\""), line("'grün 世'", "\"grün 世\""), leave),
    })
  end)

  it("does not stand still after half a key", function()
    terminal.passes({
      steps = steps(line("weir.spawn(function() weir.sleep(0.2) print('awake') end)", "weir.task"),
        { { "bytes", "e4b8" } }, { { "expect", "awake\r\n" } }, { { "bytes", "96" } }, { { "expect", "世" } },
        send(INTERRUPT, "> "), line("weir.spawn(function() weir.sleep(0.2) print('again') end)", "weir.task"),
        { { "bytes", "1b" } }, { { "expect", "again\r\n" } }, { { "bytes", "5b44" } }, line("1", "1"), leave),
    })
  end)

  it("shows huge values in part", function()
    local output = terminal.passes({
      steps = steps(line("('x'):rep(1e7)", "10000000 bytes in all"), line("t = {}"),
        line("for i = 1, 1e5 do t[i] = i end"), line("t", "... 99950 more"), leave),
    })
    assert.is_true(#output < 10000)
  end)

  it("keeps the line whole on ten columns while others print and the terminal is resized", function()
    terminal.passes({
      columns = 10,
      rows = 8,
      steps = steps(line("gate = weir.channel(1)"), line("function f() gate:recv() print('0123456789abc') end"),
        line("for _ = 1, 2 do weir.spawn(f) end"), line("function g() weir.sleep(0.1) gate:send(1) end"),
        line("weir.spawn(g)", "weir.task"), { "send", "1 + 2 + 3 + 4 + 5" },
        { "screen", { "0123456789", "abc", "> 1 + 2 +", "3 + 4 + 5" } },
        { "resize", 8, 12 }, { "screen", { "> 1 + 2 + 3", "+ 4 + 5" } }, { "send", INTERRUPT },
        { "screen", { "> 1 + 2 + 3", "+ 4 + 5^C", ">" } }, line("weir.spawn(g)", "weir.task"),
        { "send", "'世世世世世世'" }, { "screen", { "0123456789ab", "c", "> '世世世世", "世世'" } },
        send(ENTER, '"世世世世世世"'), prompt, leave),
    })
  end)

  it("discards a line of several rows with Ctrl-C in its middle", function()
    terminal.passes({
      columns = 12,
      steps = steps({ "send", "1234567890123456789012345" }, { "screen", { "> 1234567890", "123456789012", "345" } },
        { "send", "\1" .. INTERRUPT }, { "screen", { "> 1234567890", "123456789012", "345^C", ">" } }, leave),
    })
  end)

  it("works on a narrow terminal and when that is resized", function()
    terminal.passes({
      columns = 12,
      rows = 5,
      steps = steps(send("x = 'a rather long line'" .. ENTER, "> "), line("#x", "18"),
        line("weir.spawn(function() weir.sleep(0.2) print('narrow') end)", "weir.task"),
        send("1 + 2 + 3 + 4 + 5", "5"), { { "expect", "narrow\r\n" }, { "resize", 30, 100 } },
        send(ENTER, "15\r\n"), prompt, leave),
    })
  end)

  it("reads pasted lines one by one", function()
    terminal.passes({
      steps = steps({ "send", "a = 1\rb = 2\ra + b\r" }, { "expect", "a + b\r\n" }, { "expect", "3\r\n" },
        { "expect", "> " }, leave),
    })
  end)

  it("takes text that is pasted between marks as it is, whatever it contains", function()
    terminal.passes({
      steps = steps({ "send", "\27[200~x = {\r\n\t'a', --\27[A\4\n}\27[20" }, { "send", "1~\r" }, { "expect", "> " },
        line("x", '{ "a" }'), send("\27[200~1 + 4", "1 + 4"), send("1\27[201~", "1"), send(ENTER, "42"), prompt, leave),
    })
  end)

  it("takes a long line that is pasted at once", function()
    terminal.passes({
      steps = steps({ "send", "\27[200~x = '" .. ("y"):rep(20000) .. "'\27[201~" .. ENTER },
        { "expect", "\27[?2004h> " }, line("#x", "20000"), leave),
    })
  end)

  it("forgets what is pasted at Ctrl-C", function()
    terminal.passes({ steps = steps(send("\27[200~lost", "lost"), send(INTERRUPT, "> "), line("1", "1"), leave) })
  end)

  it("writes all of what is much, however slowly the terminal takes it", function()
    local output = terminal.passes({ steps = steps(line("for i = 1, 5e4 do print(i) end", "\n50000\r\n"), leave) })
    assert.equal(50000, select(2, output:gsub("\n%d+\r", "")) + 1)
  end)

  it("shows some of what goes by where much does, and counts the rest", function()
    terminal.passes({
      steps = steps(line(".tail a", "showing a"), line("to_a = app:publisher({ to = 'a' })"),
        send("for i = 1, 1e3 do to_a:publish(i) end" .. ENTER, "a <- 20\r\n"), { "expect", "a: 980 more\r\n" },
        { "expect", "> " }, leave),
    })
  end)

  it("does nothing while nobody types and nothing is due", function()
    terminal.passes({
      seconds = 60,
      steps = steps(line("app:subscriber('a', print)", "weir.registration"), { "idle", 1 }, { "send", "half" },
        { "idle", 1 }, send(INTERRUPT, "> "), leave),
    })
  end)

  it("stops at Ctrl-Z as the shell wants it, and goes on where it was", function()
    local dir, remove = shell.scratch()
    finally(remove)
    terminal.passes({
      program = { "sh", "-i" },
      env = { WEIR_HISTORY = "", PS1 = "shell: ", ENV = "", DUE = dir .. "/due" },
      steps = {
        { "expect", "shell: " }, { "send", "lua/bin/weir repl\r" }, { "expect", "> " },
        -- What falls due while it is stopped comes when it goes on.
        { "send", "file = os.getenv('DUE')\r" }, { "expect", "> " },
        { "send", "function due() while not io.open(file) do weir.sleep(0.01) end print('it is ' .. 'due') end\r" },
        { "expect", "> " }, { "send", "weir.spawn(due)\r" }, { "expect", "weir.task" }, { "expect", "> " },
        { "send", "1 + 2" }, { "expect", "1 + 2" }, { "send", "\26" }, { "expect", "shell: " },
        { "send", "stty -a\r" }, { "expect", " icanon " }, { "expect", " echo " }, { "expect", "shell: " },
        { "send", "touch $DUE\r" }, { "expect", "shell: " }, { "send", "fg\r" }, { "expect", "it is due\r\n" },
        { "expect", "> 1 + 2" }, { "send", " + 3\r" }, { "screen", { "it is due", "> 1 + 2 + 3", "6", ">" } },
        -- An input that runs.
        { "send", "while true do weir.sleep(0.01) print('tick') end\r" }, { "expect", "\r\ntick\r\n" },
        { "send", "\26" }, { "expect", "shell: " },
        { "send", "fg\r" }, { "expect", "lua/bin/weir repl\r\n" }, { "expect", "tick\r\n" }, { "send", INTERRUPT },
        { "expect", "interrupted by Ctrl-C" },
        { "expect", "> " }, { "send", EOF }, { "expect", "shell: " }, { "send", "exit\r" }, { "quit" },
      },
    })
  end)

  it("ends with Ctrl-C whatever computes: a handler, a coroutine, what a value says of itself", function()
    local spin = "function() print('be' .. 'gun') while true do end end"
    terminal.passes({
      steps = steps(
        line("app:subscriber('spin', { retry = { max_attempts = 1 } }, " .. spin .. ")", "weir.registration"),
        send(".publish spin 1" .. ENTER, "begun\r\n"), send(INTERRUPT, "interrupted by Ctrl-C"), { { "expect", "> " } },
        send("coroutine.wrap(" .. spin .. ")()" .. ENTER, "begun\r\n"), send(INTERRUPT, "interrupted by Ctrl-C"),
        { { "expect", "> " } },
        send("setmetatable({}, { __tostring = " .. spin .. " })" .. ENTER, "begun\r\n"),
        send(INTERRUPT, "__tostring fails"),
        { { "expect", "> " } }, line("1", "1"), leave),
    })
  end)

  it("tells of a task that yields to nobody", function()
    terminal.passes({
      steps = steps(line("weir.spawn(function() coroutine.yield() end):join()", "that block with weir.wrap"), leave),
    })
  end)

  it("ends with a second Ctrl-C what catches the first", function()
    terminal.passes({
      steps = steps(send("print('be' .. 'gun') while true do pcall(function() while true do end end) end" .. ENTER,
        "begun\r\n"),
        -- The first is below its ^C when it was caught.
        send(INTERRUPT, "^C\r\n"), send(INTERRUPT, "interrupted by Ctrl-C"), { { "expect", "> " } },
        line("1", "1"), leave),
    })
  end)

  it("ends at SIGTERM and SIGHUP whatever computes", function()
    for name, status in pairs({ SIGTERM = 143, SIGHUP = 129 }) do
      local result = terminal.play({
        env = { WEIR_HISTORY = "" },
        steps = { { "expect", "> " },
          { "send", "print('be' .. 'gun') while true do pcall(function() while true do end end) end" .. ENTER },
          { "expect", "begun\r\n" }, { "signal", name }, { "quit" } },
      })
      assert.equal(status, result.status)
      assert.is_true(result.canonical)
    end
  end)

  it("goes on closing in order however often it is told that its terminal is gone", function()
    local result = terminal.play({
      steps = steps(line("app:subscriber('slow', function() print('be' .. 'gun') weir.sleep(1e4) end)", "weir.reg"),
        send(".publish slow 1" .. ENTER, "begun\r\n"), prompt,
        { { "signal", "SIGHUP" }, { "expect", "Ctrl-C ends at once" }, { "signal", "SIGHUP" }, { "send", INTERRUPT },
          { "quit" } }),
    })
    assert.equal(130, result.status) -- that of the interrupt
  end)

  it("dies of a second SIGTERM when nothing sees to the first, the terminal as it was", function()
    local result = terminal.play({
      env = { WEIR_HISTORY = "" },
      steps = { { "expect", "> " },
        { "send", "print('be' .. 'gun') return ('a'):rep(40):find(('a*'):rep(40) .. 'b')" .. ENTER },
        { "expect", "begun\r\n" }, { "signal", "SIGTERM" }, { "signal", "SIGTERM" }, { "quit" } },
    })
    assert.equal(143, result.status)
    assert.is_true(result.canonical)
  end)

  it("reads whole lines where the terminal cannot edit, and says so", function()
    local output = terminal.passes({
      env = { WEIR_HISTORY = "", TERM = "dumb" },
      steps = steps(line("6 * 7", "42"), send("print('be' .. 'gun') weir.sleep(100)" .. ENTER, "begun\r\n"),
        send(INTERRUPT, "interrupted"),
        { { "expect", "> " } }, leave),
    })
    assert.matches("cannot edit lines; input is read in whole lines", output)
  end)

  it("ends in order at SIGTERM, while somebody types and while something waits", function()
    for _, typed in ipairs({ "half", "weir.sleep(100)" .. ENTER }) do
      local result = terminal.play({
        env = { WEIR_HISTORY = "" },
        steps = { { "expect", "> " }, { "send", "app:on('stopped', function() print('the hook ran') end)" .. ENTER },
          { "expect", "weir.app(repl" }, { "expect", "> " }, { "send", typed }, { "expect", typed:sub(-5, -2) },
          { "signal", "SIGTERM" }, { "expect", "the hook ran" }, { "quit" } },
      })
      assert.equal(143, result.status)
    end
  end)

  it("leaves the terminal as it was, also when the program is ended from behind", function()
    local result = terminal.play({
      env = { WEIR_HISTORY = "" },
      steps = { { "expect", "> " }, { "send", "weir.spawn(function() weir.sleep(0.1) os.exit(7) end)" .. ENTER },
        { "expect", "weir.task" }, { "expect", "> " }, { "quit" } },
    })
    assert.equal(7, result.status)
    assert.is_true(result.canonical)
  end)

  it("reads whole lines where weir was built without libedit, and says so", function()
    local dir, remove = shell.scratch()
    finally(remove)
    local build = package.searchpath("weir.core", package.cpath):match("^(.*)/lua54/weir/core%.so$")
    shell.check(("cp -rs %s %s/lua54 && rm %s/lua54/weir/edit.so"):format(
      shell.quote(build .. "/lua54"), dir, dir))
    local output = terminal.passes({
      env = { WEIR_HISTORY = "", WEIR_BUILD = dir, LUA_CPATH = dir .. "/lua54/?.so;;" },
      steps = steps(line("6 * 7", "42"), send("print('be' .. 'gun') weir.sleep(100)" .. ENTER, "begun\r\n"),
        send(INTERRUPT, "interrupted"), prompt, send(INTERRUPT, "ends the session."), prompt, leave),
    })
    assert.matches("built without libedit, so lines cannot be edited or completed; input is read in whole", output)
  end)

  it("keeps the application when a file that is loaded cannot take its place", function()
    local dir, remove = shell.scratch()
    finally(remove)
    local app = [[
      local app = require("weir").app("files", "1.0.0", { log = { level = "off" } })
      app:broker("memory:")
      app:subscriber("a", %s function(n) print("took " .. n) end)
      return app
    ]]
    shell.write(dir .. "/app.lua", app:format(""))
    shell.write(dir .. "/wrong.lua", app:format("{ retri = 1 },"))
    shell.write(dir .. "/raises.lua", "error({ reason = 'no stock' })")
    local function fails(command, expected)
      return { send(command .. ENTER, expected), prompt, line(".publish a 1", "took 1\r\n") }
    end
    local list = { { "expect", "> " } }
    for _, each in ipairs({ fails(".load " .. dir .. "/wrong.lua", "did you mean 'retry'"),
      fails(".load " .. dir .. "/raises.lua", 'reason = "no stock"'), fails(".load /nowhere", "cannot open"),
      { { { "send", ("os.rename(%q, %q)"):format(dir .. "/wrong.lua", dir .. "/app.lua") .. ENTER } }, prompt },
      fails(".reload", "did you mean 'retry'"), { leave } }) do
      for _, part in ipairs(each) do
        table.move(part, 1, #part, #list + 1, list)
      end
    end
    terminal.passes({ words = { dir .. "/app.lua" }, steps = list })
  end)

  it("goes on without an application that cannot be opened", function()
    terminal.passes({
      words = { "/nowhere/app.lua" },
      steps = { { "expect", "error: load: cannot open /nowhere/app.lua" }, { "expect", "> " },
        { "send", "app" .. ENTER }, { "expect", "weir.app(repl" }, { "expect", "> " }, leave[1], leave[2] },
    })
  end)
end)
