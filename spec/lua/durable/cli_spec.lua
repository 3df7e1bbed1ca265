local arguments = require("weir.cli.arguments")
local here = require("spec.lua.durable.support")
local output = require("weir.cli.durable.output")
local programs = require("spec.programs")
local scope = require("spec.lua.scope")
local shell = require("spec.house.shell")
local weir = require("weir")

local scratch, write = scope.directory, shell.write

-- Words for `sh -c`: the command with its arguments, and what is around it.
local function line(format, ...)
  local words = { ... }
  for i, word in ipairs(words) do
    words[i] = shell.quote(word)
  end
  return (format:gsub("WEIR", "lua5.4 lua/bin/weir durable " .. table.concat(words, " "):gsub("%%", "%%%%")))
end

local function sh(...)
  return programs.run({ "sh", "-c", line(...) })
end

local function command(...)
  return sh("WEIR", ...)
end

-- As an error of the shell: status, one line, without a traceback.
local function fails(status, pattern, got, out, err)
  assert.same({ status, "" }, { got, out })
  assert.matches(pattern, err)
  assert.not_matches("traceback", err)
end

after_each(scope.close)

describe("weir durable", function()
  it("is used wrongly with status 2 and says what is missing", function()
    fails(2, "weir: what is to be done is missing: one of create, append", command())
    fails(2, "not 'raed'; did you mean 'read'%?\nTry 'weir help durable'%.", command("raed"))
    fails(2, "the URL of the stream is missing, such as http://[^\n]*\nTry 'weir help durable read'%.", command("read"))
    fails(2, "the URL of the new stream is missing", command("fork", "http://x/a"))
    fails(2, "one word too many: 'more'", command("head", "http://x/a", "more"))
    fails(2, "unknown option '%-%-form'; did you mean '%-%-from'%?", command("read", "http://x/a", "--form", "now"))
    fails(2, "%-%-lines is an option of append", command("read", "http://x/a", "--lines"))
    fails(2, "%-%-lines takes no value", command("append", "http://x/a", "--lines=2"))
    fails(2, "%-%-from needs a value", command("read", "http://x/a", "--from"))
    fails(2, "%-%-live must be one of long%-poll, sse, auto, not 'on'", command("read", "http://x/a", "--live", "on"))
    fails(2, "%-%-ttl must be a whole number", command("create", "http://x/a", "--ttl", "-1"))
    fails(2, "%-%-header needs NAME:VALUE, not 'nothing'", command("head", "http://x/a", "--header", "nothing"))
    fails(2, 'bad URL "x": expected http://host/path', command("head", "x"))
  end)

  it("takes options as one word or as two, and words behind -- as they are", function()
    local words = { "append", "--header=A: b", "--header", "C:d ", "--", "--lines" }
    local read = assert(arguments.read("durable", require("weir.cli.durable"), words))
    assert.same({ verb = "append", header = { { "A", "b" }, { "C", "d" } }, url = "--lines" }, read)
  end)

  it("says when nobody listens, soon", function()
    local began = weir.now()
    fails(1, "network: .*nobody listens there: start the server",
      command("head", "http://127.0.0.1:1/x", "--retries", "1"))
    assert.is_true(weir.now() - began < 10)
  end)
end)

describe("the items of a JSON array", function()
  it("keep their spelling, and stand in one line each", function()
    assert.same({}, output.items("[]"))
    assert.same({}, output.items(" [ \n ] "))
    assert.same({ "12345678901234567890", "1.0", "null" }, output.items("[12345678901234567890,1.0,null]"))
    assert.same({ '{"a":[1,{"b":2}],"a":"],["}', "[[],[]]" }, output.items('[{"a":[1,{"b":2}],"a":"],["},[[],[]]]'))
    assert.same({ [["a\"b\\"]], [["\\\\"]], '""' }, output.items([=[["a\"b\\","\\\\",""]]=]))
    assert.same({ '{ "a":  1 }', "2" }, output.items('[\n{ "a":\r\n1 } , 2\n]'))
    assert.is_nil((output.items("[1, 2")))
    assert.matches("the server sent no JSON: .* at byte 1", tostring(select(2, output.items("[x]"))))
  end)
end)

