--- A stream at a URL.
-- @module weir.durable.stream

local codec = require("weir.codec")
local errors = require("weir.errors")
local options = require("weir.durable.options")
local urls = require("weir.durable.url")

local M = {}

local Stream = { __name = "weir.durable.stream" }
Stream.__index = Stream

local OPTIONS = { content_type = "string", codec = { "string", "table" }, headers = "table", params = "table" }

--- The names of options, and the types of their values.
M.OPTIONS = OPTIONS

--- Makes a stream; `client:stream(url, opts)` does.
--
-- Values become bytes by the codec: "raw" (the default) takes strings; with "json", "msgpack" or "cbor" any
-- value is appended, and read by `reader:items()`. To a JSON stream each value is appended as one message, arrays
-- too; in any other, the values stand one after the other.
-- @tparam table client
-- @tparam string url
-- @tparam ?table opts
-- @tparam[opt] string opts.content_type what `create` and `append` use; when left out, that of the codec for
--   `create`, and what HEAD says for the first append
-- @tparam[opt="raw"] string|table opts.codec
-- @tparam[opt] table opts.headers,opts.params for each request, beside the client's
-- @tparam[opt=1] number level whom to blame for misuse, as for `error`, seen from the caller
-- @treturn stream
function M.new(client, url, opts, level)
  level = (level or 1) + 1
  if type(url) ~= "string" then
    error("durable: the URL of a stream must be a string, not a " .. type(url), level)
  end
  opts = errors.options("durable: stream", opts, OPTIONS, level)
  options.pairs("durable: stream", "headers", opts.headers, level + 1)
  options.pairs("durable: stream", "params", opts.params, level + 1)
  local text = urls.join(client.base_url, url)
  local parsed, err = urls.parse(text)
  if not parsed then
    error("durable: " .. err.message, level)
  end
  local values = codec.get(opts.codec or "raw", level)
  return setmetatable({
    client = client,
    url = text,
    path = parsed.path,
    codec = values,
    content_type = opts.content_type or (values.name == "json" and "application/json" or nil),
    headers = opts.headers,
    params = opts.params,
  }, Stream)
end

function Stream:__tostring()
  return ("weir.durable.stream(%s)"):format(self.url)
end

--- Whether a content type is JSON's.
function M.is_json(content_type)
  return content_type ~= nil and content_type:lower():match("^%s*([^;%s]*)") == "application/json"
end

local function both(a, b)
  if not a or not b then
    return a or b
  end
  local out = {}
  for _, map in ipairs({ a, b }) do
    for name, value in pairs(map) do
      out[name] = value
    end
  end
  return out
end

--- What the requests of a stream have in common; for readers and producers.
function Stream:request(fields, opts)
  fields.url = self.url
  fields.headers = fields.headers or {}
  fields.user_headers = both(self.headers, opts and opts.headers)
  fields.user_params = both(self.params, opts and opts.params)
  fields.timeout = opts and opts.timeout
  return fields
end

local function learn(self, res)
  local content_type = res:header("content-type")
  if content_type and content_type ~= "" then
    self.content_type = content_type
  end
end

local REQUEST = { headers = "table", params = "table", timeout = "number" }

local function request_options(what, opts, more)
  local known = {}
  for _, map in ipairs({ REQUEST, more or {} }) do
    for name, kind in pairs(map) do
      known[name] = kind
    end
  end
  opts = errors.options(what, opts, known, 3)
  options.pairs(what, "headers", opts.headers, 4)
  options.pairs(what, "params", opts.params, 4)
  return opts
end

--- The bytes of a value, as this stream's codec writes it.
-- @param value
-- @tparam[opt=1] number level whom to blame for misuse, as for `error`, seen from the caller
-- @return string; or nil and an error: "encode"
function Stream:encode(value, level)
  if self.codec.raw and type(value) ~= "string" then
    local text = "durable: data must be a string, not a %s; for other values use a codec: 'json', 'msgpack' or 'cbor'"
    error(text:format(type(value)), (level or 1) + 1)
  end
  return self.codec.encode(value)
