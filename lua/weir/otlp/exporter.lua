--- Sends what was collected to an OTLP/HTTP endpoint: in batches, from a queue with a bound, again where the server
-- says that it may be tried again, and in halves where it takes less at once
-- (https://opentelemetry.io/docs/specs/otlp/#otlphttp).
--
-- One exporter is one signal: spans or metrics. Nothing that goes wrong here ever gets to the application but as a
-- line in its log, and as numbers.
-- @module weir.otlp.exporter

local channel = require("weir.channel")
local core = require("weir.core")
local errors = require("weir.errors")
local id = require("weir.id")
local json = require("weir.codec").get("json")
local runtime = require("weir.runtime")
local tasks = require("weir.task")
local text_of = require("weir.app.text")

local exporter = {}

local Exporter = { __name = "weir.otlp.exporter" }
Exporter.__index = Exporter

-- Seconds between tries, and how many there are. What the server asks for is followed up to LONGEST.
local FIRST_PAUSE, LONGEST, TRIES = 0.5, 30, 6
-- Seconds for which a failure that was told of is not told of again.
local QUIET = 60
-- Bytes of an answer, which says nothing but how many were refused; and of what is told of it.
local ANSWER, TOLD = 64 * 1024, 200
-- Bytes that wait in a queue, and of what goes into one request (a collector takes 20 MiB).
local MOST_BYTES, MOST_REQUEST = 32 * 1024 * 1024, 4 * 1024 * 1024
-- Parts of one batch that a server may find too large before the rest of it is given up.
local MOST_PARTS = 64

local TOO_LARGE = 413
local AGAIN = { [429] = true, [502] = true, [503] = true, [504] = true }

-- Errors of requests that another try does not mend.
local FINAL = { bad_url = true, tls = true, denied = true, cancelled = true, too_large = true }

-- --- counting -------------------------------------------------------------------------------------

local function count(self, outcome, n)
  if n > 0 then
    local series = self.series[outcome] or self.items:with(self.signal, outcome)
    self.series[outcome] = series
    series:inc(n)
  end
end

-- Whether something may be told now: of each kind one line, however often it comes and goes.
local function may_tell(self, kind)
  local now = runtime.now()
  if self.told[kind] and now - self.told[kind] < QUIET then
    return false
  end
  self.told[kind] = now
  return true
end

-- One line when it stops working, one when it works again.
local function note(self, err)
  if err and not self.failing and may_tell(self, "failure") then
    self.log:warn("telemetry could not be sent", { signal = self.signal, url = self.url, error = text_of(err) })
    self.failing = true
  elseif not err and self.failing then
    self.log:info("telemetry is sent again", { signal = self.signal, url = self.url })
    self.failing = false
  end
end

local function drop(self)
  count(self, "dropped", 1)
  if not self.closed and may_tell(self, "drop") then
    local message = "telemetry is dropped: there is more than can be sent; choose a smaller 'sample'"
    self.log:warn(message .. " or a larger 'queue'", { signal = self.signal, url = self.url })
  end
end

-- --- one request ----------------------------------------------------------------------------------

-- How many of the items of a request that was accepted were refused all the same, and why.
local function refused(answer, items)
  local value = answer and answer ~= "" and json.decode(answer)
  local partial = type(value) == "table" and value.partialSuccess
  if type(partial) ~= "table" then
    return 0
  end
  local n = tonumber(partial.rejectedSpans or partial.rejectedDataPoints)
  n = n and n > 0 and math.min(math.floor(n), items) or 0
  return n, type(partial.errorMessage) == "string" and partial.errorMessage or nil
end

-- How many seconds to wait, where the server says so: for so many, or until a date. Durable streams know both forms.
local function pause_of(response)
  local asked = response:header("retry-after")
  if not asked then
    return nil
  end
  local headers = { { "retry-after", asked } }
  local _, _, fields = core.durable_verdict("append", "answered", response.status, headers, runtime.time())
  return fields.retry_after and math.min(fields.retry_after, LONGEST) or nil
end

-- What went wrong, in the server's words if it has any.
local function failure_of(self, status, answer)
  local message = ("%s answered with the status %d"):format(self.url, status)
  if answer and answer:find("%g") then
    message = message .. ": " .. answer:sub(1, TOLD)
  end
  return errors.new("http", message, { status = status })
end

-- Sends once. The number of refused items and why; or nil, an error, whether it may be tried again, and after when.
local function try(self, body, items, timeout)
  local response, err = self.http:request({
    method = "POST",
    url = self.url,
    headers = self.headers,
    body = body,
    timeout = timeout,
  })
  if not response then
    return nil, err, not FINAL[err.code]
  end
  local status, answer = response.status, response:body(ANSWER)
  response:close()
  if status >= 200 and status <= 299 then
    return refused(answer, items)
  end
  return nil, failure_of(self, status, answer), AGAIN[status] or false, pause_of(response)
end

-- The time of the next try; nil where there is none.
local function next_pause(self, tries, asked)
  if tries >= TRIES then
    return nil
  end
  local pause = asked or math.min(FIRST_PAUSE * 2 ^ (tries - 1), LONGEST) * (0.5 + id.fraction() / 2)
  local left = self.last and self.last - runtime.now()
  if left and pause >= left then
    return nil
  end
  return pause
end

-- Waits for the next try; no longer once it is the end, as what is left may work now. False when it is cancelled.
local function wait(self, seconds)
  local deadline, last = runtime.now() + seconds, self.last
  repeat
    local _, err = self.wake:recv(math.max(0, deadline - runtime.now()))
    if err and err.code == "cancelled" then
      return false
    end
  until runtime.now() >= deadline or self.last ~= last
  return true
end

-- Sends a body of n items until it is accepted, or given up. Returns the error of a server that may take a part of it.
local function send_body(self, body, n)
  local tries = 0
  while true do
    local left = self.last and self.last - runtime.now()
    if left and left <= 0 then
      return count(self, "dropped", n)
    end
    local bad, why, again, asked = try(self, body, n, math.min(self.timeout, left or self.timeout))
    if bad then
      note(self, bad > 0 and errors.new("refused", why or "the server refused so many: " .. bad) or nil)
      count(self, "refused", bad)
      return count(self, "sent", n - bad)
    end
    if why.status == TOO_LARGE then
      return why
    end
    tries = tries + 1
    note(self, why)
    if self.last and why.code ~= "http" then
      again = false -- nobody is there: the end of the application does not wait for that to change
    end
    local pause = again and next_pause(self, tries, asked)
    if not pause or not wait(self, pause) then
      return count(self, "failed", n)
    end
  end
end

-- Sends a batch, or the parts of it that the server takes. Returns how many parts were too large; `before` are those
-- of the same batch that were so already.
local function deliver(self, batch, before)
  local body, n = self.make(batch)
  local err = body and send_body(self, body, n)
  if not err then
    return before
  end
  local first, second = self.halves(batch)
  if not first or before + 1 >= MOST_PARTS then
    note(self, err)
    count(self, "failed", n)
    return before + 1
  end
  return deliver(self, second, deliver(self, first, before + 1))
end

-- --- the task -------------------------------------------------------------------------------------

-- A part of the queue: what goes into one request.
local function take_batch(self)
  local first, items, n, bytes = self.first, {}, 0, 0
  repeat
    local item = self.queue[first + n]
    self.queue[first + n] = nil
    n, bytes = n + 1, bytes + #item
    items[n] = item
  until n == self.size or n == self.batch or bytes + #self.queue[first + n] > MOST_REQUEST
  self.first, self.size, self.bytes = first + n, self.size - n, self.bytes - bytes
  return items, n
end

local function is_full(self)
  return self.size >= self.batch or self.bytes >= MOST_REQUEST
end

-- Sends full batches, and the rest where it is due. What comes meanwhile is for the next time.
local function send_queue(self, due)
  local left = due and self.size or 0
  while self.size > 0 and (left > 0 or is_full(self) or self.last) do
    local items, n = take_batch(self)
    left = left - n
    deliver(self, items, 0)
  end
end

local function send_snapshot(self)
  deliver(self, self.collect(), 0)
end

-- What a function that is called before metrics are read raises must not end the sending.
local function guarded(self, send, due)
  local ok, err = pcall(send, self, due)
  if not ok then
    note(self, err)
  end
end

local function loop(self)
  local send = self.queue and send_queue or send_snapshot
  local at = runtime.now() + self.interval
  while not self.last do
    local left = at - runtime.now()
    if left <= 0 then
      guarded(self, send, true)
      at = runtime.now() + self.interval
    elseif self.queue and is_full(self) then
      guarded(self, send, false)
    else
      local _, err = self.wake:recv(left)
      if err and err.code == "cancelled" then
        return
      end
    end
  end
  guarded(self, send, true)
end

--- Adds an item to the queue. Does not wait: where there is no room, the item is dropped, and counted.
-- @param item what `spec.write` makes text of
function Exporter:add(item)
  if self.closed or self.size >= self.most or self.bytes >= MOST_BYTES then
    return drop(self)
  end
  local text, was_full = self.write(item), is_full(self)
  self.queue[self.first + self.size] = text
  self.size, self.bytes = self.size + 1, self.bytes + #text
  if not was_full and is_full(self) then
    self.wake:try_send(true)
  end
end

--- Begins to send.
function Exporter:start()
  self.closed, self.last = false, nil
  self.http = runtime.http({ max_connections = 1, ca = self.tls.ca, cert = self.tls.cert, key = self.tls.key })
  self.task = tasks.spawn(loop, self)
end

--- Takes no more, sends what there is, and ends.
-- @tparam number timeout seconds; what is not sent by then is dropped, and counted
function Exporter:stop(timeout)
  if not self.task then
    return
  end
  self.closed, self.last = true, runtime.now() + timeout
  self.wake:try_send(true)
  local ok = pcall(self.task.join, self.task, timeout)
  if not ok or self.task:status() == "running" then
    self.task:cancel("the time to send what is left is over")
    pcall(self.task.join, self.task, 1)
  end
  count(self, "dropped", self.size)
  self.first, self.size, self.bytes, self.queue = 1, 0, 0, self.queue and {}
  self.http:close()
  self.task = nil
end

--- Makes one.
-- @tparam table spec
-- @tparam string spec.signal "spans" or "metrics"
-- @tparam string spec.url
-- @tparam {table,...} spec.headers of requests
-- @tparam ?table spec.tls `ca`, `cert` and `key`, as `runtime.http` takes them
-- @tparam function spec.make the body of a list, and how many items that has; nil where there is nothing
-- @tparam ?function spec.collect the list of what there is now, for an exporter without a queue
-- @tparam function spec.halves of a list, two that hold the same; nil where it cannot be parted
-- @tparam ?function spec.write makes the text of an item
-- @tparam ?number spec.most items that may wait; nil for an exporter without a queue
-- @tparam ?number spec.batch items of a request
-- @tparam number spec.interval seconds
-- @tparam number spec.timeout seconds of a request
-- @param spec.log
-- @param spec.items the family of counters, with the labels `signal` and `outcome`
function exporter.new(spec)
  local headers = { { "content-type", "application/json" } }
  for _, each in ipairs(spec.headers) do
    headers[#headers + 1] = each
  end
  return setmetatable({
    signal = spec.signal,
    url = spec.url,
    headers = headers,
    tls = spec.tls or {},
    make = spec.make,
    collect = spec.collect,
    halves = spec.halves,
    write = spec.write,
    most = spec.most,
    batch = spec.batch,
    interval = spec.interval,
    timeout = spec.timeout,
    log = spec.log,
    items = spec.items,
    series = {},
    told = {}, -- when, by kind
    queue = spec.most and {} or nil,
    first = 1,
    size = 0,
    bytes = 0,
    wake = channel(1),
    failing = false,
    closed = true,
  }, Exporter)
end

return exporter
