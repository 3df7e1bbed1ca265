local conformance = require("weir.conformance")
local shell = require("spec.house.shell")

describe("docs/broker-authors.md", function()
  it("says of every check what it proves", function()
    local text = assert(shell.read("docs/broker-authors.md"))
    local shown = {}
    for name, proves in text:gmatch("\n| `(%l[%l_]*%.%l[%l_]*)` | [^\n|]*| ([^\n]-) |") do
      shown[name] = proves
    end
    for _, check in ipairs(conformance.checks()) do
      assert.equal(check.proves, shown[check.name], check.name)
      shown[check.name] = nil
    end
    assert.same({}, shown)
  end)
end)
