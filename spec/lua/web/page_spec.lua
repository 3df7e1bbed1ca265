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

describe("the live page", function()
  after_each(support.clean)

  if not node or not chromium then
    it("is tested in Chromium", function()
      pending("node or chromium is not installed")
    end)
    return
  end

  it("shows in a browser what happens, and that the application is gone", function()
    local directory = assert(luv.fs_mkdtemp((os.getenv("TMPDIR") or "/tmp") .. "/weir-page.XXXXXX"))
    weir.run(function()
      local app, broker = support.app()
      local endpoint = app:http({ listen = "tcp://127.0.0.1:0" })
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
      local running = support.start(app)
      local n = 0
      local sender = weir.spawn(function()
        repeat
          n = n + 1
          support.publish(broker, "orders", { n = n })
        until not weir.sleep(0.01)
      end)
      local browser = run_browser(endpoint.url .. "/", directory)
      support.eventually(function()
        return browser.text:find("shown\n", 1, true) or browser.status
      end, 60)
      sender:cancel()
      running:stop()
      browser.stdin:write("gone\n")
      support.eventually(function()
        return browser.status
      end, 60)
      for _, handle in ipairs({ browser.stdin, browser.stdout, browser.process }) do
        handle:close()
      end
      assert.equal(0, browser.status)
      local shown = json.decode(browser.text:match("shown\n(.*)"))
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
      assert.equal("connection lost", shown.after)
    end)
    os.execute(("rm -rf '%s'"):format(directory))
  end)
end)