end

-- --- create -------------------------------------------------------------------------------------

local CREATE = {
  content_type = "string",
  ttl = "number",
  expires_at = "string",
  closed = "boolean",
  data = { "string", "table", "number", "boolean" },
}

-- What a body of initial content is: several values of a JSON stream stand in an array, and so does one.
local function first_content(self, data, content_type)
  if data == nil then
    return ""
  end
  local bytes, err = self:encode(data, 4)
  if bytes and not self.codec.raw and M.is_json(content_type) then
    bytes = "[" .. bytes .. "]"
  end
  return bytes, err
end

local function created(self, res)
  learn(self, res)
  return {
    status = res.status,
    created = res.status == 201,
    offset = res.fields.next_offset,
    content_type = res:header("content-type") or self.content_type,
    closed = res.fields.closed or false,
    location = res:header("location"),
  }
end

local function create(self, what, opts, headers)
  local content_type = opts.content_type or self.content_type
  if not content_type and not self.codec.raw then
    content_type = self.codec.content_type
  end
  headers["Content-Type"] = content_type
  headers["Stream-TTL"] = options.count(what, "ttl", opts.ttl, 0, 4) and ("%d"):format(opts.ttl)
  headers["Stream-Expires-At"] = opts.expires_at
  headers["Stream-Closed"] = opts.closed and "true" or nil
  local body, err = first_content(self, opts.data, content_type)
  if not body then
    return nil, err
  end
  local request = self:request({ kind = "create", method = "PUT", headers = headers, body = body, what = what }, opts)
  local res
  res, err = self.client:perform(request)
  if not res then
    return nil, err
  end
  self.content_type = content_type
  return created(self, res)
end

--- Creates the stream. One that exists with the same configuration is as good: `created` is false then.
-- @tparam ?table opts
-- @tparam[opt] string opts.content_type that of the codec, if it has one; "application/octet-stream" is the
--   server's default
-- @tparam[opt] number opts.ttl seconds without use after which it expires
-- @tparam[opt] string opts.expires_at time, RFC 3339
-- @tparam[opt] boolean opts.closed with what is in `data`, and nothing more
-- @param[opt] opts.data initial content: with a codec one value, else a string that is sent as it is
-- @tparam[opt] table opts.headers,opts.params
-- @tparam[opt] number opts.timeout
-- @treturn ?table `created`, `status`, `offset`, `content_type`, `closed`, `location`
-- @return error: "already_exists" when there is one with another configuration
function Stream:create(opts)
  opts = request_options("create", opts, CREATE)
  local result, err = create(self, "create", opts, {})
  return result, err
end

local FORK = {
  from = { "string", "table" },
  offset = "string",
  sub_offset = "number",
  content_type = "string",
  ttl = "number",
  expires_at = "string",
  closed = "boolean",
  data = { "string", "table", "number", "boolean" },
}

local function source_path(from)
  if type(from) == "table" then
    return from.path
  end
  local url = urls.parse(from)
  return url and url.path or (from:sub(1, 1) == "/" and from or "/" .. from)
end

--- Creates this stream as a fork of another on the same server: it begins with what that has up to an
-- offset, and goes its own way from there.
-- @tparam table opts as for `create`, and:
-- @tparam string|stream opts.from the source: its path, its URL, or a stream
-- @tparam[opt] string opts.offset where to fork; its end when left out
-- @tparam[opt] number opts.sub_offset so many bytes, or JSON messages, behind that offset
-- @treturn ?table as `create`
-- @return error: "not_found", "gone", "already_exists", ...
function Stream:fork(opts)
  opts = request_options("fork", opts, FORK)
  if not opts.from then
    error("fork: the option 'from' is missing: the stream to fork", 2)
  end
  local result, err = create(self, "fork", opts, {
    ["Stream-Forked-From"] = source_path(opts.from),
    ["Stream-Fork-Offset"] = opts.offset,
    ["Stream-Fork-Sub-Offset"] = options.count("fork", "sub_offset", opts.sub_offset, 0, 3)
      and ("%d"):format(opts.sub_offset),
  })
  return result, err
