--- The version of weir, as a string such as `"0.1.0"`. The build reads it from here.
-- @module weir.version
return "0.1.0"
