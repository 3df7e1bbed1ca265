local fails = require("spec.lua.support").fails
local servers = require("spec.lua.nats_server")

if not servers.available() then
  return pending("nats-server or libnats is not installed: spec/setup test")
end

local support = require("spec.lua.broker.nats.support")

describe("key-value buckets of the NATS broker", function()
  local broker, bucket

  support.each_broker(function(own)
    broker = own
    bucket = assert(broker:kv(support.name("bucket"), { create = { history = 5, storage = "memory" } }))
  end)

  it("keep values with revisions", function()
    fails("not_found", bucket:get("a"))
    assert.equal(1, bucket:put("a", "one"))
    assert.equal(2, bucket:put("a", "\0\255"))
    local value, revision = bucket:get("a")
    assert.equal("\0\255", value)
    assert.equal(2, revision)
    assert.equal(3, bucket:put("empty", ""))
    assert.equal("", (bucket:get("empty")))
  end)

  it("set a key once, or if nobody changed it", function()
    assert.equal(1, bucket:create("a", "one"))
    fails("conflict", bucket:create("a", "two"))
    assert.equal(2, bucket:update("a", "two", 1))
    fails("conflict", bucket:update("a", "three", 1))
    fails("conflict", bucket:delete("a", 1))
    assert.is_true(bucket:delete("a", 2))
    fails("not_found", bucket:get("a"))
    assert.equal(4, bucket:create("a", "again"))
  end)

  it("list their keys", function()
    assert.same({}, bucket:keys())
    for _, key in ipairs({ "b", "a.x", "c", "b" }) do
      assert(bucket:put(key, "v"))
    end
    assert(bucket:delete("c"))
    assert.same({ "a.x", "b" }, bucket:keys())
  end)

  it("tell of changes", function()
    assert(bucket:put("users.ann", "1"))
    assert(bucket:put("other", "1"))
    local watch = assert(bucket:watch("users.*"))
    assert.equal(1, watch.initial)
    local change = assert(watch:next(5))
    assert.equal("users.ann", change.key)
    assert.equal("1", change.value)
    assert.equal("put", change.operation)
    assert.equal(0, watch.initial)
    assert(bucket:put("users.bob", "2"))
    assert(bucket:delete("users.ann"))
    assert.equal("users.bob", assert(watch:next(5)).key)
    change = assert(watch:next(5))
    assert.equal("delete", change.operation)
    assert.equal("users.ann", change.key)
    watch:close()
    fails("closed", watch:next(1))
    local new = assert(bucket:watch(nil, { new = true }))
    fails("timeout", new:next(0.05))
    assert(bucket:put("other", "2"))
    assert.equal("2", assert(new:next(5)).value)
  end)

  it("are found again, and not made unless asked", function()
    assert(bucket:put("a", "one"))
    local again = assert(broker:kv(bucket.bucket, { create = false }))
    assert.equal("one", (again:get("a")))
    fails("stream_not_found", broker:kv("none", { create = false }))
  end)

  it("refuse names and keys that are none", function()
    assert.error_matches(function()
      broker:kv("a.b")
    end, "letters, digits")
    for _, key in ipairs({ "", ".a", "a.", "a..b", "a b", "a>", "*" }) do
      assert.error_matches(function()
        bucket:put(key, "x")
      end, "a key has")
    end
    assert.error_matches(function()
      broker:kv("x", { create = { histroy = 1 } })
    end, "history")
  end)
end)
