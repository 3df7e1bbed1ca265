--- Durable streams over HTTP: read, append and produce, without losing or repeating anything.
--
--     local durable = require "weir.durable"
--     local client = durable.client{ base_url = "http://localhost:4437" }
--     local stream = client:stream("/events", { codec = "json" })
--     stream:create()
--     stream:append({ hello = "world" })
--     for value in stream:read{ live = "auto" }:items() do print(value.hello) end
--
-- See `weir.durable.client`, `weir.durable.stream`, `weir.durable.reader`, `weir.durable.producer` and
-- `weir.durable.errors`.
-- @module weir.durable

local client = require("weir.durable.client")
local producer = require("weir.durable.producer")

local durable = {}

--- Makes a client.
-- @function client
-- @tparam ?table opts see `weir.durable.client.new`
durable.client = client.new

--- Makes a producer on a URL, with a client of its own, or on a stream.
-- @function producer
-- @tparam table opts `url` or `stream`, and what `weir.durable.producer.new` takes
durable.producer = producer.open

return durable
