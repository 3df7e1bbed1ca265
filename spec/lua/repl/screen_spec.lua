local screens = require("weir.repl.screen")

describe("weir.repl.screen", function()
  it("gathers 64 KiB at most before it writes them above the prompt, with or without line ends", function()
    for _, text in ipairs({ ("x"):rep(1000), ("x"):rep(999) .. "\n" }) do
      local written = 0
      local out = {
        write = function(_, some)
          written = written + #some
          return true
        end,
        flush = function()
          return true
        end,
      }
      local screen = screens.new(out)
      screen:over({ hide = function() end, show = function() end })
      local most = 0
      for i = 1, 200 do
        screen:write(text)
        most = math.max(most, i * #text - written)
      end
      assert.is_true(most > 60000 and most < 65536, most)
      screen:over()
      assert.is_true(written >= 200 * #text)
    end
  end)
end)
