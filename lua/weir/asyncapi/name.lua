--- Names of destinations as ids and addresses of a document.
-- @module weir.asyncapi.name

local name = {}

--- An id of a name: letters, digits, dots, "-" and "_" stay; any other byte becomes `_` and its two hex digits.
--
-- Two names never have one id, and the id of a name depends on nothing else: it stays when others come and go. To
-- that end, a `_` that would look like an escape, or like the `_-` that joins parts, is escaped, too. Only credentials
-- in an address are left out.
-- @tparam string value
-- @treturn string of the characters that AsyncAPI allows in keys
function name.id(value)
  value = name.without_credentials(value)
  value = value:gsub("_([%dA-F][%dA-F])", "_5F%1"):gsub("_%-", "_5F-"):gsub("_$", "_5F")
  return (value:gsub("[^%w.%-_]", function(char)
    return ("_%02X"):format(char:byte())
  end))
end

--- An id of several names, which no single name has.
-- @tparam string ... names
function name.join(...)
  local parts = {}
  for i = 1, select("#", ...) do
    parts[i] = name.id((select(i, ...)))
  end
  return table.concat(parts, "_-")
end

local function add(parameters, key, value)
  parameters[key] = value
  return "{" .. key .. "}"
end

local function add_literal(parameters, key, literal)
  return add(parameters, key, { description = "These characters, braces included.", enum = { literal } })
end

--- The address of a channel, in which wildcards are parameters: `orders.*.new` is `orders.{token1}.new`.
--
-- Braces mean parameters in an address. Those of a name become a parameter with one value.
-- @tparam string destination
-- @tparam[opt] boolean pattern whether `*` and `>` are wildcards
-- @treturn string the address
-- @treturn ?table the parameters, by name; nil when there are none
function name.address(destination, pattern)
  local parameters = {}
  if pattern then
    local tokens, count = {}, 0
    for token in (destination .. "."):gmatch("([^.]*)%.") do
      if token == "*" then
        count = count + 1
        token = add(parameters, "token" .. count, { description = "One token, without dots." })
      elseif token == ">" then
        token = add(parameters, "rest", { description = "One token or more, with dots between them." })
      elseif token:find("[{}]") then
        token = add_literal(parameters, "literal" .. #tokens + 1, token)
      end
      tokens[#tokens + 1] = token
    end
    destination = table.concat(tokens, ".")
  else
    destination = destination:gsub("{.*}", function(literal)
      return add_literal(parameters, "literal", literal)
    end, 1)
  end
  return destination, next(parameters) and parameters or nil
end

--- A key that is not taken: the wanted one, or one with a number.
-- @tparam table taken keys that are; gets the new one
-- @tparam string wanted
-- @param value what is kept under it there
-- @treturn string
function name.unused(taken, wanted, value)
  local key, number = wanted, 1
  while taken[key] ~= nil do
    number = number + 1
    key = wanted .. "_-" .. number
  end
  taken[key] = value
  return key
end

-- Headers whose values are not for documents.
local SECRET = { "auth", "token", "secret", "password", "cookie", "key", "credential" }

--- Whether the value of a header may say who somebody is.
function name.is_secret(header)
  header = header:lower()
  for _, word in ipairs(SECRET) do
    if header:find(word, 1, true) then
      return true
    end
  end
  return false
end

--- A text without the user and the password of the addresses in it, and without the values in their queries that may
-- say who somebody is.
function name.without_credentials(value)
  if not value:find("://", 1, true) then
    return value
  end
  value = value:gsub("(%a[%w+.-]*://)[^/%s?#]*@", "%1")
  return (value:gsub("([?&])([^?&=%s#]+)=([^&%s#]*)", function(mark, parameter)
    return name.is_secret(parameter) and mark .. parameter .. "=*" or nil
  end))
end

return name
