local weir = require("weir")
local support = require("spec.lua.streams.support")
local it = support.tests(it)
local fails, eventually = support.fails, support.eventually

local function has_tags(...)
  local wanted = { ... }
  return function(peer)
    for _, tag in ipairs(wanted) do
      if not peer.tags[tag] then
        return false
      end
    end
    return true
  end
end

describe("require of a producer", function()
  it("admits only consumers with all the tags asked for", function()
    local a = support.network({ listen = support.address("tcp") })
    local restricted = a:produce("stream", { require = has_tags("trusted", "fast") })
    local open = a:produce("open")
    local both = support.network({ peers = a:addresses(), tags = { "fast", "trusted", "blue" } })
    local one = support.network({ peers = a:addresses(), tags = { "trusted" } })
    local none = support.network({ peers = a:addresses() })
    for _, node in ipairs({ both, one, none }) do
      assert(node:wait_connected(1, 5))
      assert(node:consumer("open", nil, 5))
    end
    assert(both:consumer("stream", nil, 5))
    for _, node in ipairs({ one, none }) do
      local err = fails("not_allowed", node:consumer("stream", nil, 5))
      assert.equal(10403, err.status)
      assert.matches("does not allow this consumer", err.message)
    end
    eventually(function()
      return open:stats().consumers == 3
    end)
    assert.equal(1, restricted:stats().consumers)
    assert.is_true(restricted:consumers()[1].tags.trusted)
    assert.equal(both.as_peer.id, restricted:consumers()[1].peer)
  end)

  it("sees who asks, with token, criteria and round-trip time", function()
    for _, place in ipairs(support.places) do
      local a, b = support.nodes(place, { tags = { "t" } }, { tags = { "t" } })
      local seen
      a:produce("stream", {
        require = function(peer)
          seen = peer
          return peer.token == "secret"
        end,
      })
      fails("not_allowed", b:consumer("stream", { token = "wrong" }, 5))
      assert(b:consumer("stream", { token = "secret", criteria = "price > 5" }, 5))
      assert.equal(b.as_peer.id, seen.id)
      assert.equal("price > 5", seen.criteria)
      assert.same({ "t", t = true }, seen.tags)
      assert.equal("string", type(seen.url))
      support.cleanup()
    end
  end)

  it("refuses and is reported when it raises, and blames nobody else", function()
    local a, b = support.nodes("tcp")
    a:produce("stream", {
      require = function()
        error("broken rule")
      end,
    })
    local good = a:produce("good")
    local text = support.silence(function()
      local err = fails("not_allowed", b:consumer("stream", nil, 5))
      assert.matches("could not decide", err.message)
    end)
    assert.matches("broken rule", text)
    assert.matches("require function of the producer of 'stream'", text)
    require("weir.runtime").take_failures()
    local consumer = assert(b:consumer("good", nil, 5))
    assert(good:send("x", 5))
    assert.equal("x", consumer:recv(5))
  end)

  it("may close the consumer or the producer that it decides about", function()
    for _, place in ipairs(support.places) do
      for _, which in ipairs({ "consumer", "producer" }) do
        local a, b = support.nodes(place)
        local consumer, asked = b:consume("stream", { online_when = 1 }), 0
        a:produce("stream", {
          require = function()
            asked = asked + 1
            if which == "consumer" then
              consumer:close()
            else
              a:produce("stream"):close(0)
            end
            return true
          end,
        })
        eventually(function()
          return asked == 1
        end)
        weir.sleep(0.01)
        assert.is_false(consumer:is_online())
        local good, other = a:produce("good"), b:consume("good")
        assert(good:send("x", 5))
        assert.equal("x", other:recv(5))
        assert.same({}, require("weir.runtime").take_failures())
        support.cleanup()
      end
    end
  end)

  it("is not asked again before the stream is announced anew", function()
    local a, b = support.nodes("tcp")
    local asked, allowed = 0, false
    local function rule()
      asked = asked + 1
      return allowed
    end
    local producer = a:produce("stream", { require = rule })
    local consumer = b:consume("stream", { online_when = 1, backoff = support.quick })
    eventually(function()
      return asked == 1
    end)
    weir.sleep(0.1)
    assert.equal(1, asked)
    assert.equal(10403, consumer:producers()[1].closed.status)
    allowed = true
    producer:close(0)
    a:produce("stream", { require = rule })
    assert(consumer:when():online(5))
  end)
end)

describe("require of a consumer", function()
  it("takes only producers with all the tags asked for", function()
    local hub = support.network({ listen = support.address("tcp") })
    local nodes = {}
    for i, tags in ipairs({ { "a", "b" }, { "a" }, {} }) do
      nodes[i] = support.network({ peers = hub:addresses(), tags = tags })
      nodes[i]:produce("stream")
    end
    local picky = hub:consume("stream", { require = has_tags("a", "b") })
    local open = hub:consume("stream", { online_when = 3 })
    assert(open:when():online(5))
    assert.equal(1, picky:stats().producers)
    assert.equal(nodes[1].as_peer.id, picky:producers()[1].peer)
    assert.equal(1, #picky:producers())
    local err = fails("not_allowed", hub:consumer("stream", { require = has_tags("c") }, 5))
    assert.equal(10403, err.status)
    assert.matches("does not allow this producer", err.message)
  end)

  it("applies to producers of the same node", function()
    local node = support.network({ tags = { "own" } })
    node:produce("stream")
    assert(node:consumer("stream", { require = has_tags("own") }, 1))
    fails("not_allowed", node:consumer("stream", { require = has_tags("other") }, 1))
  end)

  it("takes nothing and is reported when it raises", function()
    local a, b = support.nodes("mem")
    a:produce("stream")
    local text = support.silence(function()
      fails("not_allowed", b:consumer("stream", {
        require = function()
          error("broken rule")
        end,
      }, 5))
    end)
    assert.matches("require function of the consumer of 'stream'", text)
    require("weir.runtime").take_failures()
  end)
end)
