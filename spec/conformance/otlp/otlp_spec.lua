--- What applications send by OTLP/HTTP, against the receiver of the OpenTelemetry collector. go/ is that receiver:
-- it prints its address and then what it takes.
local json = require("cjson")
local luv = require("luv")
local support = require("spec.lua.app.support")

local HERE = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$")
local BUILD_TIMEOUT = 240 -- seconds

local function run(command)
  return os.execute("timeout " .. BUILD_TIMEOUT .. " sh -c " .. ("%q"):format(command) .. " >/dev/null 2>&1")
end

describe("the collector of OpenTelemetry", function()
  if not run("command -v go") then
    it("is tested against", function()
      pending("go is not installed")
    end)
    return
  elseif not run("cd '" .. HERE .. "/go' && go mod download") then
    it("is tested against", function()
      pending("go cannot download modules")
    end)
    return
  end

  local dir, child, stdin, stdout
  local items = {}

  lazy_setup(function()
    dir = assert(luv.fs_mkdtemp((os.getenv("TMPDIR") or "/tmp") .. "/weir-otlp.XXXXXX"))
    assert(run(("cd '%s/go' && env -u LD_PRELOAD go build -o '%s/receiver' ."):format(HERE, dir)))
    stdin, stdout = luv.new_pipe(), luv.new_pipe()
    local env = {}
    for name, value in pairs(luv.os_environ()) do
      if name ~= "LD_PRELOAD" then
        env[#env + 1] = name .. "=" .. value
      end
    end
    child = assert(luv.spawn(dir .. "/receiver", { stdio = { stdin, stdout, 2 }, env = env }, function()
      child:close()
      child = nil
    end))
    local text = ""
    stdout:read_start(function(_, data)
      text = text .. (data or "")
      text = text:gsub("([^\n]*)\n", function(line)
        items[#items + 1] = json.decode(line)
        return ""
      end)
    end)
    support.eventually(function()
      return items[1]
    end, 30)
  end)

  lazy_teardown(function()
    if child then
      local open = 2
      local function closed()
        open = open - 1
      end
      stdin:close(closed)
      support.eventually(function()
        return not child
      end, 30)
      stdout:close(closed)
      support.eventually(function()
        return open == 0
      end)
    end
    os.remove(dir .. "/receiver")
    luv.fs_rmdir(dir)
  end)

  after_each(support.clean)

  local function find(kind, name)
    for _, item in ipairs(items) do
      if item.kind_of_item == kind and item.name == name then
        return item
      end
    end
    error("nothing came of the name " .. name)
  end

  it("takes spans and metrics of every kind, and reads in them what was meant", function()
    local app, broker, lines = support.app({ retry = { max_attempts = 1 } })
    app:otlp({ endpoint = items[1].url, resource = { ["deployment.environment.name"] = "spec" } })
    app:subscriber("orders", { reply = "bills" }, function(order)
      return { total = order.price * 2 }
    end)
    app:subscriber("bills", function()
      return nil, require("weir.errors").new("stock", "no tea \255")
    end)
    app:batch("notes", { max = 2, linger = 5 }, function() end)
    local running = support.start(app)
    assert(app:publisher({ to = "orders" }):publish({ price = 2.5 }))
    local notes = app:publisher({ to = "notes" })
    assert(notes:publish("a"))
    assert(notes:publish("b"))
    support.eventually(function()
      return app.metrics:value("weir_messages_processed_total") == 4
    end)
    running:stop()
    assert.equal(0, app.metrics:value("weir_otlp_items_total", { outcome = "failed" }))
    assert.equal(0, app.metrics:value("weir_otlp_items_total", { outcome = "refused" }))
    assert.not_matches("telemetry", table.concat(lines, "\n"))
    assert.is_truthy(broker)
    support.eventually(function()
      return pcall(find, "metric", "weir_otlp_items_total") and pcall(find, "span", "process notes")
    end)

    local first, second = find("span", "publish orders"), find("span", "process orders")
    assert.same({ "Producer", "Consumer" }, { first.kind, second.kind })
    assert.same({ first.trace, first.id }, { second.trace, second.parent })
    assert.equal("", first.parent)
    assert.is_true(second.nanoseconds >= 0 and second.nanoseconds < 60e9)
    assert.equal(#'{"price":2.5}', second.attributes["messaging.message.body.size"])
    assert.equal("spec", second.resource["deployment.environment.name"])
    local failed = find("span", "process bills")
    assert.same({ "Error", "no tea \u{FFFD}" }, { failed.status, failed.message })
    assert.equal(2, find("span", "process notes").links)

    local published = find("metric", "weir_messages_published_total")
    assert.same({ "Sum", "Cumulative" }, { published.type, published.temporality })
    assert.equal("Gauge", find("metric", "weir_messages_in_flight").type)
    local sizes = find("metric", "weir_message_size_bytes")
    assert.same({ "Histogram", "By", "Cumulative" }, { sizes.type, sizes.unit, sizes.temporality })
    assert.equal(#sizes.bounds + 1, #sizes.buckets)
    assert.is_true(sizes.count > 0 and sizes.sum > 0)
  end)
end)
