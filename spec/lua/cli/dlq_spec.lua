local cjson = require("cjson")
local jetstream = require("weir.broker.nats").jetstream
local nats_server = require("spec.lua.nats_server")
local programs = require("spec.programs")
local shell = require("spec.house.shell")
local support = require("spec.lua.cli.support")
local tasks = require("weir.task")

after_each(support.clean)

local weir = support.weir

local APP = [[
io.stdout:setvbuf("no")
local weir = require("weir")
local app = weir.app("orders", "1.0.0", { log = { level = "error" } })
app:broker("memory://%s/store")
local left = weir.env("MESSAGES", 0)
app:subscriber({ name = "orders", group = "all" }, {
  codec = "raw", dead_letter = "orders.dead", retry = { max_attempts = 1 },
}, function(value, ctx)
  ctx:on_settled(function()
    left = left - 1
    if left == 0 then app:request_stop() end
  end)
  if os.getenv("FIXED") then
    print(value, ctx.headers.tenant)
  else
    return weir.fail({ code = ctx.headers.code, message = "the oven is cold\27[31m\nand dark" })
  end
end)
if os.getenv("MESSAGES") == nil then app:on("started", function() app:request_stop() end) end
return app
]]

local function run(path, ...)
  local status, out, err = weir("run", path, ...)
  assert.same({ 0, "" }, { status, err })
  return out
end

-- An application with dead letters: "one" and "two" with the code cold, bytes with the code odd.
local function with_letters()
  local directory = support.directory()
  local path = directory .. "/app.lua"
  shell.write(path, APP:format(directory))
  run(path)
  for _, each in ipairs({ { "one", "cold", "red" }, { "two", "cold", "blue" }, { "\255\0x", "odd", "blue" } }) do
    if each[1]:find("\0") then
      shell.check(("printf '\\377\\000x' | lua5.4 lua/bin/weir publish %s orders - --codec raw --header code:%s"
        .. " --header tenant:%s"):format(shell.quote(path), each[2], each[3]))
    else
      assert.equal(0, (weir("publish", path, "orders", each[1], "--codec", "raw", "--header", "code:" .. each[2],
        "--header", "tenant:" .. each[3])))
    end
  end
  run(path, "--env", "MESSAGES=3")
  return path
end

local function lines(text)
  local count = 0
  for _ in text:gmatch("\n") do
    count = count + 1
  end
  return count
end

-- The greatest size of a program while it ran, in KiB, and what it wrote.
local function most_memory(words)
  local measure = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True);"
    .. " print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)"
  local status, out, err = programs.run({ "python3", "-c", measure, table.unpack(words) })
  assert.equal(0, status)
  return tonumber(err), out
end

