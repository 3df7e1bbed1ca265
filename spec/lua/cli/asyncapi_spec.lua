local cjson = require("cjson")
local codec = require("weir.codec")
local nats = require("spec.lua.nats_server")
local runtime = require("weir.runtime")
local shell = require("spec.house.shell")
local support = require("spec.lua.cli.support")

local file_of, weir = support.file_of, support.weir

after_each(support.clean)

local APP = [[
local weir = require("weir")
local app = weir.app("orders", "1.0.0", { log = { level = "error" } })
app:broker(weir.env("BROKER", "memory:"))
app:subscriber("orders.*.new", {
  schema = { title = "Order", properties = { id = "string", quantity = { type = "integer", minimum = 1 } } },
  reply = { to = true, schema = { title = "Bill", properties = { total = "number" } } },
}, function(order, ctx)
  return { total = order.quantity * 5, from = ctx.name }
end)
app:subscriber("packed", { codec = "msgpack", filter = { kind = "x" } }, function(order, ctx)
  print("packed " .. ctx.headers.kind .. " " .. order.n)
  io.stdout:flush()
end)
]]

local function app_of(more)
  return file_of(APP .. (more or "") .. "return app\n")
end

describe("weir asyncapi gen", function()
  it("writes the document as JSON, or as YAML", function()
    local path = app_of()
    local status, out, err = weir("asyncapi", "gen", path)
    assert.same({ 0, "" }, { status, err })
    local document = cjson.decode(out)
    assert.equal("3.1.0", document.asyncapi)
    assert.equal("receive", document.operations["receive.packed_-kind_-x"].action)
    status, out = weir("asyncapi", "gen", path, "--yaml")
    assert.equal(0, status)
    assert.matches('^asyncapi: "3.1.0"\ninfo:\n  title: orders\n', out)
  end)

  it("writes to a file, and leaves it alone when something fails", function()
    local path = app_of()
    local target = support.directory() .. "/asyncapi.json"
    assert.same({ 0, "", "" }, { weir("asyncapi", "gen", path, "-o", target) })
    local text = assert(shell.read(target))
    assert.equal("orders", cjson.decode(text).info.title)
    local status = weir("asyncapi", "gen", app_of("app:subscriber('b', { x = 1 }, print)\n"), "--output", target)
    assert.equal(1, status)
    assert.equal(text, shell.read(target))
    local _, err
    status, _, err = weir("asyncapi", "gen", path, "--output", "/nowhere/asyncapi.json")
    assert.equal(1, status)
    assert.matches("cannot write /nowhere/asyncapi.json: no such file or directory", err)
    status, _, err = weir("asyncapi", "gen", path, "--output", support.directory())
    assert.equal(1, status)
    assert.matches("cannot write .*: .*directory", err)
  end)

  it("follows a link, keeps permissions, leaves nothing beside, and writes to what is no file", function()
    local path, directory = app_of(), support.directory()
    local target, link = directory .. "/asyncapi.json", directory .. "/link.json"
    assert(shell.run(("echo old >%s && chmod 640 %s && ln -s %s %s"):format(target, target, target, link)))
    assert.same({ 0, "", "" }, { weir("asyncapi", "gen", path, "-o", link) })
    assert.equal("orders", cjson.decode(shell.read(target)).info.title)
    local list = assert(io.popen(("ls %s && stat -c %%a %s && readlink %s"):format(directory, target, link)))
    local seen = list:read("a")
    list:close()
    assert.equal(("asyncapi.json\nlink.json\n640\n%s\n"):format(target), seen)
    local status, out = weir("asyncapi", "gen", path, "-o", "/dev/stdout")
    assert.same({ 0, "3.1.0" }, { status, cjson.decode(out).asyncapi })
    assert.equal(0, (weir("asyncapi", "gen", path, "-o", "/dev/null")))
    local _, err
    status, _, err = weir("asyncapi", "gen", path, "-o", "/dev/full")
    assert.equal(1, status)
    assert.matches("cannot write /dev/full: no space left on device", err)
  end)

  it("lists messages without a schema and fails, with --require-schemas", function()
    local status, out, err = weir("asyncapi", "gen", app_of(), "--require-schemas")
    assert.same({ 1, "" }, { status, out })
    assert.equal("packed: the handler 'packed' has no schema\nweir: one message has no schema\n", err)
    local whole = APP:gsub('codec = "msgpack"', 'schema = { title = "P" }') .. "return app\n"
    status = weir("asyncapi", "gen", file_of(whole), "--require-schemas")
    assert.equal(0, status)
  end)

  it("names all mistakes in the wiring", function()
    local path = app_of("app:subscriber('b', { wrokers = 1 }, print)\napp:subscriber('c', { tmeout = 1 }, print)\n")
    local status, _, err = weir("asyncapi", "gen", path)
    assert.equal(1, status)
    assert.matches("app.lua:%d+: .*wrokers.*\n.*app.lua:%d+: .*tmeout", err)
    assert.is_nil(err:find("traceback"))
  end)

  it("says so when the file is missing, or is no program", function()
    local status, _, err = weir("asyncapi", "gen", "/nowhere/app.lua")
    assert.equal(1, status)
    assert.matches("cannot open /nowhere/app.lua", err)
    status, _, err = weir("asyncapi", "gen", file_of("local = 1"))
    assert.equal(1, status)
    assert.matches("app.lua:1:", err)
  end)

  it("refuses words and options that have no meaning", function()
    for words, message in pairs({
      [{ "asyncapi" }] = "what is to be done is missing",
      [{ "asyncapi", "gne", "app.lua" }] = "did you mean 'gen'",
      [{ "asyncapi", "gen" }] = "the file of the application is missing",
      [{ "asyncapi", "gen", "a.lua", "b.lua" }] = "one word too many: 'b.lua'",
      [{ "asyncapi", "gen", "a.lua", "--listen", "x" }] = "%-%-listen is an option of serve",
      [{ "asyncapi", "diff", "a.json" }] = "the new document is missing",
      [{ "asyncapi", "diff", "a.json", "b.json", "--yaml" }] = "%-%-yaml is an option of gen",
    }) do
      local status, _, err = weir(table.unpack(words))
      assert.equal(2, status, message)
      assert.matches(message, err)
    end
  end)
end)

