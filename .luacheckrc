std = "lua54"
max_line_length = 120
exclude_files = { "**/node_modules", "build" }
files[".busted"] = { std = "+lua54" }
files["spec"] = { std = "+busted" }
-- LDoc reads its configuration as assignments to globals.
files["docs/config.ld"] = { allow_defined_top = true, ignore = { "131" } }
-- The specs that also run under LuaJIT may only use what both have.
files["spec/lua/core"] = { std = "max+busted" }