end

-- --- what is there ------------------------------------------------------------------------------

--- Asks what the server knows of the stream.
-- @tparam ?table opts `headers`, `params`, `timeout`
-- @treturn ?table `status`, `offset` (its end), `content_type`, `closed`, `ttl`, `expires_at`, `etag`
-- @return error
function Stream:head(opts)
  opts = request_options("head", opts)
  local res, err = self.client:perform(self:request({ kind = "head", method = "HEAD", what = "head" }, opts))
  if not res then
    return nil, err
  end
  learn(self, res)
  return {
    status = res.status,
    offset = res.fields.next_offset,
    content_type = res:header("content-type"),
    closed = res.fields.closed or false,
    ttl = tonumber(res:header("stream-ttl") or nil),
    expires_at = res:header("stream-expires-at"),
    etag = res:header("etag"),
  }
end

--- Whether the stream exists.
-- @treturn ?boolean
-- @return error, when that cannot be found out
function Stream:exists(opts)
  opts = request_options("exists", opts)
  local found, err = self:head(opts)
  if found then
    return true
  elseif err.code == "not_found" or err.code == "gone" then
    return false
  end
  return nil, err
end

--- Deletes the stream.
-- @tparam ?table opts `headers`, `params`, `timeout`
-- @treturn ?boolean true
-- @return error: "not_found", ...
function Stream:delete(opts)
  opts = request_options("delete", opts)
  local res, err = self.client:perform(self:request({ kind = "delete", method = "DELETE", what = "delete" }, opts))
  if res or (err.code == "not_found" and err.lost_before) then
    return true -- in the second case by the attempt whose answer was lost
  end
  return nil, err
end

-- --- appending ----------------------------------------------------------------------------------

-- The content type to append with: known, or asked for.
local function content_type_of(self, opts)
  local content_type = opts.content_type or self.content_type
  if content_type then
    return content_type
  end
  local found, err = self:head({ headers = opts.headers, params = opts.params, timeout = opts.timeout })
  if not found then
    return nil, err
  end
  self.content_type = found.content_type or "application/octet-stream"
  return self.content_type
end

--- Finds out the content type, if it is not known; for producers.
-- @tparam table opts `headers`, `params` and `timeout` of the request
-- @return string; or nil and an error
function Stream:learn_content_type(opts)
  return content_type_of(self, { headers = opts.headers, params = opts.params, timeout = opts.timeout })
end

local APPEND = { seq = { "string", "number" }, content_type = "string", at_least_once = "boolean" }

local function sequence_text(seq)
  return type(seq) == "number" and seq % 1 == 0 and ("%d"):format(seq) or seq and tostring(seq)
end

local function append_request(self, what, opts, content_type, body)
  local seq = sequence_text(opts.seq)
  local kind = seq and "append_seq" or "append"
  return self:request({
    kind = kind,
    method = "POST",
    what = what,
    headers = { ["Content-Type"] = content_type, ["Stream-Seq"] = seq },
    body = body,
    at_least_once = opts.at_least_once,
  }, opts)
end

-- What is sent for one value, and its content type; or nil, nil and an error.
local function encoded_body(self, data, opts)
  local body, err = self:encode(data, 3)
  if not body then
    return nil, nil, err
  end
  local content_type
  content_type, err = content_type_of(self, opts)
  if not content_type then
    return nil, nil, err
  end
  return M.is_json(content_type) and "[" .. body .. "]" or body, content_type
end

local function appended(res)
  return { status = res.status, offset = res.fields.next_offset, closed = res.fields.closed or false }
end

-- The sequence is taken, or the stream closed, after an attempt whose answer was lost: by that attempt (or
-- behind it), or by another writer.
local function doubt(err)
  if err.lost_before and (err.code == "sequence_conflict" or err.code == "stream_closed") then
    return errors.with(err, { unknown = true, message = err.message .. "; an earlier attempt may have arrived" })
  end
  return err
end

