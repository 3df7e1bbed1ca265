--- Plain bytes over a connection, for protocols that are spoken in Lua.
-- @module weir.runtime.uv_bytes

local errors = require("weir.errors")

-- Bytes that may wait to be taken by the program, and to be written, before the other side or the program waits.
local MOST = 256 * 1024

-- Seconds that what is queued may take to be written when a connection is finished.
local FINISHING = 30

local CLOSED = errors.new("closed", "the connection was closed")

local Bytes = { __name = "weir.bytes" }
Bytes.__index = Bytes

return function(runtime, loop)
  --- Reads and writes a connection as plain bytes, from now on.
  --
  -- One task reads and one task writes at a time; they may be the same. A peer that has ended its side can still be
  -- written to, except in memory: `finish` or `close` ends the connection.
  -- @param conn of `runtime.dial` or `runtime.listen`
  -- @tparam[opt] table opts `buffer` (256 KiB): what may wait in either direction
  -- @return it, with `read`, `write`, `finish` and `close`; or nil and an error
  function runtime.bytes(conn, opts)
    opts = errors.options("bytes", opts, { buffer = "number" }, 2)
    local self = setmetatable({
      conn = conn,
      url = conn.url,
      most = opts.buffer or MOST,
      open = true,
      reader = false,
      writer = false,
      over = false, -- the peer sends no more
      on_end = false, -- called once, in a turn, when that begins
      on_close = false, -- called once, in a turn, when the connection is gone
    }, Bytes)
    self.endpoint = loop:bytes(self.most, function(over)
      self.over = over
      self:wake()
      if over and self.on_end then
        self.on_end()
      end
    end)
    local ok, err = conn:attach(self.endpoint, function(why)
      self.open, self.err = false, why or CLOSED
      self.rest = self.endpoint:read()
      if self.timer then
        self.timer:cancel()
      end
      self.endpoint:free()
      self:wake()
      if self.on_close then
        self.on_close(self.err)
      end
    end)
    if not ok then
      self.endpoint:free()
      return nil, err
    end
    return self
  end

  function Bytes:wake()
    if self.reader then
      self.reader:wake()
    end
    if self.writer then
      self.writer:wake()
    end
  end

  -- Waits in the place `who` until something changes.
  local function wait(self, who, deadline)
    local waiter = runtime.waiter()
    self[who] = waiter
    local _, err = waiter:wait(deadline)
    self[who] = false
    return err
  end

  --- Takes all that has arrived, and waits where that is nothing.
  -- @tparam[opt] number timeout
  -- @treturn string at least one byte; or nil and an error: "timeout", "cancelled", "closed" (the peer sends no more),
  --   "reset" ...
  function Bytes:read(timeout)
    local deadline = runtime.deadline(timeout, 2)
    local err = runtime.tick()
    while not err do
      local data
      if self.open then
        data = self.endpoint:read()
      else
        data, self.rest = self.rest, nil
      end
      if data then
        return data
      elseif data == false or not self.open or self.finished then
        return nil, self.err or CLOSED
      end
      err = wait(self, "reader", deadline)
    end
    return nil, err
  end

  --- Queues bytes, and waits where too many are queued already.
  -- @tparam string data
  -- @tparam[opt] number timeout seconds without room for more
  -- @treturn boolean true; or nil and an error: "timeout", "cancelled", "closed", "reset" ...
  function Bytes:write(data, timeout)
    if not self.open or self.finished then
      return nil, self.err or CLOSED
    end
    local deadline = runtime.deadline(timeout, 2)
    local err = runtime.tick()
    if err then
      return nil, err
    elseif not self.open then
      return nil, self.err
    end
    local pending = self.endpoint:write(data)
    if not pending then
      return nil, CLOSED
    end
    while pending > self.most do
      err = wait(self, "writer", deadline)
      if not self.open then
        return nil, self.err
      elseif err then
        return nil, err
      end
      pending = self.endpoint:pending()
    end
    return true
  end

  --- Ends the connection in order when all is written: says so to the peer, and waits for it no longer than the
  -- connection's `linger`. What arrives meanwhile is dropped. Does not wait.
  -- @tparam[opt] number timeout seconds after which it is closed whatever is not written (30)
  function Bytes:finish(timeout)
    if self.open and not self.finished then
      self.finished = true
      self.endpoint:finish()
      self:wake()
      self.timer = runtime.timer(runtime.now() + (timeout or FINISHING), function()
        self:close()
      end)
    end
  end

  --- Ends the connection at once.
  function Bytes:close()
    if self.open then
      self.finished = true
      self.conn:close()
    end
  end

  function Bytes:__tostring()
    return ("weir.bytes(%s, %s)"):format(self.url, self.open and "open" or "closed")
  end

  Bytes.__close = Bytes.close
end
