--- The files of a new application: for `weir new`.
-- @module weir.templates

local M = {}

--- The brokers that there are templates for; the first is the default.
M.BROKERS = { "memory", "nats", "durable" }

-- What differs between brokers: how it is made, what the program needs beside that, and how it is tried.
local PARTS = {
  memory = {
    broker = [[
-- It keeps its messages in this process; memory:///DIR keeps them in a directory.
app:broker(weir.env("BROKER", "memory:"))
]],
    more = [[

-- Nobody else can publish to a broker within this process, so it begins with the one that HELLO names.
local first = weir.env("HELLO", "")
if first ~= "" then
  local hellos = app:publisher({ to = "@NAME@.hello" })
  app:on("started", function()
    assert(hellos:publish({ name = first }))
  end)
end
]],
    try = [[
    weir run app.lua --env HELLO=Ada
]],
    about = [[
It runs on the memory broker, within its process. `--env BROKER=memory:///var/lib/@NAME@` keeps the messages in a
directory, where `weir publish` and `weir dlq` find them, too, while it does not run; `BROKER=nats://HOST:PORT` takes a
server.]],
  },
  nats = {
    broker = [[
app:broker(weir.broker(weir.env("BROKER", "nats://127.0.0.1:4222"), {
  jetstream = { stream = "@STREAM@", create = { subjects = { "@NAME@.>" } } },
}))
]],
    more = "",
    try = [[
    nats-server -js &
    weir run app.lua &
    weir publish app.lua @NAME@.hello '{"name": "Ada"}'
    weir dlq list app.lua @NAME@.dead
]],
    about = [[
It runs on a NATS server with JetStream, at `nats://127.0.0.1:4222` unless `--env BROKER=nats://HOST:PORT` says
otherwise. The stream `@STREAM@` is made when it is not there.]],
  },
  durable = {
    broker = [[
app:broker(weir.env("BROKER", "durable+http://127.0.0.1:4437/@NAME@"))
]],
    more = "",
    try = [[
    weir run app.lua &
    weir publish app.lua @NAME@.hello '{"name": "Ada"}'
    weir dlq list app.lua @NAME@.dead
]],
    about = [[
It runs on a server of durable streams, at `http://127.0.0.1:4437/@NAME@` unless `--env BROKER=durable+http://HOST/PATH`
says otherwise.]],
  },
}

local APP = [[
--- @NAME@: answers hellos.
--
--     weir run app.lua
local weir = require("weir")

local app = weir.app("@NAME@", "0.1.0", { description = "Answers hellos." })
@BROKER@
local Hello = weir.schema({
  title = "Hello",
  properties = { name = { type = "string", minLength = 1 } },
})

-- What it returns is published to @NAME@.greetings. What fails comes again, at longer and longer intervals; what
-- cannot be handled goes to @NAME@.dead with the reason.
app:subscriber("@NAME@.hello", {
  schema = Hello,
  reply = "@NAME@.greetings",
  retry = { max_attempts = 5, backoff = "exponential" },
  dead_letter = "@NAME@.dead",
}, function(hello)
  return { text = ("Hello, %s!"):format(hello.name) }
end)

app:subscriber("@NAME@.greetings", function(greeting, ctx)
  ctx.log:info("greeted", { text = greeting.text })
end)
@MORE@
return app
]]

local SPEC = [[
-- Run it with `busted`: the application as it is, on a broker within this process.
local weir = require("weir")

describe("@NAME@", function()
  local kit

  before_each(function()
    kit = weir.test("app.lua")
  end)

  after_each(function()
    kit:stop()
  end)

  it("answers a hello", function()
    kit:publish("@NAME@.hello", { name = "Ada" })
    kit:subscriber("@NAME@.hello"):assert_outcome("ack")
    kit:published("@NAME@.greetings"):assert_count(1):assert_with({ text = "Hello, Ada!" })
  end)

  it("puts aside what is no hello", function()
    kit:publish("@NAME@.hello", { nobody = true })
    kit:published("@NAME@.greetings"):assert_count(0)
    kit:published("@NAME@.dead"):assert_count(1)
  end)
end)
]]

local README = [[
# @NAME@

An application on [weir](https://github.com/weir-lua/weir): `app.lua` has its handlers, `spec/` its tests.

    weir check app.lua    # is the wiring right?
    busted                # run the tests; they need no server

@ABOUT@

@TRY@
While you work on it, `weir run app.lua --reload` starts it anew whenever a file changes.
]]

local LUACHECK = [[
std = "lua54"
max_line_length = 120
files["spec"] = { std = "+busted" }
]]

-- The interpreter of busted itself may be another one.
local BUSTED = [[
return { default = { lua = "@LUA@" } }
]]

local function fill(text, values)
  return (text:gsub("@(%u+)@", values))
end

--- The files of an application.
-- @string name of lower-case letters, digits, - and _
-- @string broker one of `BROKERS`
-- @treturn {{path=string,text=string},...} in the order in which they are to be read
function M.files(name, broker)
  local parts = PARTS[broker]
  local interpreter = require("luv").exepath():match("[^/]*$")
  local values = { NAME = name, STREAM = name:upper(), LUA = interpreter }
  for key, text in pairs({ BROKER = parts.broker, MORE = parts.more, TRY = parts.try, ABOUT = parts.about }) do
    values[key] = fill(text, values)
  end
  return {
    { path = "README.md", text = fill(README, values) },
    { path = "app.lua", text = fill(APP, values) },
    { path = "spec/app_spec.lua", text = fill(SPEC, values) },
    { path = ".busted", text = fill(BUSTED, values) },
    { path = ".luacheckrc", text = LUACHECK },
  }
end

return M
