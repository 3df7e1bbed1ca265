--- The lines of dpkg's log as records.
local dpkg = {}

-- action -> the names of its words behind date, time and action
local fields = {
  startup = { "kind", "command" },
  status = { "state", "package", "version" },
  conffile = { "file", "decision" },
}
for _, action in ipairs({ "install", "upgrade", "configure", "trigproc", "disappear", "remove", "purge" }) do
  fields[action] = { "package", "version", "available" }
end

--- Parses one line.
-- @tparam string line any bytes
-- @treturn table `date`, `time`, `action`, and by the action `package`, `version`, `available`,
--   `state`, `kind`, `command`, `file`, `decision`; or only `text`, when it is no line of dpkg's
function dpkg.parse(line)
  local date, time, action, rest = line:match("^(%d%d%d%d%-%d%d%-%d%d) (%d%d:%d%d:%d%d) (%l+) ([ -~]+)$")
  local names = fields[action]
  if not names then
    return { text = line }
  end
  local record, count = { date = date, time = time, action = action }, 0
  for word in rest:gmatch("%S+") do
    count = count + 1
    if not names[count] then
      return { text = line }
    end
    record[names[count]] = word
  end
  if count < 2 then
    return { text = line }
  end
  return record
end

--- Whether a table has what `parse` gives: the words that `format` needs are there, as strings.
function dpkg.is_record(record)
  if record.text then
    return type(record.text) == "string"
  end
  for _, name in ipairs({ "date", "time", "action" }) do
    if type(record[name]) ~= "string" then
      return false
    end
  end
  for _, name in ipairs(fields[record.action] or {}) do
    if record[name] and type(record[name]) ~= "string" then
      return false
    end
  end
  return true
end

--- A record as a line for people.
function dpkg.format(record)
  if record.text then
    return record.text
  end
  local words = { record.date, record.time, record.action }
  for _, name in ipairs(fields[record.action] or {}) do
    words[#words + 1] = record[name]
  end
  return table.concat(words, " ")
end

return dpkg
