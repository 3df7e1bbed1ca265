--- The runtime that weir runs on: waiting, waking, tasks, timers and connections.
--
-- Everything above it is written against this interface, which docs/runtime.md describes. On libuv
-- (through the luv module) it is `weir.runtime.uv`.
-- @module weir.runtime
return require("weir.runtime.uv")
