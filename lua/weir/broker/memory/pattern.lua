--- Names of topics and patterns over them: tokens split by dots, `*` for one token, `>` at the end for one or more.
-- @module weir.broker.memory.pattern

local pattern = {}

local find, sub = string.find, string.sub

--- The longest name that the broker takes, in bytes.
pattern.MAX_NAME = 1024

--- Splits a name at its dots.
-- @tparam string name
-- @treturn table its tokens; "a..b" has an empty one
function pattern.split(name)
  local tokens, count, from = {}, 0, 1
  while true do
    local dot = find(name, ".", from, true)
    count = count + 1
    if not dot then
      tokens[count] = sub(name, from)
      return tokens
    end
    tokens[count] = sub(name, from, dot - 1)
    from = dot + 1
  end
end

-- What is wrong with the length or the tokens.
local function flaw(name, tokens)
  if name == "" then
    return "a name must not be empty"
  elseif #name > pattern.MAX_NAME then
    return ("a name has at most %d bytes, not %d"):format(pattern.MAX_NAME, #name)
  end
  if find(name, "\0", 1, true) then
    return ("'%s' has a zero byte"):format((name:gsub("%z", "\\0")))
  end
  for _, token in ipairs(tokens) do
    if token == "" then
      return ("'%s' has an empty token: no dot at the ends, nor two in a row"):format(name)
    end
  end
end

--- Reads a name that may be a pattern.
-- @tparam string name
-- @treturn ?table its tokens; nil when something is wrong
-- @return whether it is a pattern; or what is wrong
function pattern.parse(name)
  local tokens = pattern.split(name)
  local wrong = flaw(name, tokens)
  if wrong then
    return nil, wrong
  end
  local wild = false
  for i, token in ipairs(tokens) do
    if token == ">" and i < #tokens then
      return nil, ("'%s': '>' stands for the rest, so it must be the last token"):format(name)
    end
    wild = wild or token == "*" or token == ">"
  end
  return tokens, wild
end

--- Reads a name to publish to: no pattern.
-- @tparam string name
-- @treturn ?table its tokens; nil when something is wrong
-- @treturn ?string what is wrong
function pattern.destination(name)
  local tokens, wild = pattern.parse(name)
  if tokens and wild then
    return nil, ("'%s' is a pattern: only subscriptions may have '*' and '>'"):format(name)
  end
  return tokens, not tokens and wild or nil
end

--- Whether a pattern has the name that these tokens are of.
-- @tparam table wanted tokens of the pattern
-- @tparam table tokens of the name
-- @treturn boolean
function pattern.matches(wanted, tokens)
  local count = #wanted
  for i = 1, count do
    local each, token = wanted[i], tokens[i]
    if not token then
      return false
    elseif each == ">" then
      return true
    elseif each ~= "*" and each ~= token then
      return false
    end
  end
  return #tokens == count
end

return pattern