describe("weir asyncapi diff", function()
  local function old_and_new()
    local old = support.directory() .. "/old.yaml"
    assert.equal(0, (weir("asyncapi", "gen", app_of(), "--yaml", "--output", old)))
    return old, file_of((APP:gsub('id = "string"', 'id = "string", customer = "string"')) .. "return app\n")
  end

  it("names what breaks, with the status 1", function()
    local old, new = old_and_new()
    local status, out, err = weir("asyncapi", "diff", old, new)
    assert.same({ 1, "" }, { status, err })
    assert.equal("breaks  receive.orders._2A.new: message Order: payload customer: is required now\n"
      .. "1 breaking, 0 other\n", out)
    status, out = weir("asyncapi", "diff", old, new, "--json")
    assert.equal(1, status)
    assert.same({ breaking = { { where = "receive.orders._2A.new: message Order",
      message = "payload customer: is required now" } }, other = {} }, cjson.decode(out))
  end)

  it("ends with the status 0 where nothing does", function()
    local old, new = old_and_new()
    assert.same({ 0, "nothing has changed\n", "" }, { weir("asyncapi", "diff", old, old) })
    local status, out = weir("asyncapi", "diff", new, app_of("app:subscriber('c', print)\n"))
    assert.equal(0, status)
    assert.matches("receive.c: is new\n0 breaking, 2 other\n$", out)
  end)

  it("says which file it cannot read", function()
    local good, bad = app_of(), file_of("[1", "bad.json")
    local cases = { [bad] = "bad.json: ", ["/nowhere.json"] = "/nowhere.json", [support.directory()] = "directory" }
    for path, message in pairs(cases) do
      local status, _, err = weir("asyncapi", "diff", path, good)
      assert.equal(1, status)
      assert.matches(message, err)
    end
    local status, _, err = weir("asyncapi", "diff", file_of('{"asyncapi": "2.6.0"}', "old.json"), good)
    assert.equal(1, status)
    assert.matches("the old document is AsyncAPI 2.6.0", err)
  end)
end)