describe("weir dlq", function()
  it("lists dead letters, oldest first, one line each, and leaves them", function()
    local path = with_letters()
    for _ = 1, 2 do
      local status, out, err = weir("dlq", "list", path, "orders.dead")
      assert.same({ 0, "", 3 }, { status, err, lines(out) })
      assert.matches("^%d+%-%d+%-%d+T[%d:.]+Z +cold +1x +orders +the oven is cold [^\n]*and dark\n", out)
      assert.matches("odd", out:match("[^\n]*\n$"))
    end
    assert.equal(1, lines((select(2, weir("dlq", "list", path, "orders.dead", "--limit", "1")))))
  end)

  it("shows what each was, with what is no text escaped", function()
    local path = with_letters()
    local _, out = weir("dlq", "show", path, "orders.dead")
    assert.matches("\nheader: +tenant: blue\n[^\n]*\ntwo\n", out)
    assert.matches("\n\\255\\0x\n", out)
    assert.not_matches("\27", out)
  end)

  it("shows the beginning of a huge one, and prints all of it as JSON", function()
    local directory = support.directory()
    local path = directory .. "/app.lua"
    shell.write(path, APP:format(directory))
    run(path)
    local payload = ("\226\130\172"):rep(2500000) -- as much as the broker takes
    shell.write(directory .. "/huge", payload)
    shell.check(("lua5.4 lua/bin/weir publish %s orders - --codec raw <%s/huge"):format(shell.quote(path), directory))
    run(path, "--env", "MESSAGES=1")
    local _, out = weir("dlq", "show", path, "orders.dead")
    assert.is_true(#out < 10000)
    assert.matches("\n\226\130\172[^\n]*\226\130\172%.%.%. %(%d+ bytes more%)\n", out)
    assert.truthy(utf8.len(out))
    _, out = weir("dlq", "show", path, "orders.dead", "--json")
    assert.is_true(cjson.decode(out).payload == payload)
    local status
    status, out = weir("dlq", "replay", path, "orders.dead")
    assert.same({ 0, "1 replayed, 0 left as they were\n" }, { status, out })
  end)

  it("holds one of them at a time, and prints it at once", function()
    if not nats_server.available() then
      return pending("nats-server or weir.brokers.nats is missing")
    end
    tasks.run(function()
      local server = nats_server.start()
      support.finally(function()
        server:stop()
      end)
      local broker = require("weir.broker")(server.url)
      assert(broker:connect(10))
      assert(broker:subscribe(assert(jetstream({ name = "dead", stream = "DEAD", create = { storage = "memory" } }))))
      local publisher = broker:publisher()
      local function bury(count)
        for _ = 1, count do
          assert(publisher:publish("dead", ("x"):rep(900 * 1024), { ["weir-error"] = "cold" }))
        end
      end
      bury(40)
      local most, out = most_memory({ "lua5.4", "lua/bin/weir", "dlq", "list", server.url, "dead" })
      assert.equal(40, lines(out))
      bury(120)
      local later
      later, out = most_memory({ "lua5.4", "lua/bin/weir", "dlq", "show", server.url, "dead" })
      assert.equal(160, select(2, out:gsub("error: +cold", "")))
      assert.is_true(later < most + 32 * 1024, ("%d and %d KiB"):format(most, later))
      local status
      status, out = programs.run({ "sh", "-c", "lua5.4 lua/bin/weir dlq list " .. server.url .. " dead | head -n 1" })
      assert.same({ 0, 1 }, { status, lines(out) })
      broker:shutdown(1)
    end)
  end)

  it("prints an object for each with --json", function()
    local path = with_letters()
    local _, out = weir("dlq", "show", path, "orders.dead", "--json")
    local letters = {}
    for line in out:gmatch("[^\n]+") do
      letters[#letters + 1] = cjson.decode(line)
    end
    assert.same({ "one", "cold", "orders", "red", 1 }, { letters[1].payload, letters[1].code, letters[1].destination,
      letters[1].headers.tenant, letters[1].attempts })
    assert.equal("/wB4", letters[3].payload_base64)
  end)

  it("takes filters, of which all must hold", function()
    local path = with_letters()
    local function count(...)
      return lines((select(2, weir("dlq", "list", path, "orders.dead", "--json", ...))))
    end
    assert.equal(2, count("--filter", "code=cold"))
    assert.equal(2, count("--filter=header.tenant=blue"))
    assert.equal(1, count("--filter", "code=cold", "--filter", "header.Tenant=blue"))
    assert.equal(3, count("--filter", "error=oven"))
    assert.equal(0, count("--filter", "destination=nowhere"))
    local _, out = weir("dlq", "list", path, "orders.dead", "--filter", "code=none")
    assert.equal("no dead letter in orders.dead that fits the filter\n", out)
  end)

  it("replays those that fit; the others stay", function()
    local path = with_letters()
    assert.same({ 0, "2 replayed, 1 left as they were\n", "" },
      { weir("dlq", "replay", path, "orders.dead", "--filter", "code=cold") })
    assert.equal("one\tred\ntwo\tblue\n", run(path, "--env", "MESSAGES=2", "--env", "FIXED=1"))
    assert.equal(1, lines((select(2, weir("dlq", "list", path, "orders.dead")))))
  end)

  it("removes only what it is told to", function()
    local path = with_letters()
    local status, out, err = weir("dlq", "remove", path, "orders.dead")
    assert.same({ 2, "" }, { status, out })
    assert.matches("say which with %-%-filter or %-%-limit, or %-%-all", err)
    status, out = weir("dlq", "remove", path, "orders.dead", "--filter", "code=odd", "--json")
    assert.same({ 0, 1, 2 }, { status, cjson.decode(out).removed, cjson.decode(out).left })
    assert.same({ 0, "2 removed, 0 left as they were\n", "" }, { weir("dlq", "remove", path, "orders.dead", "--all") })
    assert.same({ 0, "no dead letters in orders.dead\n", "" }, { weir("dlq", "list", path, "orders.dead") })
  end)

  it("ends quietly when nobody reads what it prints", function()
    local path = with_letters()
    local script = "lua5.4 lua/bin/weir dlq show %s orders.dead 2>&1 >&3 3>&- | cat >&2"
    local out = shell.check(("{ %s; } 3>&1 | head -c 1 >/dev/null"):format(script:format(shell.quote(path))))
    assert.equal("", out)
  end)

  it("says how it is used", function()
    for _, each in ipairs({
      { "what is to be done is missing" },
      { "VERB must be one of list, show, replay, remove, not 'lsit'; did you mean 'list'?", "lsit", "a", "b" },
      { "the name is missing", "list", "memory:///tmp" },
      { "--to is an option of replay", "list", "a", "b", "--to", "c" },
      { "--all is an option of remove", "replay", "a", "b", "--all" },
      { "--all and --filter exclude each other", "remove", "a", "b", "--all", "--filter", "code=x" },
      { "--filter needs FIELD=TEXT, not 'code'", "list", "a", "b", "--filter", "code" },
      { "not 'cdoe=x'; did you mean 'code'?", "list", "a", "b", "--filter", "cdoe=x" },
      { "--limit must be a whole number from 1 to 1000000000, not '0'", "list", "a", "b", "--limit", "0" },
    }) do
      local status, out, err = weir("dlq", table.unpack(each, 2))
      assert.same({ 2, "" }, { status, out })
      assert.truthy(err:find(each[1], 1, true), err)
    end
  end)
end)
