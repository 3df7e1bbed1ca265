local shell = require("spec.house.shell")

-- A copy of the script in a tree of its own; apt-get and dpkg-deb are stand-ins, and the PATH has little else.
describe("spec/promtool", function()
  local root, bin, remove

  local function stand_in(name, body)
    shell.write(bin .. "/" .. name, "#!/bin/sh\n" .. body .. "\n", true)
  end

  local function promtool(words)
    return shell.run(("PATH=%s %s/sh %s/spec/promtool %s"):format(shell.quote(bin), shell.quote(bin),
      shell.quote(root), words or ""))
  end

  before_each(function()
    root, remove = shell.scratch()
    bin = root .. "/bin"
    shell.check(("mkdir %s/bin %s/spec && cp spec/promtool %s/spec"):format(root, root, root))
    for name in ("sh dirname mktemp rm mkdir mv id"):gmatch("%S+") do
      shell.check(("ln -s \"$(command -v %s)\" %s/%s"):format(name, bin, name))
    end
    stand_in("apt-cache", "")
    stand_in("apt-get", ": >prometheus_2_amd64.deb; echo fetching >>" .. root .. "/log")
    stand_in("dpkg-deb", "mkdir usr usr/bin && : >usr/bin/promtool && /bin/chmod +x usr/bin/promtool")
  end)

  after_each(function()
    remove()
  end)

  it("says nothing, with status 1, where there is none", function()
    local status, output = promtool()
    assert.equal(1, status)
    assert.equal("", output)
  end)

  it("fetches it once, and finds it then", function()
    for _ = 1, 2 do
      assert.equal(0, (promtool("fetch")))
    end
    assert.equal("fetching\n", shell.read(root .. "/log"))
    local status, output = promtool()
    assert.equal(0, status)
    assert.equal(root .. "/build/tools/promtool\n", output)
  end)

  it("fetches none where there is one in the path, or no Debian", function()
    os.remove(bin .. "/dpkg-deb")
    local status, output = promtool("fetch")
    assert.equal("0 ", status .. " " .. output)
    stand_in("dpkg-deb", "exit 1")
    stand_in("promtool", "")
    status, output = promtool("fetch")
    assert.equal("0 ", status .. " " .. output)
    assert.is_nil(shell.read(root .. "/log"))
  end)

  it("says why it could not be fetched, and that specs are skipped, and goes on", function()
    stand_in("apt-get", "echo 'E: no network' >&2; exit 100")
    local status, output = promtool("fetch")
    assert.equal(0, status)
    assert.matches("E: no network\npromtool could not be fetched: the specs that need it will be skipped\n$", output)
    assert.equal(1, (promtool()))
  end)

  it("brings the lists of packages up to date, as root, where they do not have it", function()
    stand_in("apt-cache", "exit 100")
    stand_in("id", "echo 0")
    stand_in("apt-get", ('echo "$*" >>%s/log; : >prometheus_2_amd64.deb'):format(root))
    assert.equal(0, (promtool("fetch")))
    assert.matches("^update %-q\n.*download prometheus\n$", shell.read(root .. "/log"))
  end)

  it("refuses a word that it does not know", function()
    local status, output = promtool("fetsh")
    assert.equal(2, status)
    assert.matches("unknown word 'fetsh'", output)
  end)
end)
