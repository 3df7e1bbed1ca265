local exporter = require("weir.otlp.exporter")
local metrics = require("weir.metrics")
local new_collector = require("spec.lua.otlp.collector")
local support = require("spec.lua.app.support")

local MIB = 1024 * 1024

after_each(support.clean)

-- An exporter of texts, whose collector answers always the same; and how many items came to an end.
local function exporting(answer, batch)
  local to = new_collector()
  to.usual = answer
  support.finally(function()
    to:close()
  end)
  local registry = metrics.registry()
  local made = exporter.new({
    signal = "spans",
    url = to.url .. "/v1/traces",
    headers = {},
    make = function(list)
      return table.concat(list), #list
    end,
    halves = function() end,
    write = function(item)
      return item
    end,
    most = 1000,
    batch = batch,
    interval = 3600,
    timeout = 10,
    log = support.log(),
    items = registry:counter("items_total", "Items.", { "signal", "outcome" }),
  })
  made:start()
  support.finally(function()
    made:stop(1)
  end)
  return made, to, function(outcome)
    return registry:value("items_total", { outcome = outcome }) or 0
  end
end

describe("the queue of an exporter", function()
  it("holds 32 MiB, and puts 4 of them into a request", function()
    local made, to, count = exporting({ status = 400 }, 1000)
    local item = ("x"):rep(MIB)
    for _ = 1, 40 do
      made:add(item)
    end
    assert.equal(8, count("dropped"))
    support.eventually(function()
      return count("failed") == 32
    end)
    for _, request in ipairs(to.requests) do
      assert.equal(4 * MIB, #request.body)
    end
  end)

  it("is sent six times at most", function()
    local made, to, count = exporting({ status = 503, headers = "retry-after: 0\r\n" }, 1)
    made:add("x")
    support.eventually(function()
      return count("failed") == 1
    end)
    assert.equal(6, #to.requests)
  end)
end)
