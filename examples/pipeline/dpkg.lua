-- What the pipeline knows of Debian's package manager: the lines of its log, and the sections of its packages.
local dpkg = {}

local ACTIONS = { "install", "upgrade", "configure", "trigproc", "disappear", "remove", "purge", "status" }

local known = { startup = true, conffile = true }
for _, action in ipairs(ACTIONS) do
  known[action] = true
end

dpkg.ACTIONS = ACTIONS

-- A codec of our own: so parsing is decoding, and what is no line of the log is a failure "decode", which goes to the
-- dead letters like any other that cannot be read.
dpkg.codec = {
  name = "dpkg",
  content_type = "text/x-dpkg-log",

  encode = function(line)
    return line
  end,

  -- "2026-09-22 04:55:18 upgrade libc6:amd64 2.36-9 2.36-10", "... status installed libc6:amd64 2.36-10"
  decode = function(line)
    local day, time, action, rest = line:match("^(%d%d%d%d%-%d%d%-%d%d) (%d%d:%d%d:%d%d) (%l+) ([ -~]+)$")
    if not known[action] then
      return nil, "this is no line of dpkg's log: " .. line:sub(1, 80)
    end
    local event = { time = day .. "T" .. time, action = action }
    if action == "status" then
      event.state, rest = rest:match("^(%S+) ?(.*)$")
    end
    event.package, event.version = rest:match("^(%S+) (%S+)")
    if event.version == "<none>" then
      -- "install" has two versions: there is none so far, and the one that comes
      event.version = rest:match("^%S+ %S+ ([^<%s]%S*)$")
    end
    return event
  end,
}

-- Whether a line is about the whole run, or a file, and not about a package.
function dpkg.is_remark(_, event)
  return event.action == "startup" or event.action == "conffile"
end

-- Where the system does not say in which section a package is.
local GUESSES = { { "^lib.*%-dev$", "libdevel" }, { "^lib", "libs" }, { "^python3?%-", "python" }, { ".", "utils" } }

-- The catalogue: package to section, from the list of what is installed here (`path`, if there is such a file).
function dpkg.catalogue(path)
  local sections = {}
  local file = io.open(path)
  local package
  for line in file and file:lines() or function() end do
    package = line:match("^Package: (%S+)") or package
    local section = line:match("^Section: (%S+)")
    if package and section then
      sections[package] = section:match("[^/]+$")
    end
  end
  if file then
    file:close()
  end
  return function(name)
    name = name:match("^[^:]+") -- without the architecture
    local section = sections[name]
    for _, guess in ipairs(GUESSES) do
      section = section or name:find(guess[1]) and guess[2]
    end
    return section
  end
end

return dpkg
