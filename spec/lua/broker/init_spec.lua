local support = require("spec.lua.support")
local weir = require("weir")

describe("weir.broker", function()
  it("makes a memory broker of \"memory:\"", function()
    local broker = weir.broker("memory:", { max_payload = 10 })
    assert.equal("memory", broker.kind)
    assert.equal(10, broker.options.max_payload)
    assert.equal("memory", weir.broker("MEMORY://").kind)
  end)

  it("takes the directory and the group from the address", function()
    local broker = weir.broker("memory:///var/lib/my%20app?group=orders&max_payload=1%20MiB")
    assert.equal("/var/lib/my app", broker.options.dir)
    assert.equal("orders", broker.options.group)
    assert.equal("1 MiB", broker.options.max_payload)
    assert.has_error(function()
      weir.broker("memory://relative/dir")
    end)
    assert.has_error(function()
      weir.broker("memory:?color=red")
    end)
  end)

  it("names the known schemes for an unknown one, and the nearest, and no password", function()
    local ok, err = pcall(weir.broker, "ntas://user:secret@host")
    assert.is_false(ok)
    assert.matches("nats:", err, 1, true)
    assert.matches("did you mean 'nats:'", err, 1, true)
    assert.is_nil(err:find("secret", 1, true))
    for _, url in ipairs({ "", "memory", "kafka://x", "://", 5, {} }) do
      assert.is_false(pcall(weir.broker, url))
    end
    assert.is_false(pcall(weir.broker))
    assert.is_false(pcall(weir.broker, "memory:", "options"))
  end)

  it("says which module is missing", function()
    package.preload["weir.broker.nats"] = function()
      error("no libnats")
    end
    local loaded = package.loaded["weir.broker.nats"]
    package.loaded["weir.broker.nats"] = nil
    local ok, err = pcall(weir.broker, "nats://user:secret@host")
    package.preload["weir.broker.nats"], package.loaded["weir.broker.nats"] = nil, loaded
    assert.is_false(ok)
    assert.matches("weir.broker.nats", err, 1, true)
    assert.matches("no libnats", err, 1, true)
    assert.is_nil(err:find("secret", 1, true))
  end)

  it("loads nothing of a broker before one is made", function()
    local result = support.program([[
      local weir = require("weir")
      assert(weir.broker)
      for name in pairs(package.loaded) do
        assert(not name:find("^weir%.broker%."), name)
      end
      weir.broker("memory:")
      assert(package.loaded["weir.broker.memory"])
    ]])
    assert.equal("", result.err)
    assert.equal(0, result.status)
  end)
end)
