--- Which of the known names was meant by one that is not known.
-- @module weir.nearest

-- Longer words are no misspelt names.
local LONGEST = 64

-- Edits (a character put in, left out or replaced, or two neighbours swapped) from a to b.
local function distance(a, b)
  local rows = { [0] = {} }
  for j = 0, #b do
    rows[0][j] = j
  end
  for i = 1, #a do
    rows[i] = { [0] = i }
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      local best = math.min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + cost)
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        best = math.min(best, rows[i - 2][j - 2] + 1)
      end
      rows[i][j] = best
    end
  end
  return rows[#a][#b]
end

-- How far a word may be from a name: a third of its letters, or half where both begin and end alike
-- ("messagepack" is near "msgpack").
local function tolerance(word, name)
  local alike = #word > 3 and word:sub(1, 1) == name:sub(1, 1) and word:sub(-1) == name:sub(-1)
  return math.max(1, math.floor(#name / 3), alike and math.floor(#word / 2) or 0)
end

--- The one of `names` that was most likely meant by `word`; the beginning of a name means it.
-- @tparam string word
-- @tparam {string,...} names
-- @treturn ?string nil when none is near
return function(word, names)
  if type(word) ~= "string" or #word > LONGEST then
    return nil
  end
  word = word:lower()
  local best, least
  for _, name in ipairs(names) do
    local edits = distance(word, name:lower())
    if #word >= 2 and name:sub(1, #word) == word then
      edits = 0
    end
    if edits <= tolerance(word, name) and (not best or edits < least) then
      best, least = name, edits
    end
  end
  return best
end
