--- The adapter answers as the protocol of the client suite has it.
local cjson = require("cjson")
local here = require("spec.lua.durable.support")
local programs = require("spec.programs")

-- Runs the adapter with these commands; its answers.
local function ask(commands)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  for _, command in ipairs(commands) do
    file:write(cjson.encode(command), "\n")
  end
  file:close()
  local _, out = programs.run({ "sh", "-c", "spec/conformance/durable/adapter <" .. path })
  os.remove(path)
  local answers = {}
  for line in out:gmatch("[^\n]+") do
    answers[#answers + 1] = cjson.decode(line)
  end
  return answers
end

describe("The adapter", function()
  if not here.available() then
    pending("the reference server is not installed: spec/setup test")
    return
  end

  it("declares every feature and answers in order", function()
    local server = here.server()
    local answers = ask({
      { type = "init", serverUrl = server.url },
      { type = "create", path = "/a", contentType = "text/plain" },
      { type = "append", path = "/a", data = "x\226\128\168y" },
      { type = "read", path = "/a" },
      { type = "read", path = "/missing" },
      { type = "idempotent-append", path = "/a", data = "z", producerId = "p", epoch = 0, autoClaim = false },
      { type = "close", path = "/a" },
      { type = "append", path = "/a", data = "late" },
      { type = "nonsense" },
      { type = "shutdown" },
    })
    server:stop()
    assert.equal(10, #answers)
    for _, name in ipairs({ "batching", "sse", "longPoll", "auto", "streaming", "dynamicHeaders", "retryOptions",
      "batchItems", "strictZeroValidation" }) do
      assert.is_true(answers[1].features[name], name)
    end
    assert.equal(201, answers[2].status)
    assert.equal("x\226\128\168y", answers[4].chunks[1].data)
    assert.is_false(answers[4].streamClosed)
    assert.equal("NOT_FOUND", answers[5].errorCode)
    assert.equal(200, answers[6].status)
    assert.is_string(answers[7].finalOffset)
    assert.equal("STREAM_CLOSED", answers[8].errorCode)
    assert.equal("NOT_SUPPORTED", answers[9].errorCode)
    assert.is_true(answers[10].success)
  end)
end)
