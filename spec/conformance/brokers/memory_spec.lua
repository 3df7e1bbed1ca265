local conformance = require("weir.conformance")
local memory = require("weir.broker.memory")

-- Everything that is wanted of a descriptor is an option of a topic.
local function descriptor(name, wanted)
  local spec = { name = name }
  for option, value in pairs(wanted) do
    spec[option] = value
  end
  return spec
end

local BAD = { "", ".", "a..b", "a.*", "a.>" }

conformance.busted({
  name = "memory",
  make = function()
    return memory.new({ max_payload = 65536 })
  end,
  descriptor = descriptor,
  timeouts = { delay = 0.4, negative = 0.03 },
  max_payload = 65536,
  bad_destinations = BAD,
})

conformance.busted({
  name = "memory with retention",
  make = function()
    return memory.new({ retention = { messages = 1000 } })
  end,
  descriptor = descriptor,
}, { only = "^seeking" })

-- A directory for all checks of this file; the brokers come one after the other.
local dir = os.tmpname()
os.remove(dir)

local DURABLE = [[
return {
  make = function()
    return require("weir.broker.memory").new({ dir = %q })
  end,
  descriptor = function(name, wanted)
    local spec = { name = name }
    for option, value in pairs(wanted) do
      spec[option] = value
    end
    return spec
  end,
}]]

teardown(function()
  os.execute("rm -rf '" .. dir .. "'")
end)

conformance.busted({
  name = "memory in a directory",
  make = function()
    return memory.new({ dir = dir })
  end,
  descriptor = descriptor,
  timeouts = { delay = 0.4, negative = 0.03 },
  in_process = false,
  program = DURABLE:format(dir),
})
