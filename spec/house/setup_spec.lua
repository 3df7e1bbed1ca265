local shell = require("spec.house.shell")

-- apt-get, sudo and id are stand-ins that come first in PATH: nothing is ever installed here.
describe("spec/setup", function()
  local bin, remove, has_dpkg
  local log

  local function stand_in(name, body)
    shell.write(bin .. "/" .. name, "#!/bin/sh\n" .. body .. "\n", true)
  end

  local function setup(job, options)
    stand_in("id", "echo " .. (options.uid or 0))
    return shell.run(("PATH=%s:$PATH WEIR_EXTRA_PACKAGES=%s spec/setup %s"):format(
      shell.quote(bin), shell.quote(options.extra or ""), job))
  end

  before_each(function()
    bin, remove = shell.scratch()
    log = bin .. "/log"
    stand_in("apt-get", ('echo "apt-get $*" >>%s'):format(shell.quote(log)))
    stand_in("sudo", "exit 1")
    has_dpkg = shell.run("command -v dpkg-query") == 0
  end)

  after_each(function()
    remove()
  end)

  local function on_debian(name, body)
    it(name, function()
      if not has_dpkg then
        return pending("this is not a Debian system")
      end
      body()
    end)
  end

  on_debian("does nothing when nothing is missing", function()
    local status, output = setup("demo", { uid = 1000 })
    assert.equal("", output)
    assert.equal(0, status)
    assert.is_nil(shell.read(log))
  end)

  on_debian("installs exactly the missing packages as root", function()
    local status, output = setup("demo", { extra = "weir-no-such weir-nor-this" })
    assert.equal(0, status, output)
    assert.equal("apt-get update -q\napt-get install -y --no-install-recommends "
      .. "weir-no-such weir-nor-this --no-remove\n", shell.read(log))
  end)

  on_debian("takes either package where two do, and else installs the first", function()
    assert.equal(0, (setup("demo", { extra = "weir-no-such|lua5.4" })))
    assert.is_nil(shell.read(log))
    assert.equal(0, (setup("demo", { extra = "weir-no-such|weir-nor-this" })))
    assert.matches("recommends weir%-no%-such %-%-no%-remove\n$", shell.read(log))
  end)

  on_debian("goes through sudo where it asks for no password", function()
    stand_in("sudo", ('echo "sudo $*" >>%s; [ "$1" = -n ] || "$@"'):format(shell.quote(log)))
    local status = setup("demo", { uid = 1000, extra = "weir-no-such" })
    assert.equal(0, status)
    assert.matches("sudo apt%-get update %-q\n", shell.read(log))
    assert.matches("\napt%-get install %-y %-%-no%-install%-recommends weir%-no%-such ",
      shell.read(log))
  end)

  on_debian("prints the command and stops without root and sudo", function()
    local status, output = setup("test", { uid = 1000, extra = "weir-no-such" })
    assert.equal(1, status)
    assert.matches("\n  apt%-get install %-y %-%-no%-install%-recommends [^\n]*weir%-no%-such\n", output)
    assert.is_nil(shell.read(log))
  end)

  on_debian("stops when apt-get fails", function()
    stand_in("apt-get", "exit 100")
    local status, output = setup("demo", { extra = "weir-no-such" })
    assert.equal(1, status)
    assert.matches("The installation failed", output)
  end)

  on_debian("makes `make demo` and `make test` stop before they build", function()
    for _, target in ipairs({ "demo", "test" }) do
      stand_in("id", "echo 1000")
      local status, output = shell.run(
        ("PATH=%s:$PATH WEIR_EXTRA_PACKAGES=weir-no-such make %s SPEC=no-such-spec"):format(shell.quote(bin), target))
      assert.equal(2, status)
      assert.matches("apt%-get install .*weir%-no%-such", output)
      assert.not_matches("build", output)
    end
  end)

  it("refuses a job that it does not know", function()
    local status, output = setup("tset", {})
    assert.equal(2, status)
    assert.matches("unknown job 'tset'", output)
  end)

  describe("where there is no dpkg", function()
    local function link(names)
      for name in names:gmatch("%S+") do
        shell.check(("ln -sf \"$(command -v %s)\" %s/%s"):format(name, shell.quote(bin), name))
      end
    end

    local function run()
      return shell.run(("PATH=%s %s/sh spec/setup demo"):format(shell.quote(bin), shell.quote(bin)))
    end

    before_each(function()
      link("sh dirname tr cut sed cc cmake ninja pkg-config lua5.4")
    end)

    it("goes on if the commands are there", function()
      local status, output = run()
      assert.equal("", output)
      assert.equal(0, status)
    end)

    it("names the commands that are missing", function()
      os.remove(bin .. "/ninja")
      os.remove(bin .. "/cmake")
      local status, output = run()
      assert.equal(1, status)
      assert.matches("not installed: cmake ninja\n", output)
    end)
  end)
end)
