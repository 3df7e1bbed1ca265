--- A process that takes messages and is killed.
-- @module weir.conformance.child

local luv = require("luv")
local runtime = require("weir.runtime")
local tasks = require("weir.task")

local child = {}

-- What the process does. %s: the program that makes the options, the name, what is wanted of the descriptor.
local PROGRAM = [[
local function load_options()
%s
end
local options = require("weir.conformance.options").check(load_options())
local weir = require("weir")
weir.run(function()
  local broker = options.make()
  assert(broker:connect(10))
  local subscription = assert(broker:subscribe(options.descriptor(%q, %s), 10))
  local publisher = broker:publisher()
  local number = 0
  while true do
    local message = assert(subscription:next(60))
    number = number + 1
    if message.payload == "1" then
      assert(message:ack())
      assert(publisher:flush(10))
    end
    io.stdout:write("holds ", message.payload, "\n")
    io.stdout:flush()
    if message.payload == "2" then
      while true do
        weir.sleep(60)
      end
    end
  end
end)
]]

local function literal(wanted)
  local parts = {}
  for name, value in pairs(wanted) do
    parts[#parts + 1] = ("[%q] = %s"):format(name, type(value) == "string" and ("%q"):format(value) or tostring(value))
  end
  return "{ " .. table.concat(parts, ", ") .. " }"
end

local Child = {}
Child.__index = Child

-- The interpreter that runs this program.
local function interpreter()
  local arguments = rawget(_G, "arg") or {}
  local i = 0
  while arguments[i - 1] do
    i = i - 1
  end
  local name = arguments[i]
  return name and name:find("lua", 1, true) and not name:find("%.lua$") and name or luv.exepath()
end

local function environment()
  local list = {}
  local all = luv.os_environ()
  all.LUA_PATH, all.LUA_CPATH = package.path, package.cpath
  for name, value in pairs(all) do
    if not name:find("^LUA_C?PATH_") then
      list[#list + 1] = name .. "=" .. value
    end
  end
  return list
end

--- Starts the process.
-- @param t the check
-- @tparam string program Lua text that returns options
-- @tparam string name to subscribe to
-- @tparam table wanted of the descriptor
function child.start(t, program, name, wanted)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(PROGRAM:format(program, name, literal(wanted)))
  file:close()
  local self = setmetatable({ t = t, text = "", path = path, waiter = nil }, Child)
  local out, err = luv.new_pipe(false), luv.new_pipe(false)
  self.handle = assert(luv.spawn(interpreter(), {
    args = { path },
    stdio = { nil, out, err },
    env = environment(),
  }, function(status, signal)
    self.status = ("status %d, signal %d"):format(status, signal)
    self.handle:close()
  end))
  for _, pipe in ipairs({ out, err }) do
    pipe:read_start(function(_, bytes)
      if bytes then
        self.text = self.text .. bytes
      else
        pipe:close()
      end
    end)
  end
  t:finally(function()
    self:kill()
    os.remove(path)
  end)
  return self
end

--- Waits until it has written a text.
function Child:await(text, seconds)
  local deadline = runtime.now() + seconds
  while not self.text:find(text, 1, true) do
    if self.status or runtime.now() > deadline then
      self.t:fail("the other process did not say %q (%s); it wrote: %s", text, self.status or "it runs", self.text)
    end
    tasks.sleep(0.01)
  end
end

--- Kills it, without warning, and waits until it is dead.
function Child:kill()
  if not self.status then
    self.handle:kill("sigkill")
  end
  while not self.status do
    tasks.sleep(0.005)
  end
end

return child
