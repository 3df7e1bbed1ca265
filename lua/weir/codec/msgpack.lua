--- The codec "msgpack": `weir.msgpack` with errors as objects. Integers stay exact, and strings may
-- hold any bytes. See there for how values map.
--
-- It needs the C module that is built where msgpack-c is (Debian: libmsgpack-dev).
-- @module weir.codec.msgpack
return require("weir.codec.native")("msgpack", "msgpack-c", "libmsgpack-dev")
