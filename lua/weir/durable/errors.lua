--- The errors of the durable-stream client.
--
-- `err.code` is one of: not_found, already_exists, conflict, sequence_conflict, stream_closed,
-- stale_epoch, unauthorized, forbidden, gone, rate_limited, invalid_offset, too_large, parse_error,
-- timeout, network, server_error, cancelled; from the codec of a stream: encode, decode; and
-- callback_failed, body_failed: a function of the program raised an error.
-- Where they are known there are `status` (HTTP's), `url`, `offset`, `retries` (how often the
-- request was repeated), `unknown` (true: it may or may not have been done), `epoch`, `sequence`,
-- `expected_seq` and `received_seq` (of a producer), `cause` (the error of the transport).
-- @module weir.durable.errors

local errors = require("weir.errors")

local M = {}

local SENTENCES = {
  not_found = "there is no such stream",
  already_exists = "a stream with another configuration exists there",
  conflict = "the server refused it as it does not fit what is there",
  sequence_conflict = "the sequence is not the one that the server expects next",
  stream_closed = "the stream is closed and takes no more data",
  stale_epoch = "another producer with this id has a later epoch; use auto_claim, or restart with a greater epoch",
  unauthorized = "the server wants credentials, or other ones",
  forbidden = "the server does not allow it",
  gone = "what was asked for is no longer there",
  rate_limited = "the server wants fewer requests",
  invalid_offset = "the stream has no such offset",
  too_large = "it is larger than allowed",
  parse_error = "what was sent or received is malformed",
  timeout = "there was no answer in time",
  network = "the connection failed",
  server_error = "the server failed",
}

local UNKNOWN = "; it is not known whether it was done, so it was not repeated"

--- Makes an error of a request.
-- @tparam string code
-- @tparam string what was to be done, such as "append"
-- @tparam table context fields: `url`, `status`, ...; `detail` goes into the message only
-- @return the error
function M.make(code, what, context)
  local detail = context.detail
  local message = ("%s %s: %s"):format(what, context.url or "", SENTENCES[code] or code)
  if context.status then
    message = ("%s (status %d)"):format(message, context.status)
  end
  if detail and detail ~= "" then
    message = message .. ": " .. detail
  end
  if context.unknown then
    message = message .. UNKNOWN
  end
  local err = errors.new(code, message, context)
  err.detail = nil
  return err
end

-- What an answer says of its failure, for people: one line, bounded, without control characters.
local LONGEST_DETAIL = 200

--- The text of an error's body as a detail for the message.
function M.detail(body)
  if not body then
    return nil
  end
  -- The title says as much as the rest of a page for browsers, which is what proxies send.
  body = body:match("^%s*<.*<title>%s*(.-)%s*</title>") or body
  local text = body:gsub("[%c]+", " "):match("^%s*(.-)%s*$")
  if #text > LONGEST_DETAIL then
    text = text:sub(1, LONGEST_DETAIL) .. "..."
  end
  return text
end

return M
