-- What became of each line of this run. In the end everything must add up.
local weir = require("weir")

local ledger = {
  lines = 0, -- that were published
  all_in = false, -- there are no more
  remarks = 0, -- not about a package
  routed = 0,
  disorder = 0, -- came after a later line about the same package
  stored = 0, -- different lines
  invalid = 0, -- dead letters that nothing can cure
  dead = 0, -- dead letters that can be tried again
  twice = 0, -- came once more: at least once is what brokers promise
  strangers = 0, -- of an earlier run that was cut short
  replayed = 0,
}

local last = {} -- the last line of each package
local done = {}

-- Names this run among others that used the same broker.
ledger.run = ("%d-%04x"):format(os.time(), math.random(0, 0xffff))

-- A change of a package comes by; what comes for the second time is in no order.
function ledger.route(change, attempt)
  if change.run ~= ledger.run then
    return
  end
  ledger.routed = ledger.routed + 1
  if attempt == 1 and change.line <= (last[change.package] or 0) then
    ledger.disorder = ledger.disorder + 1
  end
  last[change.package] = math.max(change.line, last[change.package] or 0)
end

local function once(line, name)
  if done[line] then
    ledger.twice = ledger.twice + 1
  else
    done[line] = true
    ledger[name] = ledger[name] + 1
  end
end

function ledger.remark(run, line)
  if run == ledger.run then
    once(line, "remarks")
  else
    ledger.strangers = ledger.strangers + 1
  end
end

function ledger.store(change)
  if change.run == ledger.run then
    once(change.line, "stored")
  else
    ledger.strangers = ledger.strangers + 1
  end
end

-- A dead letter goes back to where it came from.
function ledger.replay(letter)
  if letter.headers.run == ledger.run then
    ledger.replayed, ledger.dead = ledger.replayed + 1, ledger.dead - 1
  end
end

-- Dead letters of this run in one place; `before` when nobody can say.
local function count(broker, name, before)
  local letters = weir.dead_letters(broker, name):list(math.huge)
  if not letters then
    return before
  end
  local number = 0
  for _, letter in ipairs(letters) do
    number = number + (letter.headers.run == ledger.run and 1 or 0)
  end
  return number
end

-- Looks how many dead letters there are: `invalid` lines, and `dead` ones, which can be tried again.
function ledger.look(broker)
  ledger.invalid = count(broker, "pipeline.invalid", ledger.invalid)
  ledger.dead = count(broker, "pipeline.dead", ledger.dead)
end

-- Lines of which it is known what became of them.
function ledger.settled()
  return ledger.remarks + ledger.stored + ledger.invalid + ledger.dead
end

-- What is wrong with the sums, or nil.
function ledger.flaw()
  if ledger.settled() ~= ledger.lines then
    return ("%d lines went in, %d came out"):format(ledger.lines, ledger.settled())
  elseif ledger.disorder > 0 then
    return ("%d changes were out of order"):format(ledger.disorder)
  elseif ledger.dead > 0 then
    return ("%d dead letters are left"):format(ledger.dead)
  end
end

-- The sums, for people.
function ledger.sums()
  local text = "%d lines = %d stored + %d invalid + %d remarks + %d dead; %d dead letters were replayed, "
    .. "%d changes out of order, %d came twice"
  return text:format(ledger.lines, ledger.stored, ledger.invalid, ledger.remarks, ledger.dead, ledger.replayed,
    ledger.disorder, ledger.twice)
end

return ledger
