local json = require("cjson")
local luv = require("luv")
local weir = require("weir")
local support = require("spec.lua.app.support")

local function find(...)
  for _, name in ipairs({ ... }) do
    local pipe = io.popen("command -v " .. name)
    local path = pipe:read("l")
    pipe:close()
    if path then
      return path
    end
  end
end

local node, chromium = find("node"), find("chromium", "chromium-browser", "google-chrome")

local function run_browser(url, directory)
  local stdin, stdout = luv.new_pipe(), luv.new_pipe()
  local state = { text = "" }
  local env = {}
  for name, value in pairs(luv.os_environ()) do
    if name ~= "LD_PRELOAD" then -- of a build with sanitizers
      env[#env + 1] = name .. "=" .. value
    end
  end
  state.process = assert(luv.spawn(node, {
    args = { "spec/lua/web/page.mjs", chromium, url, directory, os.getenv("SCREENSHOT") },
    stdio = { stdin, stdout, 2 },
    env = env,
  }, function(status)
    state.status = status
  end))
  stdout:read_start(function(_, data)
    state.text = state.text .. (data or "")
  end)
  state.stdin, state.stdout = stdin, stdout
  return state
end

-- Waits until the browser has written a line, or has ended.
local function await_line(browser, line)
  support.eventually(function()
    return browser.text:find(line .. "\n", 1, true) or browser.status
  end, 60)
  assert(browser.text:find(line .. "\n", 1, true), "the browser ended early")
end

-- What the page showed, once the browser is done.
local function result_of(browser)
  support.eventually(function()
    return browser.status
  end, 60)
  for _, handle in ipairs({ browser.stdin, browser.stdout, browser.process }) do
    handle:close()
  end
  assert.equal(0, browser.status)
  return json.decode(browser.text:match("([^\n]*)\n$"))
end

-- An application that takes orders, some of which fail, and one order after the other.
local function shop(listen)
  local app, broker = support.app()
  local endpoint = app:http({ listen = listen })
  app:subscriber("orders", {
    name = "<b id='injected'>orders</b>",
    retry = { max_attempts = 2, backoff = "none" },
    dead_letter = "orders.dead",
  }, function(order, ctx)
    weir.sleep(0.001)
    if order.n % 40 == 0 then
      error("out of stock")
    end
    ctx:publish(order, { to = "shipments" })
  end)
  return app, endpoint, weir.spawn(function()
    local n = 0
    repeat
      n = n + 1
      pcall(support.publish, broker, "orders", { n = n }) -- not before it has started
    until not weir.sleep(0.01)
  end)
end

local function check_first(shown)
  assert.same({}, shown.problems)
  assert.equal("test · weir", shown.title)
  assert.equal("test 1", shown.app)
  assert.equal("running", shown.state)
  assert.equal("memory: up", shown.brokers)
  assert.equal(1, #shown.rows)
  local row = {}
  for i, head in ipairs(shown.heads) do
    row[head] = shown.rows[1][i]
  end
  assert.truthy(shown.rows[1][1]:find("<b id='injected'>orders</b>", 1, true))
  assert.equal(0, shown.injected)
  assert.is_true(tonumber((row["per second"]:match("[%d.]+"))) > 0)
  assert.is_true(tonumber(row.consumed) > 0)
  assert.truthy(row.p99:find("ms", 1, true))
  assert.truthy(table.concat(shown.published, " "):find("shipments", 1, true))
end

describe("the live page", function()
  local directory

  before_each(function()
    directory = assert(luv.fs_mkdtemp((os.getenv("TMPDIR") or "/tmp") .. "/weir-page.XXXXXX"))
  end)

  after_each(function()
    support.clean()
    os.execute(("rm -rf '%s'"):format(directory))
  end)

  if not node or not chromium then
    it("is tested in Chromium", function()
      pending("node or chromium is not installed")
    end)
    return
  end

  it("shows in a browser what happens, that the application is gone, and that it is back", function()
    weir.run(function()
      local app, endpoint, sender = shop("tcp://127.0.0.1:0")
      local running = support.start(app)
      local url = endpoint.url
      local browser = run_browser(url .. "/", directory)
      await_line(browser, "shown")
      sender:cancel()
      running:stop()
      browser.stdin:write("gone\n")
      await_line(browser, "lost")
      app, endpoint, sender = shop((url:gsub("^http", "tcp")))
      support.start(app)
      assert.equal(url, endpoint.url)
      browser.stdin:write("back\n")
      local shown = result_of(browser)
      sender:cancel()
      check_first(shown)
      assert.equal("connection lost", shown.after)
      assert.equal("running", shown.again)
      local light, dark, narrow = shown.views[1], shown.views[2], shown.views[3]
      assert.are_not.equal(light.text, dark.text)
      assert.are_not.equal(light.good, dark.good)
      for _, view in ipairs({ light, dark, narrow }) do
        assert.is_true(view.wide <= view.width, "it does not fit into the window")
      end
      assert.equal(360, narrow.width)
    end)
  end)

  it("shows hundreds of subscriptions", function()
    weir.run(function()
      local app, broker = support.app()
      local endpoint = app:http({ listen = "tcp://127.0.0.1:0" })
      for i = 1, 200 do
        app:subscriber("in." .. i, function() end)
      end
      support.start(app)
      local browser = run_browser(endpoint.url .. "/", directory)
      for i = 1, 200 do
        support.publish(broker, "in." .. i, { n = i })
      end
      await_line(browser, "shown")
      browser.stdin:write("done\n")
      local shown = result_of(browser)
      assert.same({}, shown.problems)
      assert.equal(200, #shown.rows)
      for _, row in ipairs(shown.rows) do
        assert.equal("1", row[4])
      end
    end)
  end)
end)
