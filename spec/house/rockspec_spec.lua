local shell = require("spec.house.shell")
local version = require("weir.version")

local rockspec = "rockspec/weir-scm-1.rockspec"

describe("the rockspec", function()
  local dir, remove, tree

  -- Built from a copy: luarocks puts its build into the current directory.
  lazy_setup(function()
    dir, remove = shell.scratch()
    tree = dir .. "/tree"
    if shell.run("command -v luarocks") ~= 0 then
      return
    end
    shell.check(("mkdir %s/src && cp -r CMakeLists.txt csrc lua rockspec docs examples %s/src"):gsub(
      "%%s", shell.quote(dir)))
    shell.check(("cd %s/src && HOME=%s PATH=${WEIR_PLAIN_PATH:-$PATH}"
      .. " luarocks --lua-version 5.4 --tree %s make %s --deps-mode=none"):format(
      shell.quote(dir), shell.quote(dir), shell.quote(tree), rockspec))
  end)

  lazy_teardown(function()
    remove()
  end)

  local function with_luarocks(name, body)
    it(name, function()
      if shell.run("command -v luarocks") ~= 0 then
        return pending("luarocks is not installed")
      end
      body()
    end)
  end

  local function lua(program)
    return shell.check(("cd / && LUA_PATH='%s/share/lua/5.4/?.lua;%s/share/lua/5.4/?/init.lua;;' "
      .. "LUA_CPATH='%s/lib/lua/5.4/?.so;;' lua5.4 -e %s"):format(tree, tree, tree, shell.quote(program)))
  end

  with_luarocks("passes luarocks lint", function()
    local status, output = shell.run("luarocks lint " .. rockspec)
    assert.equal(0, status, output)
  end)

  with_luarocks("installs the Lua modules", function()
    assert.equal(version, lua("io.write((require('weir.version')))"))
    assert.matches("^" .. tree:gsub("%p", "%%%0"), lua("io.write((package.searchpath('weir.cli', package.path)))"))
  end)

  with_luarocks("installs the C modules, which load", function()
    for _, name in ipairs({ "core", "uv" }) do
      local path = lua(("io.write(package.searchpath('weir.%s', package.cpath) or '')"):format(name))
      assert.equal(("%s/lib/lua/5.4/weir/%s.so"):format(tree, name), path)
      assert.equal("table", lua(("require('luv') io.write(type(require('weir.%s')))"):format(name)))
    end
  end)

  with_luarocks("installs the command", function()
    local output = shell.check(("cd / && HOME=%s %s/bin/weir --version"):format(shell.quote(dir), shell.quote(tree)))
    assert.matches("^weir " .. version:gsub("%p", "%%%0") .. "\n", output)
  end)
end)

describe("cmake --install", function()
  it("makes a command that finds its modules by itself", function()
    local build = os.getenv("WEIR_BUILD") or "build/release"
    local dir, remove = shell.scratch()
    shell.check(("cmake --install %s --prefix %s"):format(shell.quote(build), shell.quote(dir)))
    shell.check(("mkdir %s/links && ln -s ../bin/weir %s/links/weir"):gsub("%%s", shell.quote(dir)))
    for _, path in ipairs({ "bin/weir", "links/weir" }) do
      local output = shell.check(("cd / && env -u LUA_PATH -u LUA_CPATH -u WEIR_BUILD %s/%s --version"):format(
        shell.quote(dir), path))
      assert.matches("^weir " .. version:gsub("%p", "%%%0") .. "\n", output)
    end
    remove()
  end)
end)
