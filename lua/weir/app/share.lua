--- The handlers that share a subscription: their order, what they must agree on, and their names.
-- @module weir.app.share

local M = {}

-- Of a batch, unless it says something else.
local BATCH_MAX, BATCH_LINGER = 64, 0.01

--- The same text for the same wishes of a subscription.
function M.canonical(value, depth)
  if type(value) ~= "table" or getmetatable(value) or depth > 4 then
    return type(value) .. ":" .. tostring(value)
  end
  local parts = {}
  for name, each in pairs(value) do
    parts[#parts + 1] = ("%s=%s"):format(tostring(name), M.canonical(each, depth + 1))
  end
  table.sort(parts)
  return "{" .. table.concat(parts, "\1") .. "}"
end

-- Puts the default last; reports handlers that would never be called.
local function order_handlers(report, registration)
  local default
  local filtered = {}
  for _, handler in ipairs(registration.handlers) do
    if default and not handler.filter then
      report:mistake(handler.source, "%s: two handlers of one name (the other: %s); give one a 'filter', or each a"
        .. " group of its own", registration.what, default.source)
    elseif default then
      report:mistake(handler.source, "%s: this filter is never asked, the handler of %s takes everything; register that"
        .. " last", registration.what, default.source)
    elseif handler.filter then
      for _, other in ipairs(filtered) do
        local mine, its = handler.options.filter, other.options.filter
        if mine == its or (type(mine) == "table" and M.canonical(mine, 1) == M.canonical(its, 1)) then
          report:mistake(handler.source, "%s: this filter is that of %s, which takes everything of it",
            registration.what, other.source)
        end
      end
      filtered[#filtered + 1] = handler
    else
      default = handler
    end
  end
end

local function same_workers(a, b)
  return a.count == b.count and a.by == b.by
end

-- What belongs to the subscription, and so must not be said twice in different ways.
local function share_settings(report, registration)
  local said = { workers = nil, batch = nil }
  for _, handler in ipairs(registration.handlers) do
    if handler.options.workers then
      if said.workers and not same_workers(said.workers.workers, handler.workers) then
        report:mistake(handler.source, "%s: 'workers' is set twice, the other time in %s; the handlers share a"
          .. " subscription", registration.what, said.workers.source)
      end
      said.workers = said.workers or handler
      registration.workers = said.workers.workers
    end
    if handler.kind == "batch" then
      registration.batch = {
        max = handler.options.max or BATCH_MAX,
        linger = handler.options.linger or BATCH_LINGER,
      }
      if #registration.handlers > 1 then
        report:mistake(handler.source, "%s: batches go to one handler, this subscription has %d", registration.what,
          #registration.handlers)
      end
    end
  end
end

local function name_handlers(report, registration, ids)
  local handlers = registration.handlers
  local number = 0
  for _, handler in ipairs(handlers) do
    if handler.name then
      handler.id = handler.name
    elseif handler.filter and #handlers > 1 then
      number = number + 1
      handler.id = registration.base .. "#" .. number
    else
      handler.id = registration.base
    end
    local key = registration.broker.label .. "\0" .. handler.id
    local other = ids[key]
    if other and other.registration ~= registration then
      report:mistake(handler.source, "two handlers of one name '%s' (the other: %s); give one a 'name'", handler.id,
        other.handler.source)
    elseif other and (handler.name or other.handler.name) then
      report:mistake(handler.source, "two handlers have the name '%s' (the other: %s)", handler.id,
        other.handler.source)
    end
    ids[key] = ids[key] or { handler = handler, registration = registration }
  end
  registration.id = #handlers == 1 and handlers[1].id or registration.base
end

--- Settles what the handlers of a subscription have in common.
-- @param report gets handlers that would never be called, settings said twice, names given twice
-- @tparam table registration
-- @tparam table ids of all handlers so far, by broker and name; gets those of this one
function M.settle(report, registration, ids)
  order_handlers(report, registration)
  share_settings(report, registration)
  name_handlers(report, registration, ids)
end

return M