describe("weir durable at the reference server", function()
  local client, server
  if not here.reference(function(...) client, server = ... end) then
    return
  end

  local function created(content_type, data)
    local stream = here.stream(client, content_type, data)
    return stream, stream.url
  end

  local function start(...)
    return scope.start({ "sh", "-c", line(...) })
  end

  it("creates, describes, closes and deletes", function()
    local url = server.url .. here.path()
    assert.same({ 0, "", "" }, { command("create", url, "--content-type", "text/plain", "--ttl", "3600") })
    local status, out = command("create", url, "--content-type", "text/plain", "--ttl", "3600", "--json")
    assert.equal(0, status)
    assert.matches('^{"created":false,"offset":"[%d_]+","content_type":"text/plain","closed":false.*}\n$', out)
    fails(1, "already_exists: .*status 409.*delete it", command("create", url, "--content-type", "text/html"))
    status, out = command("head", url)
    assert.equal(0, status)
    assert.matches("^offset: [%d_]+\ncontent_type: text/plain\nclosed: false\nttl: 3600\n", out)
    assert.same({ 0, "", "" }, { command("close", url, "--data", "the end") })
    assert.same({ 0, "the end", "" }, { command("tail", url, "--from", "-1") })
    assert.same({ 0, "", "" }, { command("close", url) })
    fails(1, "stream_closed: ", sh("echo more | WEIR", "append", url))
    assert.same({ 0, '{"deleted":true}\n', "" }, { command("delete", url, "--json") })
    fails(1, "not_found: .*create it with 'weir durable create'", command("read", url))
    fails(1, "not_found: ", command("delete", url))
    fails(1, "not_found: ", command("tail", url))
  end)

  it("forks", function()
    local _, url = created("text/plain", "abcdef")
    local other = server.url .. here.path()
    local offset = "0000000000000000_0000000000000000"
    assert.same({ 0, "", "" }, { command("fork", url, other, "--at", offset, "--skip", "3") })
    assert.same({ 0, "abc", "" }, { command("read", other) })
  end)

  it("sends headers with each request", function()
    local seen = {}
    local script = here.script(function(request)
      seen[#seen + 1] = request.headers.authorization .. request.headers["x-b"]
      return here.answer(404)
    end)
    fails(1, "not_found", command("head", script.url .. "/a", "--header", "Authorization: me", "--header", "X-B:c:d"))
    assert.same({ "mec:d" }, seen)
    script:close()
  end)

  it("appends its whole input as one value, byte by byte", function()
    local _, url = created("application/octet-stream")
    local dir = scratch()
    write(dir .. "/in", ("\0\r\n\255 \n"):rep(300000))
    assert.same({ 0, "", "" }, { sh("WEIR <" .. dir .. "/in", "append", url) })
    assert.same({ 0, "", "" }, { sh("WEIR >" .. dir .. "/out", "read", url) })
    assert.is_true(shell.read(dir .. "/in") == shell.read(dir .. "/out"))
    local status, out = sh("cat " .. dir .. "/in | WEIR", "append", url, "--json")
    assert.equal(0, status)
    assert.matches('^{"offset":"[%d_]+","items":1}\n$', out)
    fails(1, "nothing on the standard input", sh("WEIR </dev/null", "append", url))
  end)

  it("appends lines once each, in order", function()
    local _, url = created("text/plain")
    local status, out = sh("seq 1 50000 | WEIR", "append", url, "--lines", "--json")
    assert.equal(0, status)
    assert.matches('"items":50000}\n$', out)
    assert.same({ 0, "", "" }, { sh("printf 'no end' | WEIR", "append", url, "--lines") })
    _, out = command("read", url)
    local expected = {}
    for i = 1, 50000 do
      expected[i] = i
    end
    assert.is_true(table.concat(expected, "\n") .. "\nno end" == out)
  end)

  it("appends lines as they come, not at their end", function()
    local stream, url = created("text/plain")
    local fifo = scratch() .. "/fifo"
    shell.check("mkfifo " .. fifo)
    local program = start("exec WEIR <" .. fifo, "append", url, "--lines")
    local feed = assert(io.open(fifo, "wb"))
    for _, part in ipairs({ "first\nsec", "ond\nthird\n" }) do
      feed:write(part)
      feed:flush()
      local complete = part:match("^.*\n")
      here.await(function()
        return stream:read():body():find(complete, 1, true)
      end)
    end
    feed:close()
    assert.same({ 0, "", "" }, { program:wait() })
    assert.equal("first\nsecond\nthird\n", stream:read():body())
  end)

  it("fails when the server does, though no input comes", function()
    local stream, url = created("text/plain")
    local fifo = scratch() .. "/fifo"
    shell.check("mkfifo " .. fifo)
    local program = start("exec WEIR <" .. fifo, "append", url, "--lines")
    local feed = assert(io.open(fifo, "wb"))
    feed:write("a\n")
    feed:flush()
    here.await(function()
      return stream:read():body() == "a\n"
    end)
    assert(stream:close())
    feed:write("b\n")
    feed:flush()
    fails(1, "stream_closed: .*; lines appended before it: 1", program:wait())
    feed:close()
  end)

  it("prints JSON values one per line as they were sent", function()
    local _, url = created("application/json")
    assert.same({ 0, "", "" }, { sh([[printf '{"a":\n[1, 2]}' | WEIR]], "append", url) })
    assert.same({ 0, "", "" }, { sh([[printf '[2,3]\n\n"a,\\n]"\nnull\n' | WEIR]], "append", url, "--lines") })
    local lines = '{"a":[1,2]}\n[2,3]\n"a,\\n]"\nnull\n'
    assert.same({ 0, lines, "" }, { command("read", url, "--json") })
    assert.same({ 0, '[{"a":[1,2]},[2,3],"a,\\n]",null]\n', "" }, { command("read", url) })
    client:stream(url):close()
    assert.same({ 0, lines, "" }, { command("tail", url, "--from", "-1", "--live", "sse") })
    assert.same({ 0, lines, "" }, { command("read", url, "--live", "long-poll") })
  end)

  it("prints an empty JSON stream as an empty array", function()
    local _, url = created("application/json")
    assert.same({ 0, "[]\n", "" }, { command("read", url) })
    assert.same({ 0, "", "" }, { command("read", url, "--json") })
  end)

  it("refuses what is no JSON before it is sent, and says where", function()
    local stream, url = created("application/json")
    fails(1, "line 3 of the standard input is no JSON: .*; lines appended before it: 2",
      sh("printf '1\n2\n{\n4\n' | WEIR", "append", url, "--lines"))
    assert.equal("[1,2]", stream:read():body())
    fails(1, "the standard input is no JSON: .*; with %-%-lines each line is a value",
      sh("printf '1\n2\n' | WEIR", "append", url))
    local _, text = created("text/plain", "abc")
    fails(1, "the stream is not JSON: leave %-%-json out", command("read", text, "--json"))
    fails(1, "the stream is not JSON: leave %-%-json out", command("tail", text, "--json"))
  end)

  it("follows a stream until it is closed", function()
    for _, mode in ipairs({ "auto", "sse", "long-poll" }) do
      local stream, url = created("text/plain", "before\n")
      local position = scratch() .. "/position"
      local program = start("exec WEIR", "tail", url, "--from", "now", "--live", mode, "--checkpoint", position)
      program:await(function() -- it is at the end when it has saved that
        return shell.read(position)
      end)
      assert(stream:append("a\n"))
      program:await_output("^a\n$")
      assert(stream:close("b\n"))
      assert.same({ 0, "a\nb\n", "" }, { program:wait() })
    end
  end)

  it("goes on at its checkpoint, and loses and repeats nothing", function()
    local stream, url = created("application/json")
    local dir = scratch()
    local expected, n = {}, 0
    local function more()
      for _ = 1, 20 do
        n = n + 1
        expected[n] = ("%d\n"):format(n)
        assert(stream:append(("%d"):format(n)))
      end
    end
    for signal, expected_status in pairs({ sigterm = 143, sigint = 130, sighup = 129 }) do
      more()
      local program = start("exec WEIR >>" .. dir .. "/out", "tail", url, "--checkpoint", dir .. "/position")
      more()
      program:await(function()
        return (shell.read(dir .. "/out") or ""):find(("%d\n"):format(n - 10), 1, true)
      end)
      program:kill(signal)
      local status, _, err = program:wait()
      assert.same({ expected_status, "" }, { status, err })
    end
    assert(stream:close())
    assert.equal(0, (sh("WEIR >>" .. dir .. "/out", "tail", url, "--checkpoint", dir .. "/position")))
    assert.equal(table.concat(expected), shell.read(dir .. "/out"))
    assert.equal(0, (sh("WEIR >>" .. dir .. "/out", "tail", url, "--checkpoint", dir .. "/position")))
    assert.equal(table.concat(expected), shell.read(dir .. "/out"))
    assert.is_nil(shell.read(dir .. "/position.new"))
  end)

  it("appends and follows through a server that is killed and started again", function()
    local dir, lines = scratch(), 20000
    local file_server = here.server({ dir = dir })
    local port, url = file_server.port, file_server.url .. here.path()
    assert.equal(0, (command("create", url, "--content-type", "text/plain")))
    local tail = start("exec WEIR", "tail", url, "--from", "-1")
    -- The parts that come after a kill wait for it: the server may take a batch twice that it had no time to confirm.
    local part = "seq -f $i-%g 1 " .. lines // 4
    local wait = ("until [ -e %s/go$i ]; do sleep 0.02; done"):format(dir)
    local feed = ("for i in 1 2 3 4; do %s; %s; done | WEIR"):format(wait, part)
    local append = start(feed, "append", url, "--lines", "--json")
    local other = require("weir.durable").client({ base_url = file_server.url }):stream(here.path())
    for n = 1, 4 do
      write(("%s/go%d"):format(dir, n), "")
      if n <= 2 then
        tail:await_output(("(%d%%-%d)\n"):format(n, lines // 4))
        -- What it wrote after that, it has confirmed after that.
        assert(n == 2 or other:create({ content_type = "text/plain" }))
        assert(other:append("x"))
        file_server:stop("sigkill")
        file_server = here.server({ dir = dir, port = port })
      end
    end
    local status, out, err = append:wait()
    assert.same({ 0, "" }, { status, err })
    assert.matches(('"items":%d}'):format(lines), out)
    assert.equal(0, (command("close", url)))
    local expected = {}
    for i = 1, 4 do
      for n = 1, lines // 4 do
        expected[#expected + 1] = ("%d-%d\n"):format(i, n)
      end
    end
    status, out, err = tail:wait()
    assert.same({ 0, "" }, { status, err })
    local n = 0
    for text in out:gmatch("[^\n]*\n") do -- a comparison of the whole would say nothing
      n = n + 1
      assert.equal(expected[n], text, ("line %d of %d"):format(n, lines))
    end
    assert.equal(lines, n)
    file_server:stop()
  end)

  it("reads only what is new with a checkpoint", function()
    local stream, url = created("text/plain", "a")
    local position = scratch() .. "/position"
    assert.same({ 0, "a", "" }, { command("read", url, "--checkpoint", position) })
    assert.same({ 0, "", "" }, { command("read", url, "--checkpoint", position) })
    assert(stream:append("b"))
    assert.same({ 0, "b", "" }, { command("read", url, "--checkpoint", position) })
  end)

  it("refuses a checkpoint that is none, that is another's, or that it cannot write", function()
    local _, url = created("text/plain", "a")
    local dir = scratch()
    write(dir .. "/bad", "oops")
    fails(1, "it is not one; give another file, or remove it", command("tail", url, "--checkpoint", dir .. "/bad"))
    write(dir .. "/empty", "")
    fails(1, "it is empty; remove it", command("tail", url, "--checkpoint", dir .. "/empty"))
    write(dir .. "/other", '{"offset":"-1","url":"http://x/other"}\n')
    fails(1, "it is that of http://x/other", command("tail", url, "--checkpoint", dir .. "/other"))
    fails(1, "cannot write the checkpoint", command("read", url, "--checkpoint", dir .. "/none/position"))
    write(dir .. "/wrong", ('{"offset":"ffff","url":"%s"}\n'):format(url))
    fails(1, "invalid_offset: .*remove .*/wrong to begin anew", command("read", url, "--checkpoint", dir .. "/wrong"))
  end)

  it("ends quietly when nobody reads its output, and saves no position of what was not read", function()
    local _, url = created("text/plain", ("0123456789abcde\n"):rep(200000))
    local dir = scratch()
    local text = "{ WEIR; echo $? >" .. dir .. "/status; } | head -n 1"
    assert.same({ 0, "0123456789abcde\n", "" }, { sh(text, "read", url) })
    assert.equal("0\n", shell.read(dir .. "/status"))
    text = "{ WEIR; echo $? >" .. dir .. "/status; } | true"
    assert.same({ 0, "", "" }, { sh("sleep 0.2 | " .. text, "read", url, "--checkpoint", dir .. "/position") })
    assert.equal("0\n", shell.read(dir .. "/status"))
    local saved = shell.read(dir .. "/position") or "0000000000000000_0000000000000000"
    assert.not_matches("0000000003200005", saved)
  end)

  it("says so when its output cannot be written", function()
    if not io.open("/dev/full") then
      return pending("there is no /dev/full")
    end
    local _, url = created("text/plain", "abc")
    local status, _, err = sh("WEIR >/dev/full", "read", url)
    assert.equal(1, status)
    assert.matches("cannot write to the standard output: ", err)
  end)

  it("shows progress on a terminal only", function()
    local _, url = created("text/plain", "abc")
    local status, out = programs.on_terminal(line("WEIR >/dev/null", "read", url))
    if not status then
      return pending("there is no pseudo-terminal, or no script to make one")
    end
    assert.equal(0, status)
    assert.matches("\r\27%[K\27%[%?7l3 B, .*/s, up to date\27%[%?7h\r\27%[K", out)
    assert.same({ 0, "abc", "" }, { command("read", url) })
  end)
end)