describe("weir asyncapi serve", function()
  -- Starts it on a free port; returns the program and the URL.
  local function serve(path, ...)
    local program = support.start("asyncapi", "serve", path, "--listen", "http://127.0.0.1:0", ...)
    return program, program:await_output("shown at (http://%S+);")
  end

  local function ask(url, opts)
    local client = runtime.http({})
    opts.url = url
    local response = assert(client:request(opts))
    local parts = {}
    for part in function() return response:read(5) end do
      parts[#parts + 1] = part
    end
    client:close()
    return response.status, table.concat(parts), response.headers
  end

  local function publish(url, request, content_type)
    local status, body = ask(url .. "/publish", {
      method = "POST",
      headers = { { "content-type", content_type or "application/json" } },
      body = type(request) == "string" and request or cjson.encode(request),
    })
    local ok, answer = pcall(cjson.decode, body)
    return status, ok and answer or body
  end

  it("shows the page and the document, until a signal", function()
    local program, url = serve(app_of())
    local status, page = ask(url .. "/", {})
    assert.equal(200, status)
    assert.matches("<!doctype html>", page)
    assert.is_nil(page:find("https?://"))
    status, page = ask(url .. "/asyncapi", {})
    assert.same({ 200, "3.1.0" }, { status, cjson.decode(page).asyncapi })
    assert.equal(404, (ask(url .. "/elsewhere", {})))
    program:kill("sigint")
    assert.same({ 130, "" }, { (program:wait()), program:err() })
  end)

  it("sends what is tried to the handlers that it runs, and shows their answers", function()
    local program, url = serve(app_of(), "--run")
    local status, answer = publish(url, {
      operation = "receive.orders._2A.new", parameters = { token1 = "eu" }, payload = '{"id": "a", "quantity": 3}',
    })
    assert.same({ 200, "orders.eu.new" }, { status, answer.sent })
    assert.same({ total = 15, from = "orders.eu.new" }, cjson.decode(answer.reply))
    status, answer = publish(url, {
      operation = "receive.packed_-kind_-x", payload = '{"n": 7}', headers = { Kind = "x", Number = 5, Yes = true },
    })
    assert.same({ 200, { sent = "packed" } }, { status, answer })
    program:await_output("packed x 7\n()")
    program:kill("sigterm")
    assert.equal(143, (program:wait()))
  end)

  it("shows answers of any bytes", function()
    local _, url = serve(app_of([[
app:subscriber("bytes", { codec = "raw", reply = true }, function(bytes)
  return bytes .. "\255\0"
end)
]]), "--run")
    local status, answer = publish(url, { operation = "receive.bytes", payload = "ü" })
    assert.same({ 200, "ü\239\191\189\0", "application/octet-stream" }, { status, answer.reply, answer.content_type })
  end)

  it("refuses what makes no message", function()
    local _, url = serve(app_of(), "--run")
    local operation, packed = "receive.orders._2A.new", "receive.packed_-kind_-x"
    for message, request in pairs({
      ["no such operation"] = { operation = "elsewhere", payload = "{}" },
      ["'token1' of the address is one token"] = { operation = operation, parameters = { token1 = "a.b" } },
      ["must have no spaces and no wildcards"] = { operation = operation, parameters = { token1 = "*" } },
      ["parameter 'token1'"] = { operation = operation, payload = "{}" },
      ["is no JSON"] = { operation = operation, parameters = { token1 = "eu" }, payload = "{" },
      ["must be a text"] = { operation = operation, parameters = { token1 = "eu" }, payload = 1 },
      ["is too long"] = { operation = operation, parameters = { token1 = ("x"):rep(2000) }, payload = "{}" },
      ["header 'a b' is none"] = { operation = packed, payload = "{}", headers = { ["a b"] = "x" } },
      ["header 'a' is none"] = { operation = packed, payload = "{}", headers = { a = "x\ny: z" } },
      ["header '1' is none"] = { operation = packed, payload = "{}", headers = { "a" } },
      ["no JSON object"] = "[",
    }) do
      local status, answer = publish(url, request)
      assert.equal(400, status, message)
      assert.is_truthy(answer.error:find(message, 1, true), answer.error)
    end
    assert.equal(415, (publish(url, "{}", "text/plain")))
  end)

  it("does not act for pages of other sites, under whatever name they have this machine asked", function()
    local _, url = serve(app_of(), "--run")
    local body = '{"operation":"receive.packed_-kind_-x","payload":"{}"}'
    local port = url:match(":(%d+)$")
    local function post(headers)
      table.insert(headers, { "content-type", "application/json" })
      return (ask(url .. "/publish", { method = "POST", headers = headers, body = body }))
    end
    assert.equal(200, post({}))
    assert.equal(200, post({ { "origin", url } }))
    for _, origin in ipairs({ "https://evil.example", "null", "http://127.0.0.1", "http://127.0.0.1:1", "",
      url .. ".evil.example", "http://127.0.0.1.evil.example:" .. port }) do
      assert.equal(403, post({ { "origin", origin } }), origin)
    end
    for _, host in ipairs({ "evil.example", "evil.example:" .. port, "127.0.0.1.evil.example:" .. port }) do
      assert.equal(421, post({ { "host", host }, { "origin", "http://" .. host } }), host)
      assert.equal(421, (ask(url .. "/asyncapi", { headers = { { "host", host } } })), host)
    end
    for _, kind in ipairs({ "text/plain", "application/x-www-form-urlencoded", "multipart/form-data" }) do
      local status = ask(url .. "/publish", { method = "POST", headers = { { "content-type", kind } }, body = body })
      assert.equal(415, status, kind)
    end
    local status, _, headers = ask(url .. "/publish", {
      method = "OPTIONS",
      headers = { { "origin", "http://x.example" }, { "access-control-request-method", "POST" } },
    })
    assert.is_true(status >= 400)
    assert.is_nil(headers["access-control-allow-origin"])
  end)

  it("says why nobody would get what is sent to a memory broker without its handlers", function()
    local _, url = serve(app_of())
    local status, answer = publish(url, { operation = "receive.packed_-kind_-x", payload = "{}" })
    assert.equal(502, status)
    assert.matches("give %-%-run", answer.error)
  end)

  it("sends to a server that other processes have handlers on", function()
    if not nats.available() then
      return pending("nats-server is not installed: spec/setup test")
    end
    local server = nats.start()
    support.finally(function()
      server:stop()
    end)
    local path = app_of()
    local worker = support.start("run", path, "--env", "BROKER=" .. server.url)
    local program, url = serve(path, "--env", "BROKER=" .. server.url)
    local status, answer
    local deadline = runtime.now() + 20
    repeat -- until the handlers are there: before that nobody answers
      status, answer = publish(url, {
        operation = "receive.orders._2A.new", parameters = { token1 = "eu" }, payload = '{"id": "a", "quantity": 3}',
      })
    until status == 200 or runtime.now() > deadline
    assert.same({ total = 15, from = "orders.eu.new" }, cjson.decode(answer.reply))
    program:kill("sigterm")
    assert.same({ 143, "" }, { (program:wait()), program:err() })
    worker:kill("sigterm")
    worker:wait()
  end)

  it("says so when the port is in use, or is not this machine's alone", function()
    local _, url = serve(app_of())
    for _, more in ipairs({ {}, { "--run" } }) do
      local status, _, err = weir("asyncapi", "serve", app_of(), "--listen", url, table.unpack(more))
      assert.equal(1, status)
      assert.matches("is in use; choose another with %-%-listen", err)
      status, _, err = weir("asyncapi", "serve", app_of(), "--listen", "http://0.0.0.0:0", table.unpack(more))
      assert.equal(1, status)
      assert.matches("listen on 127.0.0.1", err)
    end
    for _, wrong in ipairs({ "https://127.0.0.1:0", "http://127.0.0.1", "http://127.0.0.1:99999", "x", "" }) do
      local status, _, err = weir("asyncapi", "serve", app_of(), "--listen", wrong)
      assert.equal(1, status)
      assert.matches("is no address to listen on; give one such as http://127.0.0.1:8000", err, 1, true)
    end
  end)

  it("listens where a port, or a host and a port, say", function()
    for _, listen in ipairs({ "0", ":0", "127.0.0.1:0", "localhost:0" }) do
      local program = support.start("asyncapi", "serve", app_of(), "--listen", listen)
      program:await_output("shown at http://[%w.]+:%d+;()")
      program:kill("sigint")
      assert.equal(130, (program:wait()))
    end
  end)
end)

describe("the page of weir asyncapi serve", function()
  local chromium
  for _, each in ipairs({ "chromium", "chromium-browser", "google-chrome" }) do
    chromium = chromium or os.execute(("command -v %s >/dev/null 2>&1"):format(each)) and each
  end
  local has_node = os.execute("command -v node >/dev/null 2>&1")

  local function look(path)
    local program = support.start("asyncapi", "serve", path, "--run", "--listen", "http://127.0.0.1:0")
    local url = program:await_output("shown at (http://%S+);")
    local line = "LD_PRELOAD= node spec/lua/asyncapi/page.mjs %s %s/ %s"
    local pipe = assert(io.popen(line:format(chromium, url, support.directory())))
    local seen = cjson.decode(pipe:read("a"))
    assert.is_true(pipe:close())
    return seen
  end

  it("shows the channels in a browser, and sends a message by its form", function()
    if not (chromium and has_node) then
      return pending("chromium or node is not installed")
    end
    local seen = look(app_of())
    assert.equal("orders 1.0.0", seen.title)
    assert.same({ id = "xxxx", quantity = 1 }, cjson.decode(seen.sample))
    assert.matches("^good: sent to orders.eu.new\nanswer: ", seen.answered)
    assert.same({ total = 15, from = "orders.eu.new" }, codec.get("json").decode(seen.answered:match("answer: (.*)$")))
    assert.matches("the payload is no JSON", seen.refused)
    for _, text in ipairs({ "orders.*.new", "Order", "quantity integer · minimum 1", "Bill", "packed" }) do
      assert.is_truthy(seen.text:find(text, 1, true), text)
    end
    -- The one refused request, and nothing else: no script failed, nothing was kept out by the policy.
    assert.equal(1, #seen.problems)
    assert.matches("400", seen.problems[1])
  end)

  it("runs nothing that names, descriptions and values of the document would have it run", function()
    if not (chromium and has_node) then
      return pending("chromium or node is not installed")
    end
    local seen = look(file_of([=[
local weir = require("weir")
local EVIL = "</script><script>globalThis.ran = true</script><img src=x onerror='globalThis.ran = true'>\"'`<b>${1}"
local app = weir.app("evil " .. EVIL, EVIL, {
  description = EVIL, contact = { name = EVIL, url = "javascript:globalThis.ran=true" }, license = { name = EVIL },
  tags = { EVIL }, log = { level = "error" },
})
app:broker("memory:", { description = EVIL })
app:subscriber("a", {
  name = EVIL, title = EVIL, summary = EVIL, description = EVIL, dead_letter = EVIL,
  schema = { title = EVIL, description = EVIL, properties = {
    [EVIL] = { type = "string?", description = EVIL, examples = { EVIL } },
    __proto__ = { type = "string?" }, constructor = { type = "string?", enum = { EVIL } },
  } },
  header_schema = { properties = { ["x-evil"] = { description = EVIL, examples = { EVIL } } } },
  filter = { kind = EVIL },
  reply = { to = true, schema = { title = EVIL } },
}, function()
  return { EVIL }
end)
app:subscriber("b" .. EVIL, { schema = { title = "__proto__", type = "string" } }, print)
return app
]=]))
    assert.is_false(seen.ran)
    assert.matches("^evil </script><script>", seen.title)
    assert.matches("<img src=x onerror=", seen.text, 1, true)
    assert.matches('"x%-evil":"</script>', seen.headers)
    assert.matches("^good: sent to a\n", seen.answered)
    assert.equal(1, #seen.problems)
  end)

  it("shows documents of many operations, and schemas that contain themselves", function()
    if not (chromium and has_node) then
      return pending("chromium or node is not installed")
    end
    local seen = look(file_of([=[
local weir = require("weir")
local app = weir.app("big", "1.0.0", { log = { level = "error" } })
app:broker("memory:")
local tree = { title = "Tree", properties = { n = "integer" } }
for i = 1, 12 do
  tree.properties["child" .. i] = tree
end
app:subscriber("a", { schema = { properties = { tree = tree }, required = {} }, reply = { to = true } }, function()
  return true
end)
for i = 1, 500 do
  app:subscriber("c" .. i, { schema = { title = "T" .. i, type = "string" } }, print)
end
return app
]=]))
    assert.equal("big 1.0.0", seen.title)
    assert.matches("Tree · object · as above", seen.text)
    assert.matches("c500", seen.text)
  end)
end)

