local text = require("weir.top.text")
local view = require("weir.top.view")

local function row(name, rate, lag)
  return {
    app = "a", broker = "b", handler = name, destination = name, rate = rate, lag = lag, consumed = 5, in_flight = 0,
    outcome_rates = { ack = rate }, outcomes = {}, p99 = 0.0012,
  }
end

local function state(rows, more)
  local result = {
    source = "http://x/metrics",
    data = { known = true, subscriptions = rows, published = {}, streams = {}, brokers = {}, runtime = {} },
  }
  for name, value in pairs(more or {}) do
    result[name] = value
  end
  return result
end

local function texts(of, options)
  local lines, most = view.lines(of, options)
  local list = {}
  for i, line in ipairs(lines) do
    list[i] = line[1]
  end
  return list, most
end

-- The first words of the lines below the heading.
local function order(of, options)
  options.width = 100
  local names, below = {}, false
  for _, line in ipairs(texts(of, options)) do
    if below then
      names[#names + 1] = line:match("^%S+")
    end
    below = below or line:find("^SUBSCRIPTION") ~= nil
  end
  return table.concat(names, " ")
end

describe("the view of weir top", function()
  local rows = { row("alpha", 5, 1), row("beta", 50, 0), row("gamma", 5, 9) }

  it("sorts by what is asked for, equals by name", function()
    assert.equal("alpha beta gamma", order(state(rows), { sort = "name" }))
    assert.equal("beta alpha gamma", order(state(rows), { sort = "MSG/S" }))
    assert.equal("gamma alpha beta", order(state(rows), { sort = "LAG" }))
    assert.equal("gamma beta alpha", order(state(rows), { sort = "name", reverse = true }))
  end)

  it("fits into terminals of any size", function()
    local many = {}
    for i = 1, 40 do
      many[i] = row(("a long name of a subscription %d \u{4E2D}\u{6587}"):format(i), i * 1e6, i)
    end
    for width = 1, 200, 3 do
      for height = 1, 50, 7 do
        local shown = state(many, { error = "connection lost" })
        local lines = texts(shown, { width = width, height = height, keys = "q quit" })
        assert.is_true(#lines <= height)
        for _, line in ipairs(lines) do
          assert.is_true(text.width(line) <= width, ("%d: %s"):format(width, line))
        end
      end
    end
  end)

  it("leaves out what matters less where it is narrow", function()
    local function heading(width)
      return table.concat(texts(state(rows), { width = width }), "\n"):match("SUBSCRIPTION[^\n]*")
    end
    assert.matches("MSG/S .*P50.*TOTAL", heading(100))
    local narrow = heading(40)
    assert.matches("MSG/S", narrow)
    assert.matches("LAG", narrow)
    assert.not_matches("TOTAL", narrow)
    assert.not_matches("ACK", heading(30))
  end)

  it("scrolls no further than to the last line", function()
    local many = {}
    for i = 1, 40 do
      many[i] = row(("s%02d"):format(i), 1, 1)
    end
    local _, most = texts(state(many), { width = 80, height = 20 })
    local lines = texts(state(many), { width = 80, height = 20, skip = 1000, keys = "keys" })
    assert.matches("^s40", lines[19])
    assert.equal("keys", lines[20])
    assert.same(lines, texts(state(many), { width = 80, height = 20, skip = most, keys = "keys" }))
    assert.matches("^weir top", lines[1])
  end)

  it("shows what others name as one line of text, and no commands for the terminal", function()
    local bad = row("a\27[2Jb\n\255\194\155c", 1, 1)
    for _, line in ipairs(texts(state({ bad }, { log = "x\27]0;y\7" }), { width = 100, height = 10 })) do
      assert.not_matches("%c", line)
      assert.is_truthy(utf8.len(line))
      assert.not_matches("\194[\128-\159]", line)
    end
  end)

  it("shows no more than 2048 bytes of a name, and keeps no more than 4096 of what an application prints", function()
    assert.equal(("x"):rep(2048) .. "... (2952 bytes more)", text.clean(("x"):rep(5000)))
    local output = require("weir.top.output").new()
    output:note(("x"):rep(5000))
    assert.equal(4096, #output.last)
  end)

  it("says what the matter is when there is nothing to show", function()
    assert.matches("nothing is subscribed", table.concat(texts(state({}), { width = 80 }), "\n"))
    local other = state({})
    other.data.known = false
    assert.matches("none of weir's", table.concat(texts(other, { width = 80 }), "\n"))
    assert.equal("no answer", texts({ source = "x", error = "no answer" }, { width = 80, height = 5 })[2])
  end)
end)

describe("numbers in few columns", function()
  it("have units, and never more columns than there are", function()
    assert.same({ "0", "999", "1.0k", "12.3k", "123k", "1.0M", "-", "?", "0.5", "1.5" }, {
      text.number(0), text.number(999), text.number(1000), text.number(12345), text.number(123456),
      text.number(999999), text.number(nil), text.number(0 / 0), text.number(0.5), text.number(1.5),
    })
    assert.same({ "0 B", "1023 B", "1.0 KiB", "1.5 MiB" },
      { text.bytes(0), text.bytes(1023), text.bytes(1024), text.bytes(1572864) })
    assert.same({ "250us", "1.2ms", "2.5s", "120s", "-" },
      { text.seconds(0.00025), text.seconds(0.0012), text.seconds(2.5), text.seconds(120), text.seconds(nil) })
    for exponent = -30, 170 do
      local value = 1.2345 * 10 ^ (exponent / 10)
      assert.is_true(#text.number(value) <= 6, text.number(value))
      assert.is_true(#text.bytes(value) <= 9, text.bytes(value))
    end
  end)

  it("are cut and padded by columns, not by bytes", function()
    assert.equal("ab~", text.fit("abcd", 3))
    assert.equal("\u{4E2D}~ ", text.fit("\u{4E2D}\u{6587}\u{4E2D}", 4))
    assert.equal(" é", text.fit("é", 2, true))
    assert.equal("", text.fit("abc", 0))
  end)
end)
