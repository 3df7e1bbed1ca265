local history = require("weir.repl.history")
local scope = require("spec.lua.scope")
local shell = require("spec.house.shell")

after_each(scope.close)

describe("weir.repl.history", function()
  it("reads 1 MiB of a file, its end", function()
    local path = scope.directory() .. "/history"
    local lines = {}
    for i = 1, 600 do
      lines[i] = ("%04d"):format(i) .. ("x"):rep(4091) -- 4 KiB with the end of the line
    end
    shell.write(path, table.concat(lines, "\n") .. "\n")
    local kept = history.load(path)
    assert.equal(256, #kept)
    assert.equal(lines[600], kept[256])
    assert.equal(lines[345], kept[1])
  end)

  it("has no line of more than 4096 bytes", function()
    assert.is_true(history.worth(("x"):rep(4096)))
    assert.is_false(history.worth(("x"):rep(4097)))
  end)
end)
