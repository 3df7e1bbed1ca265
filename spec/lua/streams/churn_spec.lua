-- Nodes, producers and consumers come and go at random; then everybody must have found each other.
local weir = require("weir")
local support = require("spec.lua.streams.support")
local it = support.tests(it)

local NODES, STEPS, NAMES = 3, 300, { "red", "blue" }

-- The same numbers for the same seed, whatever else uses math.random.
local function generator(seed)
  return function(n)
    seed = seed * 48271 % 2147483647
    return seed % n + 1
  end
end

local World = {}
World.__index = World

local function new_world(kind, seed)
  local world = setmetatable({ random = generator(seed), nodes = {}, urls = {} }, World)
  for i = 1, NODES do
    local probe = support.network({ listen = support.address(kind) })
    world.urls[i] = probe:addresses()[1] -- with a real port
    probe:close(0)
  end
  for i = 1, NODES do
    world:start(i)
  end
  return world
end

function World:start(i)
  local peers = {}
  for j, url in ipairs(self.urls) do
    peers[#peers + 1] = j ~= i and url or nil
  end
  local net = support.network({ listen = self.urls[i], peers = peers })
  self.nodes[i] = { net = net, producers = {}, consumers = {} }
end

local steps = {
  { 20, function(world, node, name)
    node.producers[name] = node.net:produce(name, {
      buffer = { messages = 8 },
      lag_grace = 0.005,
      max_consumers = world.random(3) == 1 and world.random(4) or nil,
    })
  end },
  { 40, function(world, node, name)
    if node.producers[name] then
      node.producers[name]:close(world.random(2) == 1 and 0 or 0.01)
      node.producers[name] = nil
    end
  end },
  { 60, function(world, node, name)
    local opts = { buffer = { messages = world.random(8) }, backoff = support.quick }
    table.insert(node.consumers, { name = name, handle = node.net:consume(name, opts) })
  end },
  { 70, function(world, node)
    if #node.consumers > 0 then
      table.remove(node.consumers, world.random(#node.consumers)).handle:close()
    end
  end },
  { 73, function(world, node, _, i)
    node.net:close(world.random(2) == 1 and 0 or 0.05)
    world:start(i)
  end },
  { 85, function(world, node, name)
    for _ = 1, world.random(20) do
      if node.producers[name] then
        node.producers[name]:try_send("x")
      end
    end
  end },
  { 100, function(world)
    weir.sleep(world.random(100) / 20000)
  end },
}

function World:step()
  local i, name, dice = self.random(NODES), NAMES[self.random(#NAMES)], self.random(100)
  for _, each in ipairs(steps) do
    if dice <= each[1] then
      each[2](self, self.nodes[i], name, i)
      break
    end
  end
  self:each_consumer(function(consumer)
    for _ = 1, self.random(4) > 1 and self.random(10) or 0 do
      consumer.handle:try_recv()
    end
  end)
end

function World:each_consumer(fn)
  for _, node in ipairs(self.nodes) do
    for _, consumer in ipairs(node.consumers) do
      fn(consumer)
    end
  end
end

-- What is not yet as it must become; nil when all is.
function World:missing()
  local wanting, problem = {}, nil
  self:each_consumer(function(consumer)
    while consumer.handle:try_recv() do -- luacheck: ignore 542
    end
    wanting[consumer.name] = (wanting[consumer.name] or 0) + 1
  end)
  local offered = {}
  for i, node in ipairs(self.nodes) do
    for name, producer in pairs(node.producers) do
      local want, has = math.min(wanting[name] or 0, producer.max_consumers), producer:stats().consumers
      if has ~= want then
        problem = ("the producer of '%s' on node %d has %d consumers, not %d"):format(name, i, has, want)
      end
      offered[name] = (offered[name] or 0) + want
    end
  end
  for name, count in pairs(offered) do
    self:each_consumer(function(consumer)
      count = count - (consumer.name == name and consumer.handle:stats().producers or 0)
    end)
    problem = problem or (count ~= 0 and ("%d subscriptions to '%s' are missing"):format(count, name)) or nil
  end
  return problem
end

describe("whatever comes and goes,", function()
  for _, kind in ipairs(support.transports) do
    for seed = 1, 4 do
      it(("every consumer ends with every producer that has room (%s, seed %d)"):format(kind, seed), function()
        local world = new_world(kind, seed * 7919)
        for _ = 1, STEPS do
          world:step()
        end
        local problem
        local ok = pcall(support.eventually, function()
          problem = world:missing()
          return not problem
        end)
        assert(ok, problem)
      end)
    end
  end
end)
