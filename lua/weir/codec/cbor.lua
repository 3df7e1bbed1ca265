--- The codec "cbor": `weir.cbor` with errors as objects. Integers stay exact, and strings may hold any
-- bytes. See there for how values map.
--
-- It needs the C module that is built where libcbor is (Debian: libcbor-dev).
-- @module weir.codec.cbor
return require("weir.codec.native")("cbor", "libcbor", "libcbor-dev")
