local cache = require("weir.durable.cache")

describe("A cache of catch-up reads", function()
  it("keeps what it was given until there is no more room, and drops what was not used for longest", function()
    local kept = cache.new(8192)
    for i = 1, 3 do
      kept:put("u" .. i, "e" .. i, {}, ("x"):rep(1500))
    end
    assert.equal("e1", kept:get("u1").etag)
    kept:put("u4", "e4", {}, ("x"):rep(1500))
    kept:put("u5", "e5", {}, ("x"):rep(1500))
    assert.is_nil(kept:get("u2"))
    assert.truthy(kept:get("u1") and kept:get("u5"))
    assert.is_true(kept.bytes <= 8192)
    kept:put("u5", "e6", {}, ("x"):rep(5000))
    assert.is_nil(kept:get("u5"))
  end)

  it("counts the headers of an answer, too", function()
    local kept = cache.new(1000000)
    local headers = {}
    for i = 1, 60 do
      headers[i] = { "X-" .. i, ("h"):rep(1000) }
    end
    for i = 1, 100 do
      kept:put("u" .. i, ("e"):rep(1000), headers, "")
    end
    local count = 0
    for _ in pairs(kept.entries) do
      count = count + 1
    end
    assert.is_true(count > 5 and count <= 16, count)
  end)
end)
