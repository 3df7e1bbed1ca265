--- Answers of catch-up reads, kept to ask for with If-None-Match. Bounded in bytes; what was not used
-- for longest goes first.
-- @module weir.durable.cache

local M = {}

local Cache = {}
Cache.__index = Cache

local OVERHEAD = 512 -- bytes that an entry counts beside its texts
local HEADER = 64 -- the same of a header

--- Makes a cache of at most `limit` bytes; 0: one that keeps nothing.
function M.new(limit)
  return setmetatable({ limit = limit, bytes = 0, clock = 0, entries = {} }, Cache)
end

--- The longest body that is kept.
function Cache:longest()
  return math.floor(self.limit / 4)
end

--- What is kept for a URL: a table with `etag`, `headers` and `body`; or nil.
function Cache:get(url)
  local entry = self.entries[url]
  if entry then
    self.clock = self.clock + 1
    entry.used = self.clock
  end
  return entry
end

--- Forgets it.
function Cache:remove(url)
  local entry = self.entries[url]
  if entry then
    self.bytes = self.bytes - entry.cost
    self.entries[url] = nil
  end
end

local function oldest(entries)
  local found
  for url, entry in pairs(entries) do
    if not found or entry.used < entries[found].used then
      found = url
    end
  end
  return found
end

local function cost_of(url, etag, headers, body)
  local cost = #url + #etag + #body + OVERHEAD
  for _, header in ipairs(headers) do
    cost = cost + #header[1] + #header[2] + HEADER
  end
  return cost
end

--- Keeps it, if it is not too large.
function Cache:put(url, etag, headers, body)
  self:remove(url)
  local cost = cost_of(url, etag, headers, body)
  if #body > self:longest() or cost > self.limit then
    return
  end
  self.clock = self.clock + 1
  self.entries[url] = { etag = etag, headers = headers, body = body, cost = cost, used = self.clock }
  self.bytes = self.bytes + cost
  while self.bytes > self.limit do
    self:remove(oldest(self.entries))
  end
end

return M
