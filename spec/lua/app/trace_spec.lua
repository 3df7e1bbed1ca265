local id = require("weir.id")
local trace = require("weir.trace")

local TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
local PARENT = "00-" .. TRACE .. "-" .. SPAN .. "-01"

describe("a traceparent", function()
  it("is read into its parts", function()
    assert.same({ TRACE, SPAN, "01" }, { trace.parse(PARENT) })
  end)

  it("of a later version is read as far as it is known", function()
    assert.same({ TRACE, SPAN, "00" }, { trace.parse("cc-" .. TRACE .. "-" .. SPAN .. "-00-what-comes") })
  end)

  it("that is malformed is none", function()
    for _, text in ipairs({
      "",
      "00-" .. TRACE .. "-" .. SPAN,
      "ff-" .. TRACE .. "-" .. SPAN .. "-01",
      "00-" .. ("0"):rep(32) .. "-" .. SPAN .. "-01",
      "00-" .. TRACE .. "-" .. ("0"):rep(16) .. "-01",
      "00-" .. TRACE:upper() .. "-" .. SPAN .. "-01",
      PARENT .. "-more",
      "01-" .. TRACE .. "-" .. SPAN .. "-01-" .. ("x"):rep(512),
      "01-" .. TRACE .. "-" .. SPAN .. "-01x",
      "01-" .. TRACE .. "-" .. SPAN .. "-01\0",
      PARENT .. "\0",
      "00-" .. TRACE .. "0-" .. SPAN:sub(2) .. "-01",
      ("0"):rep(1000),
    }) do
      assert.is_nil(trace.parse(text), text)
    end
    assert.is_nil(trace.parse(nil))
    assert.is_nil(trace.parse(7))
  end)

  it("of a child has the same trace and flags, and a span of its own", function()
    local child, continued = trace.child(PARENT)
    local trace_id, span, flags = trace.parse(child)
    assert.is_true(continued)
    assert.same({ TRACE, "01" }, { trace_id, flags })
    assert.not_equal(SPAN, span)
  end)

  it("of a child has no flags that nobody knows yet", function()
    for came, flags in pairs({ ["01"] = "01", ["03"] = "03", ff = "03", ["1c"] = "00" }) do
      assert.equal(flags, select(3, trace.parse((trace.child(PARENT:gsub("01$", came))))))
    end
  end)

  it("of a child of nothing begins a trace", function()
    local child, continued = trace.child("nonsense")
    assert.is_string(trace.parse(child))
    assert.is_false(continued)
    assert.not_equal(child, (trace.child(nil)))
  end)
end)

describe("propagation", function()
  it("carries the trace and its state on", function()
    local out = {}
    trace.propagate(out, { traceparent = PARENT, tracestate = "a=b" })
    assert.equal(TRACE, (trace.parse(out.traceparent)))
    assert.equal("a=b", out.tracestate)
  end)

  it("leaves out the state of a trace that it does not carry on, and what is none", function()
    local out = {}
    trace.propagate(out, { traceparent = "bad", tracestate = "a=b" })
    assert.is_nil(out.tracestate)
    for _, state in ipairs({ ("a"):rep(5000), "a=b\r\nx: y", "a=\255", "  ", (" "):rep(2000) }) do
      out = {}
      trace.propagate(out, { traceparent = PARENT, tracestate = state })
      assert.is_nil(out.tracestate)
    end
  end)

  it("changes nothing that is set", function()
    local out = { traceparent = "mine" }
    trace.propagate(out, { traceparent = PARENT })
    assert.same({ traceparent = "mine" }, out)
  end)
end)

describe("an id", function()
  it("is another each time", function()
    local seen = {}
    for _ = 1, 10000 do
      for _, new in ipairs({ id.message(), id.hex(16), id.hex(32) }) do
        assert.is_nil(seen[new])
        seen[new] = true
      end
    end
  end)

  it("has as many digits as asked for", function()
    for digits = 2, 64, 2 do
      assert.matches("^%x+$", id.hex(digits))
      assert.equal(digits, #id.hex(digits))
    end
  end)
end)

describe("a fraction", function()
  it("is spread from 0 to below 1", function()
    local sum, low, high = 0, 1, 0
    for _ = 1, 10000 do
      local x = id.fraction()
      assert.is_true(x >= 0 and x < 1)
      sum, low, high = sum + x, math.min(low, x), math.max(high, x)
    end
    assert.is_true(sum > 4500 and sum < 5500 and low < 0.01 and high > 0.99)
  end)
end)
