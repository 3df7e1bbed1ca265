--- The errors of the NATS broker.
-- @module weir.broker.nats.errors

local errors = require("weir.errors")

local M = {}

local what = {
  closed = "the broker was shut down, or the subscription closed",
  consumer_deleted = "somebody deleted the consumer",
  disconnected = "the connection to the server is lost; it is being connected again",
  forbidden = "the server does not permit that: see the permissions of the user",
  full = "the publish buffer is full: publish less, or set publish_buffer",
  invalid = "that is no subject to publish to: no white space, no empty tokens, no wildcards",
  no_responders = "nobody answers requests there",
  no_stream = "no stream takes messages there: create one, with `create` of nats.jetstream, or broker:stream",
  lost = "the subscription was closed: the message went back",
  nomem = "out of memory",
  protocol = "the server's answer makes no sense",
  refused_request = "the consumer takes no such requests for messages: change it, or the descriptor",
  refused = "no server answers: start one, or check the address",
  settled = "this delivery was settled before",
  slow_consumer = "messages were dropped: they came faster than they were taken, and the buffer was full",
  stopped = "the subscription was stopped",
  timeout = "the server did not answer in time",
  tls = "no secure connection",
  too_large = "the message is larger than the server accepts (max_payload)",
  unauthorized = "the server refused the credentials",
}

--- Makes an error of a code.
-- @tparam string code
-- @tparam[opt] string detail what libnats or the server says
-- @tparam[opt] table context
function M.new(code, detail, context)
  local text = what[code] or code
  if detail and detail ~= "" then
    detail = detail:gsub("^%([%w_]+%.c:%d+%): ", "")
    text = text .. " (" .. detail .. ")"
  end
  local err = errors.new(code, text, context)
  err.broker = "nats"
  return err
end

-- Numbers of the server's errors, of its file errors.json.
local codes = {
  [10014] = "consumer_not_found",
  [10059] = "stream_not_found",
  [10037] = "not_found",
  [10043] = "not_found",
  [10013] = "conflict",
  [10058] = "conflict",
  [10060] = "conflict",
  [10063] = "conflict",
  [10065] = "conflict",
  [10070] = "conflict",
  [10071] = "conflict",
  [10148] = "conflict",
  [10039] = "unsupported",
  [10076] = "unsupported",
  [10002] = "full",
  [10023] = "full",
  [10028] = "full",
  [10047] = "full",
  [10077] = "full",
  [10054] = "too_large",
}

--- The error in an answer of JetStream.
-- @tparam table answer its `error`: `code`, `err_code`, `description`
-- @tparam string doing what was asked for
function M.jetstream(answer, doing)
  local number = tonumber(answer.err_code)
  local code = codes[number] or (tonumber(answer.code) == 404 and "not_found") or "rejected"
  return errors.new(code, ("%s: %s"):format(doing, tostring(answer.description or "the server refuses")), {
    broker = "nats",
    status = tonumber(answer.code),
    server_code = number,
  })
end

return M