--- Appends one value. It is tried again where the server cannot have it already; otherwise the error has
-- `unknown` set. With `seq` it can always be tried again; so it can by a producer.
-- @param data a string; with a codec, what that encodes
-- @tparam ?table opts
-- @tparam[opt] string|number opts.seq of the writer: each greater than the one before, as bytes; the server
--   refuses others with "sequence_conflict"
-- @tparam[opt] boolean opts.at_least_once try again also when it may be there already: it may be there twice
-- @tparam[opt] string opts.content_type
-- @tparam[opt] table opts.headers,opts.params
-- @tparam[opt] number opts.timeout
-- @treturn ?table `status`, `offset` (behind it)
-- @return error
function Stream:append(data, opts)
  opts = request_options("append", opts, APPEND)
  local body, content_type, err = encoded_body(self, data, opts)
  if not body then
    return nil, err
  end
  local res
  res, err = self.client:perform(append_request(self, "append", opts, content_type, body))
  if res then
    return appended(res)
  end
  return nil, doubt(err)
end

-- Pieces of a body made from an iterator; `failure` takes what went wrong in it.
local function body_of(self, iterator, json, failure)
  local first, over = true, false
  local function piece()
    local value = iterator()
    if value == nil then
      over = true
      return json and (first and "[]" or "]") or nil
    end
    local bytes, err = self:encode(value)
    if not bytes then
      failure.err = err
      error(err, 0)
    elseif json then
      bytes = (first and "[" or ",") .. bytes
    end
    first = false
    return bytes
  end
  return function()
    if over then
      return nil
    end
    return piece()
  end
end

--- Appends what an iterator gives, in one request that is sent while it is made. Not repeated.
-- @tparam function iterator returns the next value, nil at the end; it may block
-- @tparam ?table opts as for `append`, without `at_least_once`; `timeout` is for the whole
-- @treturn ?table as `append`
-- @return error
function Stream:append_stream(iterator, opts)
  if type(iterator) ~= "function" then
    error("append_stream: an iterator function is expected, not a " .. type(iterator), 2)
  end
  opts = request_options("append_stream", opts, APPEND)
  local content_type, err = content_type_of(self, opts)
  if not content_type then
    return nil, err
  end
  local failure = {}
  local body = body_of(self, iterator, M.is_json(content_type), failure)
  local request = append_request(self, "append_stream", opts, content_type, body)
  request.timeout = opts.timeout or math.huge
  local res
  res, err = self.client:perform(request)
  if not res then
    return nil, failure.err or err
  end
  return appended(res)
end

local CLOSE = { content_type = "string", at_least_once = "boolean", seq = { "string", "number" } }

--- Closes the stream: nothing can be appended any more, and readers come to an end. To close one that is
-- closed succeeds.
-- @param[opt] data a last value, appended in the same step
-- @tparam ?table opts as for `append`
-- @treturn ?table `status`, `offset` (the end)
-- @return error
function Stream:close(data, opts)
  opts = request_options("close", opts, CLOSE)
  local request
  if data == nil then
    request = self:request({ kind = "close", method = "POST", what = "close", body = "" }, opts)
    request.headers["Content-Type"] = opts.content_type or self.content_type
  else
    local body, content_type, err = encoded_body(self, data, opts)
    if not body then
      return nil, err
    end
    request = append_request(self, "close", opts, content_type, body)
  end
  request.headers["Stream-Closed"] = "true"
  local res, err = self.client:perform(request)
  if not res then
    return nil, doubt(err)
  end
  return appended(res)
end

-- --- the rest -----------------------------------------------------------------------------------

--- Opens a reader. Nothing is sent until something is read.
-- @tparam ?table opts see `weir.durable.reader`
-- @treturn reader
function Stream:read(opts)
  local reader = require("weir.durable.reader").new(self, opts, 2) -- no tail call: its level counts
  return reader
end

--- Makes a producer: exactly-once appends in batches.
-- @tparam ?table opts see `weir.durable.producer`
-- @treturn producer
function Stream:producer(opts)
  local producer = require("weir.durable.producer").new(self, opts, 2) -- no tail call, as above
  return producer
end

return M
