--- Random sequences of everything that can happen to the messages of a group, against a model that is a plain list.
local helper = require("spec.lua.broker.memory.support")
local memory = require("weir.broker.memory")

local SEEDS, STEPS = 12, 600

-- A group with some subscriptions, what it should have waiting, and what each subscription has taken.
local function new_world(seed)
  math.randomseed(seed)
  local broker, clock = helper.broker({ capacity = { messages = 300 } })
  local world = { broker = broker, clock = clock, publisher = broker:publisher(), sent = 0, done = {} }
  world.spec = memory.topic("a", {
    group = "g",
    durable = true,
    overflow = "reject",
    prefetch = seed % 3 == 0 and 7 or nil,
    ack_wait = seed % 4 == 0 and 50 or nil,
  })
  world.subscriptions = { broker:subscribe(world.spec), broker:subscribe(world.spec) }
  world.taken = { {}, {} }
  world.waiting = {} -- numbers in the order in which they should come
  world.delayed = {} -- { number, due }
  world.attempts = {}
  return world
end

local function held(world)
  return #world.waiting + #world.delayed + #world.taken[1] + #world.taken[2]
end

local steps = {}

function steps.publish(world)
  for _ = 1, math.random(1, 40) do
    local number = world.sent + 1
    local headers = math.random(3) == 1 and { n = tostring(number) } or nil
    local ok, err = world.publisher:publish("a", tostring(number), headers)
    if held(world) < 300 then
      assert(ok, err)
      world.sent = number
      table.insert(world.waiting, number)
      world.attempts[number] = 1
    else
      assert.equal("full", err.code)
    end
  end
end

function steps.take(world)
  local who = math.random(2)
  local subscription, taken = world.subscriptions[who], world.taken[who]
  for _ = 1, math.random(1, 40) do
    local message, err = subscription:try_next()
    if #world.waiting == 0 or world.spec.prefetch and #taken >= world.spec.prefetch then
      assert.equal("empty", err.code)
      return
    end
    local number = table.remove(world.waiting, 1)
    assert.equal(tostring(number), message.payload)
    assert.equal(world.attempts[number], message.attempts)
    assert.equal("a", message.destination)
    table.insert(taken, { number = number, message = message, at = world.clock.now() })
  end
end

local function any_taken(world)
  local taken = world.taken[math.random(2)]
  if #taken > 0 then
    return table.remove(taken, math.random(#taken))
  end
end

function steps.ack(world)
  for _ = 1, math.random(1, 30) do
    local one = any_taken(world)
    if one then
      assert.is_true(one.message:ack())
      assert.equal("settled", select(2, one.message:ack()).code)
      assert.is_nil(world.done[one.number])
      world.done[one.number] = true
    end
  end
end

function steps.give_back(world)
  local one = any_taken(world)
  if one then
    assert.is_true(one.message:nack())
    world.attempts[one.number] = world.attempts[one.number] + 1
    table.insert(world.waiting, 1, one.number)
  end
end

function steps.drop(world)
  local one = any_taken(world)
  if one then
    assert.is_true(one.message:nack({ requeue = false }))
    world.done[one.number] = true
  end
end

function steps.delay(world)
  local one = any_taken(world)
  if one then
    local delay = math.random(1, 20) / 2
    assert.is_true(one.message:nack({ delay = delay }))
    world.attempts[one.number] = world.attempts[one.number] + 1
    table.insert(world.delayed, { number = one.number, due = world.clock.now() + delay })
  end
end

-- What is due comes in the order of the times, and of the messages where these are the same: behind what came back
-- before, in front of what was never taken.
function steps.advance(world)
  local target = world.clock.now() + math.random(1, 15) / 2
  world.clock.advance(target - world.clock.now())
  local due = {}
  for i = #world.delayed, 1, -1 do
    if world.delayed[i].due <= target then
      table.insert(due, table.remove(world.delayed, i))
    end
  end
  for who = 1, 2 do
    for i = #world.taken[who], 1, -1 do
      local one = world.taken[who][i]
      if world.spec.ack_wait and one.at + world.spec.ack_wait <= target then
        table.remove(world.taken[who], i)
        assert.equal("lost", select(2, one.message:ack()).code)
        world.attempts[one.number] = world.attempts[one.number] + 1
        table.insert(due, { number = one.number, due = one.at + world.spec.ack_wait })
      end
    end
  end
  table.sort(due, function(x, y)
    return x.due < y.due or x.due == y.due and x.number < y.number
  end)
  local place = 1
  while world.waiting[place] and world.attempts[world.waiting[place]] > 1 do
    place = place + 1
  end
  for i, one in ipairs(due) do
    table.insert(world.waiting, place + i - 1, one.number)
  end
end

function steps.replace(world)
  local who = math.random(2)
  world.subscriptions[who]:close()
  table.sort(world.taken[who], function(a, b)
    return a.number < b.number
  end)
  for i, one in ipairs(world.taken[who]) do
    assert.equal("lost", select(2, one.message:ack()).code)
    world.attempts[one.number] = world.attempts[one.number] + 1
    table.insert(world.waiting, i, one.number)
  end
  world.taken[who] = {}
  world.subscriptions[who] = world.broker:subscribe(world.spec)
end

local NAMES = {}
for name, weight in pairs({ publish = 2, take = 3, ack = 3, give_back = 1, drop = 1, delay = 1, advance = 1 }) do
  for _ = 1, weight do
    NAMES[#NAMES + 1] = name
  end
end
table.sort(NAMES)

describe("the queues of the memory broker", function()
  it("do what a plain list would, whatever happens", function()
    for seed = 1, SEEDS do
      local world = new_world(seed)
      for _ = 1, STEPS do
        local name = math.random(100) == 1 and "replace" or NAMES[math.random(#NAMES)]
        steps[name](world)
        local stats = world.subscriptions[1]:stats()
        assert.equal(#world.waiting, stats.queued)
        assert.equal(#world.delayed, stats.delayed)
        assert.equal(#world.taken[1], stats.unsettled)
        assert.equal(held(world), stats.held)
      end
      world.clock.advance(1000)
      for _, taken in ipairs(world.taken) do
        for _, one in ipairs(taken) do
          one.message:ack()
          world.done[one.number] = not world.spec.ack_wait or nil
        end
      end
      local message = world.subscriptions[1]:try_next()
      while message do
        local number = tonumber(message.payload)
        assert.is_nil(world.done[number])
        world.done[number] = true
        message:ack()
        message = world.subscriptions[1]:try_next()
      end
      for number = 1, world.sent do
        assert.is_true(world.done[number], "message " .. number .. " is gone")
      end
      local stats = world.subscriptions[1]:stats()
      assert.same({ 0, 0 }, { stats.held, stats.bytes })
      assert.is_true(world.sent > 0)
      world.broker:shutdown()
    end
  end)
end)
