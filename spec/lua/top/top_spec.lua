local json = require("cjson")
local programs = require("spec.programs")
local shell = require("spec.house.shell")
local support = require("spec.lua.cli.support")
local terminal = require("spec.lua.terminal")

local ENTER = "\27[?1049h"
local LEAVE = "\27[?7h\27[?25h\27[?1049l"

after_each(support.clean)

-- Metrics of an application that exists nowhere: its numbers rise with each look.
local function serve(text_of)
  local http = require("weir.http")
  local looks = 0
  local server = assert(http.listen("tcp://127.0.0.1:0", function()
    looks = looks + 1
    local status, body = text_of(looks)
    return status, { ["content-type"] = "text/plain" }, body
  end))
  support.finally(function()
    server:close(0)
  end)
  return server.url
end

local function metrics(looks)
  local lines = {}
  for i, name in ipairs({ "apples", "bread", "coffee" }) do
    local labels = ('app="shop",broker="memory",handler="%s",destination="%s"'):format(name, name)
    lines[#lines + 1] = ("weir_messages_consumed_total{%s} %d"):format(labels, 1000 * i + looks)
    lines[#lines + 1] = ("weir_consumer_lag{%s} %d"):format(labels, (i * 7) % 4)
  end
  lines[#lines + 1] = 'weir_app_info{app="shop",version="1.2"} 1'
  lines[#lines + 1] = 'weir_broker_up{app="shop",broker="memory"} 1'
  lines[#lines + 1] = 'weir_stream_credit_bytes{stream="news",side="producer"} 65536'
  return 200, table.concat(lines, "\n") .. "\n"
end

local APP = [[
local weir = require("weir")
local app = weir.app("shop", "1")
app:broker("memory:")
app:subscriber("orders", { reply = "bills" }, function(order)
  return order
end)
app:subscriber("bills", function() end)
local orders = app:publisher({ to = "orders" })
app:on("started", function()
  for i = 1, 7 do
    orders:publish({ id = i })
  end
end)
return app
]]

describe("weir top", function()
  it("prints it once as text, with --once", function()
    local status, out, err = support.weir("top", serve(metrics), "--once", "--interval", "0.05")
    assert.same({ 0, "" }, { status, err })
    assert.matches("^weir top  http[^\n]*/metrics  shop 1.2\nbrokers: memory up\n", out)
    assert.matches("\napples +[%d.]+ .* 1.0k\n", out)
    assert.matches("\nnews producer .* 64.0 KiB", out)
    assert.not_matches("\27", out)
    assert.not_matches(" \n", out)
  end)

  it("reads no more than 16 MiB of metrics", function()
    local much = ("#" .. ("x"):rep(1023) .. "\n"):rep(17 * 1024)
    local status, _, err = support.weir("top", serve(function()
      return 200, much
    end), "--once", "--interval", "0.05")
    assert.equal(1, status)
    assert.matches("16777216", err)
  end)

  it("prints JSON, one object a line, until nobody reads it", function()
    local url = serve(metrics)
    local status, out = support.weir("top", url, "--once", "--json", "--interval", "0.05")
    assert.equal(0, status)
    local report = json.decode(out)
    assert.equal("apples", report.subscriptions[1].destination)
    assert.equal(1002, report.subscriptions[1].consumed)
    assert.is_true(report.subscriptions[1].rate > 0)
    assert.same({ { app = "shop", broker = "memory", state = "up", reconnects = 0 } }, report.brokers)
    assert.equal(65536, report.streams[1].credit)
    local command = "lua5.4 lua/bin/weir top %s --json --interval 0.02 | head -n 2; echo ${PIPESTATUS[0]}"
    local status_of_shell, lines, errors = programs.run({ "bash", "-c", command:format(url) })
    assert.same({ 0, "" }, { status_of_shell, errors })
    assert.matches("^{[^\n]*}\n{[^\n]*}\n0\n$", lines)
  end)

  it("has no numbers that JSON has none for, and no bytes that are no text", function()
    local status, out, err = support.weir("top", serve(function(looks)
      return 200, ([[
weir_messages_consumed_total{destination="a"} %s
weir_consumer_lag{destination="b"} NaN
weir_queue_depth{destination="b"} -Inf
weir_tasks 1e999
weir_messages_in_flight{destination="c%s"} 1
]]):format(looks > 1 and "+Inf" or "1", "\255\27[2J")
    end), "--once", "--json", "--interval", "0.05")
    assert.same({ 0, "" }, { status, err })
    assert.is_truthy(utf8.len(out))
    local rows = json.decode(out).subscriptions
    assert.same({ 1, "c\u{FFFD}\27[2J" }, { #rows, rows[1].destination })
    assert.not_matches("\27", out)
  end)

  it("shows no password", function()
    local url = serve(metrics):gsub("//", "//me:secret@")
    for _, format in ipairs({ {}, { "--json" } }) do
      local status, out = support.weir("top", url, "--once", "--interval", "0.05", table.unpack(format))
      assert.equal(0, status)
      assert.matches("http://127", out)
      assert.not_matches("secret", out)
    end
    local _, _, err = support.weir("top", "http://me:secret@127.0.0.1:1", "--once")
    assert.matches("127.0.0.1:1/metrics: nobody listens", err)
    assert.not_matches("secret", err)
  end)

  it("leaves the standard output to JSON, whatever an application prints", function()
    local file = support.file_of('print("loading")\n' .. APP:gsub("return order", 'print("cooking") return order'))
    local status, out, err = support.weir("top", file, "--once", "--json", "--interval", "0.1")
    assert.equal(0, status)
    assert.equal("shop 1", json.decode(out).source)
    assert.matches("^loading\ncooking\n", err)
  end)

  it("runs the application of a file", function()
    local status, out, err = support.weir("top", support.file_of(APP), "--once", "--json", "--interval", "0.2")
    assert.same({ 0, "" }, { status, err })
    local report = json.decode(out)
    assert.same({ "bills", 7 }, { report.subscriptions[1].destination, report.subscriptions[1].consumed })
    assert.equal("up", report.brokers[1].state)
    assert.equal("shop 1", report.source)
  end)

  it("says what to do when there is nothing to watch", function()
    local function fails(pattern, ...)
      local status, out, err = support.weir("top", ...)
      assert.equal("", out)
      assert.matches(pattern, err)
      return status
    end
    assert.equal(1, fails("nobody listens there", "127.0.0.1:1", "--once"))
    assert.equal(1, fails("cannot open", "/nowhere.lua", "--once"))
    assert.equal(2, fails("what to watch is missing", "--once"))
    assert.equal(2, fails("no terminal; %-%-once", ":8080"))
    assert.equal(2, fails("seconds above 0", ":8080", "--interval", "0"))
    assert.equal(2, fails("%-%-env is for an application", ":8080", "--env", "A=1", "--once"))
    assert.equal(1, fails("the status is 404", serve(function()
      return 404, "no"
    end), "--once"))
    assert.equal(1, fails("no text of metrics: line 1 is no metric", serve(function()
      return 200, "<html>"
    end), "--once"))
    assert.equal(1, fails("mistake", support.file_of(APP:gsub("reply =", "repyl =")), "--once"))
  end)
end)

describe("weir top on a terminal", function()
  local missing = terminal.missing()
  if missing then
    pending("weir top on a terminal (" .. missing .. ")", function() end)
    return
  end

  -- Plays a scenario in a shell, which says whether the terminal is as it was before.
  local function play(command, scenario)
    scenario.words = scenario.words or {
      "sh", "-c",
      ("before=$(stty -g); lua5.4 lua/bin/weir top %s; status=$?; [ \"$before\" = \"$(stty -g)\" ] && echo restored;"
        .. " exit $status"):format(command or ""),
    }
    scenario.env = scenario.env or { NO_COLOR = "" }
    local result = terminal.play(scenario)
    return result.output, result.status
  end

  local function leaves(output)
    local at = assert(output:find(LEAVE, 1, true))
    assert.matches("^\r?\n?restored", output:sub(at + #LEAVE))
  end

  it("shows it until q is pressed, and leaves the terminal as it was", function()
    local output, status = play(serve(metrics) .. " --interval 0.05", {
      steps = { { "expect", "apples" }, { "expect", "coffee" }, { "expect", "64.0 KiB" }, { "send", "q" }, { "quit" } },
    })
    assert.equal(0, status)
    leaves(output)
    assert.matches("\27%[7mSUBSCRIPTION", output)
  end)

  it("ends with Ctrl-C and with SIGTERM, too", function()
    local output, status = play(serve(metrics), { steps = { { "expect", "coffee" }, { "send", "\3" }, { "quit" } } })
    assert.equal(0, status)
    leaves(output)
    output, status = play(nil, {
      words = { "lua5.4", "lua/bin/weir", "top", serve(metrics), "--interval", "0.05" },
      steps = { { "expect", "coffee" }, { "signal", "SIGTERM" }, { "quit" } },
    })
    assert.equal(0, status)
    assert.is_truthy(output:find(LEAVE, 1, true))
  end)

  it("stops with Ctrl-Z, gives the terminal back meanwhile, and goes on", function()
    local output = play(nil, {
      words = { "bash", "-c", ([[set -m; before=$(stty -g); lua5.4 lua/bin/weir top %s --interval 0.05
        [ "$before" = "$(stty -g)" ] && echo as before; fg; echo status $?
        [ "$before" = "$(stty -g)" ] && echo restored]]):format(serve(metrics)) },
      steps = {
        { "expect", "coffee" }, { "send", "\26" }, { "expect", LEAVE }, { "expect", "as before" },
        { "expect", ENTER }, { "expect", "coffee" }, { "send", "q" }, { "expect", "status 0" }, { "quit" },
      },
    })
    assert.matches("restored", output)
  end)

  it("draws all again when it was stopped without being asked", function()
    play(nil, {
      words = { "lua5.4", "lua/bin/weir", "top", serve(metrics), "--interval", "3600" },
      steps = {
        { "expect", "coffee" }, { "signal", "SIGSTOP" }, { "signal", "SIGCONT" }, { "expect", ENTER },
        { "expect", "coffee" }, { "send", "q" }, { "quit" },
      },
    })
  end)

  it("looks once when space is pressed, in a pause too", function()
    play(serve(function(looks)
      return 200, ('weir_broker_up{broker="look%d"} 1\n'):format(looks)
    end) .. " --interval 3600", {
      steps = {
        { "expect", "look1" }, { "send", "p" }, { "expect", "paused" }, { "send", " " }, { "expect", "look2" },
        { "send", "q" }, { "quit" },
      },
    })
  end)

  it("shows no commands for the terminal that others have in their names", function()
    local output = play(serve(function()
      return 200, 'weir_messages_consumed_total{destination="a\27[2J\27]0;x\7\194\155c\u{202E}d"} 1\n'
        .. 'weir_broker_up{broker="\27[31m"} 1\nweir_app_info{app="\r\8"} 1\n'
    end) .. " --interval 0.05", {
      columns = 120,
      env = { NO_COLOR = "1" },
      steps = { { "expect", "a\\27[2J" }, { "send", "q" }, { "quit" } },
    })
    for _, sequence in ipairs({ "\27[2J", "\27]0", "\27[31m", "\194\155", "\u{202E}", "\8", "\7" }) do
      assert.is_nil(output:find(sequence, 1, true))
    end
  end)

  it("takes keys while an application has very many subscriptions", function()
    local output = play(serve(function(looks)
      local lines = {}
      for i = 1, 1000 do
        local labels = ('app="shop",broker="memory",handler="h%04d",destination="h%04d"'):format(i, i)
        lines[#lines + 1] = ("weir_messages_consumed_total{%s} %d"):format(labels, i + looks)
      end
      return 200, table.concat(lines, "\n") .. "\n"
    end) .. " --interval 0.1", {
      steps = {
        { "expect", "h0001" }, { "send", "\27[F" }, { "expect", "h1000" }, { "send", "\27[H" }, { "expect", "h0001" },
        { "send", ("\27[6~"):rep(3) }, { "expect", "h0040" }, { "send", "q" }, { "quit" },
      },
    })
    leaves(output)
  end)

  it("goes on where the terminal takes nothing for a while", function()
    local path = support.directory() .. "/looked"
    local output, status = play(serve(function(looks)
      if looks == 400 then
        shell.write(path, "")
      end
      return metrics(looks)
    end) .. " --interval 0.001", {
      steps = {
        { "expect", "coffee" }, { "until", path }, { "expect", "coffee" }, { "resize", 30, 100 }, { "expect", "TOTAL" },
        { "send", "q" }, { "quit" },
      },
    })
    assert.equal(0, status)
    leaves(output)
  end)

  it("ends where the terminal takes nothing any more", function()
    local path = support.directory() .. "/looked"
    local _, status = play(nil, {
      words = { "lua5.4", "lua/bin/weir", "top", serve(function(looks)
        if looks == 400 then
          shell.write(path, "")
        end
        return metrics(looks)
      end), "--interval", "0.001" },
      steps = { { "expect", "coffee" }, { "until", path }, { "signal", "SIGTERM" }, { "wait" } },
    })
    assert.equal(0, status)
  end)

  it("ends with Ctrl-C, however many keys come before it", function()
    local output, status = play(serve(metrics) .. " --interval 30", {
      steps = { { "expect", "coffee" }, { "send", ("r"):rep(2000) .. "\3" }, { "quit" } },
    })
    assert.equal(0, status)
    leaves(output)
  end)

  it("sorts, and turns the order round", function()
    play(serve(metrics) .. " --interval 30", {
      steps = {
        { "expect", "apples" }, { "expect", "coffee" },
        { "send", "r" }, { "expect", "coffee" }, { "expect", "bread" }, { "expect", "apples" },
        { "send", "r" }, { "expect", "apples" },
        { "send", ("\27[C"):rep(8) }, { "expect", "*LAG" },
        { "expect", "apples" }, { "expect", "bread" }, { "expect", "coffee" },
        { "send", "\27[D" }, { "expect", "*QUEUE" }, { "send", "q" }, { "quit" },
      },
    })
  end)

  it("fits into a terminal that becomes small, scrolls there, and grows again", function()
    local output = play(serve(metrics) .. " --interval 30", {
      steps = {
        { "expect", "64.0 KiB" },
        { "resize", 6, 30 }, { "expect", "apples" }, { "expect", "q quit" },
        { "send", "\27[B" }, { "expect", "bread" }, { "expect", "q quit" },
        { "send", "\27[F" }, { "expect", "news" },
        { "resize", 24, 100 }, { "expect", "TOTAL" }, { "expect", "64.0 KiB" },
        { "send", "q" }, { "quit" },
      },
    })
    leaves(output)
  end)

  it("says that the connection is lost, keeps what it saw, and comes back", function()
    local url = serve(function(looks)
      if looks >= 3 and looks <= 5 then
        return 500, "no"
      end
      return metrics(looks == 6 and 8000 or looks)
    end)
    local output = play(url .. " --interval 0.1", {
      columns = 120,
      steps = {
        { "expect", "coffee" }, { "expect", "connection lost" }, { "expect", "status is 500" }, { "expect", "coffee" },
        { "expect", "9.0k" }, { "send", "q" }, { "quit" },
      },
    })
    leaves(output)
  end)

  it("waits for an application that is not there yet", function()
    play("127.0.0.1:1 --interval 0.1", {
      steps = { { "expect", "no connection yet" }, { "expect", "nobody listens" }, { "send", "q" }, { "quit" } },
    })
  end)

  it("has no styles with NO_COLOR", function()
    local output = play(serve(metrics), {
      env = { NO_COLOR = "1" },
      steps = { { "expect", "coffee" }, { "send", "q" }, { "quit" } },
    })
    assert.not_matches("\27%[[%d;]*m", output)
  end)

  it("pauses, and goes on", function()
    local output = play(serve(metrics) .. " --interval 0.02", {
      columns = 120,
      steps = {
        { "expect", "coffee" }, { "send", "p" }, { "expect", "paused" }, { "send", "r" }, { "expect", "apples" },
        { "send", "p" }, { "expect", "coffee" }, { "expect", "coffee" }, { "send", "q" }, { "quit" },
      },
    })
    assert.is_nil(output:sub(-400):find("paused", 1, true))
  end)

  it("hears keys that are none, and bytes that are no text, without harm", function()
    local output, status = play(serve(metrics) .. " --interval 0.05", {
      steps = {
        { "expect", "coffee" }, { "bytes", "fffe001b5b393939397e1b5b311b4f5a80" }, { "expect", "coffee" },
        { "send", "q" }, { "quit" },
      },
    })
    assert.equal(0, status)
    leaves(output)
  end)

  it("shows an application that it runs, and the end of one that fails", function()
    local file = support.file_of(APP)
    local output = play(file .. " --interval 0.05", {
      steps = {
        { "expect", "memory up" }, { "expect", "bills" }, { "expect", "started" }, { "send", "q" }, { "quit" },
      },
    })
    leaves(output)
    file = support.file_of(APP:gsub("return app", [[
app:on("started", function()
  weir.spawn(function()
    while weir.sleep(0.05) do
      print("cooking\nfor you")
    end
  end)
end)
return app]]))
    output = play(file .. " --interval 0.05", {
      steps = { { "expect", "for you" }, { "expect", "bills" }, { "send", "q" }, { "quit" } },
    })
    leaves(output)
    assert.not_matches("cooking", output)
    file = support.file_of(APP:gsub("return app", [[
app:on("started", function()
  weir.spawn(function()
    weir.sleep(0.3)
    app:request_stop(require("weir.errors").new("error", "out of tea"))
  end)
end)
return app]]))
    local status
    output, status = play(file .. " --interval 0.05", { steps = { { "expect", "bills" }, { "quit" } } })
    assert.equal(1, status)
    assert.matches("weir:.*out of tea", output:match(LEAVE:gsub("%p", "%%%0") .. "(.*)"))
  end)
end)

describe("the address that weir top is given", function()
  it("may be short", function()
    local url = require("weir.top.source").url
    assert.same({
      "http://127.0.0.1:8080/metrics", "http://h:1/metrics", "http://h:1/m?x=1", "https://h/metrics",
      "http://[::1]:9/metrics", "http://h/metrics", "http://my_app:1/metrics", "http://[::1]:9/m",
    }, { url(":8080"), url("h:1"), url("http://h:1/m?x=1"), url("https://h/"), url("[::1]:9"), url("http://h"),
      url("my_app:1"), url("[::1]:9/m") })
    assert.is_nil(url("app.lua"))
    assert.is_nil(url("app"))
    assert.is_nil(url("http://"))
    assert.is_nil(url("http://h/#x y"))
  end)
end)
