-- The world outside, as it is: a store that fails now and then, and of which one section is closed.
local store = { closed = {}, kept = 0 }

local tries = {} -- puts that failed, by id

-- Some of the puts fail the first time, and some the second time, too.
local function hiccups(line)
  return line % 97 == 0 and 2 or line % 17 == 0 and 1 or 0
end

-- Puts an entry: true; or nil and an error.
function store.put(entry)
  if store.closed[entry.section] then
    return nil, { code = "section_closed", message = ("the section '%s' of the store is closed"):format(entry.section) }
  end
  local failed = tries[entry.id] or 0
  if failed < hiccups(entry.line) then
    tries[entry.id] = failed + 1
    return nil, { code = "unavailable", message = "the store does not answer" }
  end
  tries[entry.id] = nil
  store.kept = store.kept + 1
  return true
end

return store
