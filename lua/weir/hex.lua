--- Bytes as lower-case hex digits.
-- @module weir.hex

--- Writes bytes as hex digits.
-- @tparam string bytes
-- @treturn string twice as long
return function(bytes)
  return (bytes:gsub(".", function(c)
    return ("%02x"):format(c:byte())
  end))
end
