--- What the specs of the memory broker share.
local support = {}

local memory = require("weir.broker.memory")
local new_clock = require("weir.test.clock")

--- A connected broker; its clock stands still unless `options.clock` is false.
function support.broker(options)
  local with = { clock = new_clock(1000) }
  for name, value in pairs(options or {}) do
    with[name] = value
  end
  with.clock = with.clock or nil
  local broker = memory.new(with)
  assert(broker:connect())
  return broker, broker.clock
end

--- The payloads of everything that waits, joined; each is acknowledged.
function support.drain(subscription)
  local list = {}
  local message = subscription:try_next()
  while message do
    list[#list + 1] = message.payload
    assert(message:ack())
    message = subscription:try_next()
  end
  return table.concat(list, " ")
end

--- Publishes each word of a text.
function support.publish(publisher, destination, text)
  for word in text:gmatch("%S+") do
    assert(publisher:publish(destination, word))
  end
end

--- Runs a child of this folder until it has printed so many lines, then kills it with SIGKILL.
-- @string command its name and arguments
-- @int lines
-- @tparam function said called with the letter and the number of each line; the last one may be cut
function support.kill(command, lines, said)
  local pipe = assert(io.popen(("exec lua5.4 spec/lua/broker/memory/%s 2>&1"):format(command)))
  local greeting = pipe:read("l") or ""
  local pid = assert(tonumber(greeting:match("^pid (%d+)$")), greeting)
  local count = 0
  for line in pipe:lines() do
    local kind, number = line:match("^(%l) (%d+)$")
    if kind then
      said(kind, tonumber(number))
    elseif not line:find("^%l? ?%d*$") then
      error("the child failed: " .. line .. pipe:read("a"))
    end
    count = count + 1
    if count == lines then
      os.execute("kill -9 " .. pid)
    end
  end
  pipe:close()
  assert(count >= lines)
end

return support
