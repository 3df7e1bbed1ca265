--- Where a server of HTTP listens, as people write it.
--
-- - `http://127.0.0.1:8080`, `http://[::1]:8080`: as browsers have it; port 0 takes any that is free
-- - `localhost:8080`: the same; `:8080`, `8080`: on 127.0.0.1
-- - `tcp://127.0.0.1:8080`: as `weir.network` has it
-- - `unix:///run/shop.sock`, or `http+unix:///run/shop.sock`, as servers write it
-- @module weir.http.address

local errors = require("weir.errors")
local url = require("weir.runtime.url")

local address = {}

-- Bytes of an address that is none, as errors show it.
local SHOWN = 80

local function spell_out(text)
  local port = text:match("^:?(%d+)$")
  if port then
    return "tcp://127.0.0.1:" .. port
  elseif text:find("^[%w._-]+:%d+$") or text:find("^%[[%x:.]+%]:%d+$") then
    return "tcp://" .. text
  end
  local rest = text:match("^[Hh][Tt][Tt][Pp]://(.*)$")
  if rest then
    return "tcp://" .. rest:gsub("/$", "")
  end
  return (text:gsub("^http%+unix:", "unix:"))
end

--- Reads one.
-- @tparam string text
-- @treturn ?string the address as `runtime.listen` takes it
-- @return or an error with the code "bad_url"
function address.read(text)
  local spelled = spell_out(text)
  local target, err = url.parse(spelled)
  if target and target.scheme ~= "mem" then
    return spelled
  end
  local why = err and err.message:match("^bad URL .-\": ([^;]*)") or "mem:// is within this process"
  why = why:gsub(", unix://path or mem://name$", " or unix://path"):gsub("tcp://", "http://")
  local message = "%q is no address to listen on; give one such as http://127.0.0.1:8000 (%s)"
  return nil, errors.new("bad_url", message:format(text:sub(1, SHOWN), why), { url = text })
end

--- What was read, as browsers have it.
-- @tparam string read
-- @treturn string
function address.shown(read)
  return (read:gsub("^tcp:", "http:"):gsub("^unix:", "http+unix:"))
end

return address
