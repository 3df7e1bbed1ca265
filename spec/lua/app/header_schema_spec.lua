local header_schema = require("weir.app.header_schema")

local function problem(description, headers)
  local ok, err = header_schema.new(description):validate(headers)
  return not ok and err.message:gsub("^headers: ", "") or nil
end

describe("a schema of headers", function()
  it("reads texts as what it asks for", function()
    local all = { properties = { i = "integer?", n = "number?", b = "boolean?", s = "string?", c = { enum = { 1, true },
      type = { "integer", "boolean" } }, e = { const = 5 } }, required = {} }
    for _, good in ipairs({ { i = "-3" }, { n = "1.5" }, { n = "1e3" }, { b = "true" }, { b = "false" }, { s = "5" },
      { c = "1" }, { c = "true" }, { e = "5" } }) do
      assert.is_nil(problem(all, good))
    end
    for _, bad in ipairs({ { i = "1.5" }, { i = "" }, { i = "0x10" }, { i = " 1" }, { n = "nan" }, { n = "inf" },
      { n = "-" }, { b = "True" }, { b = "1" }, { c = "2" }, { c = "false" }, { e = "6" } }) do
      assert.is_string(problem(all, bad), next(bad) .. " " .. select(2, next(bad)))
    end
  end)

  it("names headers whatever case they are written in", function()
    assert.is_nil(problem({ properties = { ["X-Tenant"] = "string" } }, { ["x-tenant"] = "a" }))
    assert.equal('["x-tenant"]: is missing', problem({ properties = { ["X-Tenant"] = "string" } }, {}))
    assert.equal('["x-tenant"]: is missing', problem({ required = { "X-Tenant" } }, {}))
  end)

  it("leaves headers that weir writes alone, unless it names them", function()
    local closed = { properties = { tenant = "string" }, additionalProperties = false }
    local written = { tenant = "a", ["content-type"] = "x", ["message-id"] = "y", traceparent = "z",
      ["weir-attempt"] = "2" }
    assert.is_nil(problem(closed, written))
    assert.equal("other: is not a known property", problem(closed, { tenant = "a", other = "b" }))
    assert.matches("message%-id", problem({ properties = { ["message-id"] = { maxLength = 3 } } },
      { ["message-id"] = "long" }))
  end)

  it("leaves the schema that it was made of as it is", function()
    local description = { title = "Meta", properties = { A = "string" } }
    local made = header_schema.new(description)
    assert.same({ title = "Meta", properties = { A = "string" } }, description)
    assert.same({ title = "Meta", type = "object", properties = { a = { type = "string" } }, required = { "a" } },
      made:to_json())
    assert.equal("weir.app.header_schema(Meta)", tostring(made))
  end)
end)
