local parser = require("weir.http.parser")

local LIMITS = { max_head = 4096, max_body = 1000 }

-- What becomes of bytes that arrive in pieces of `step` bytes: a list of requests, then a status if they are refused.
local function parse(text, step, limits)
  local self, requests = parser.new(limits or LIMITS), {}
  step = step or #text
  for at = 1, #text, math.max(step, 1) do
    self:feed(text:sub(at, at + step - 1))
    while true do
      local request, status, why = self:next()
      if status then
        assert.is_string(why)
        return requests, status
      elseif not request then
        break
      end
      requests[#requests + 1] = request
    end
  end
  return requests, nil, self
end

local function one(text)
  local requests, status = parse(text)
  assert.is_nil(status)
  assert.equal(1, #requests)
  return requests[1]
end

local function refused(status, text)
  for _, step in ipairs({ #text, 1, 7 }) do
    local requests, got = parse(text, step)
    assert.equal(status, got, text)
    assert.equal(0, #requests)
  end
end

local function get(fields)
  return "GET / HTTP/1.1\r\nHost: a\r\n" .. fields .. "\r\n"
end

local function post(fields, body)
  return "POST /p HTTP/1.1\r\nHost: a\r\n" .. fields .. "\r\n" .. body
end

describe("weir.http.parser", function()
  it("reads the line, the fields and the body of a request", function()
    local request = one("POST /a%20b?x=1&y=a+b%21&x=2 HTTP/1.1\r\nHost: h\r\nX-Y:  z \r\nContent-Length: 3\r\n\r\nabc")
    assert.equal("POST", request.method)
    assert.equal("/a%20b?x=1&y=a+b%21&x=2", request.target)
    assert.equal("/a b", request.path)
    assert.same({ x = "1", y = "a b!" }, request.query)
    assert.same({ host = "h", ["x-y"] = "z", ["content-length"] = "3" }, request.headers)
    assert.equal("abc", request.body)
    assert.is_true(request.keep_alive)
  end)

  it("gives the same, however the bytes are split", function()
    local text = get("A: b\r\n")
      .. post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nT: u\r\n\r\n")
      .. post("Content-Length: 4\r\n", "\r\n\r\n")
      .. "\r\n"
      .. get("")
    local whole, status, rest = parse(text)
    assert.is_nil(status)
    assert.equal(4, #whole)
    assert.equal("abcd", whole[2].body)
    assert.equal("\r\n\r\n", whole[3].body)
    assert.is_false(rest:is_busy())
    for step = 1, 40 do
      assert.same(whole, (parse(text, step)))
    end
  end)

  it("takes targets with a host, and a path that is left out of them", function()
    assert.equal("/x", one("GET http://a:1/x?y HTTP/1.1\r\nHost: a\r\n\r\n").path)
    assert.equal("/", one("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n").path)
    assert.equal("*", one("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").path)
  end)

  it("knows when the connection is to end", function()
    assert.is_false(one(get("Connection: x, Close\r\n")).keep_alive)
    assert.is_false(one("GET / HTTP/1.0\r\n\r\n").keep_alive)
    assert.is_true(one("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive)
  end)

  it("says once that the client waits for leave to send its body", function()
    local self = parser.new(LIMITS)
    self:feed(post("Expect: 100-continue\r\nContent-Length: 2\r\n", ""))
    assert.is_nil(self:next())
    assert.is_true(self:wants_continue())
    assert.is_false(self:wants_continue())
    self:feed("ab")
    assert.equal("ab", self:next().body)
    assert.is_nil(one(post("Expect: 100-continue\r\nContent-Length: 2\r\n", "ab")).expects)
  end)

  describe("refuses what two programs could understand differently:", function()
    local wrong = {
      ["a length beside a transfer coding"] = post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
      ["a transfer coding beside a length"] = post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "0\r\n\r\n"),
      ["two lengths"] = post("Content-Length: 3\r\nContent-Length: 4\r\n", "abcd"),
      ["the same length twice"] = post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc"),
      ["a list of lengths"] = post("Content-Length: 3, 3\r\n", "abc"),
      ["a length with a sign"] = post("Content-Length: +3\r\n", "abc"),
      ["a negative length"] = post("Content-Length: -3\r\n", "abc"),
      ["a hexadecimal length"] = post("Content-Length: 0x3\r\n", "abc"),
      ["an empty length"] = post("Content-Length:\r\n", "abc"),
      ["two transfer codings"] = post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
      ["a transfer coding in HTTP/1.0"] = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      ["a space before the colon"] = post("Content-Length : 3\r\n", "abc"),
      ["a folded line"] = get("A: b\r\n c\r\n"),
      ["a line that ends in LF alone"] = "GET / HTTP/1.1\nHost: a\n\n",
      ["a field that ends in LF alone"] = get("A: b\nC: d\r\n"),
      ["a CR within a line"] = get("A: b\rC: d\r\n"),
      ["a NUL in a field"] = get("A: b\0\r\n"),
      ["a chunk size with a sign"] = post("Transfer-Encoding: chunked\r\n", "+3\r\nabc\r\n0\r\n\r\n"),
      ["a chunk size with 0x"] = post("Transfer-Encoding: chunked\r\n", "0x3\r\nabc\r\n0\r\n\r\n"),
      ["a chunk line that ends in LF alone"] = post("Transfer-Encoding: chunked\r\n", "3\nabc\r\n0\r\n\r\n"),
      ["a chunk longer than its size"] = post("Transfer-Encoding: chunked\r\n", "2\r\nabc\r\n0\r\n\r\n"),
      ["an empty chunk size"] = post("Transfer-Encoding: chunked\r\n", "\r\nabc\r\n"),
      ["no host"] = "GET / HTTP/1.1\r\n\r\n",
      ["two hosts"] = get("Host: b\r\n"),
      ["a space in a target"] = "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
      ["two spaces in the line"] = "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
      ["a target that is no path"] = "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
      ["a bad percent sign"] = "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
      ["a control character in a path"] = "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
      ["a fragment"] = "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
      ["HTTP/0.9"] = "GET /\r\n\r\n",
      ["a line without a colon"] = get("abc\r\n"),
      ["a field without a name"] = get(": b\r\n"),
      ["only empty lines"] = ("\r\n"):rep(10),
      ["bytes of TLS"] = "\22\3\1\2\0\1\0\1\252\3\3\r\n\r\n",
    }
    for what, text in pairs(wrong) do
      it(what, function()
        refused(400, text)
      end)
    end
  end)

  it("does not wait for the end of a line of what is no HTTP", function()
    refused(400, "\22\3\1\2\0\1\0\1\252\3\3")
    refused(400, "\0")
    refused(400, "\r\n\22\3\1")
    refused(400, (" "):rep(20000))
    local _, status, self = parse("\r")
    assert.is_nil(status)
    self:feed("\n" .. get(""))
    assert.equal("/", self:next().path)
  end)

  it("says what it does not understand", function()
    refused(501, post("Transfer-Encoding: gzip, chunked\r\n", ""))
    refused(501, ("X"):rep(40) .. " / HTTP/1.1\r\nHost: a\r\n\r\n")
    refused(505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n")
    refused(417, post("Expect: a miracle\r\nContent-Length: 2\r\n", "ab"))
  end)

  it("bounds the target, the head and the number of fields", function()
    refused(414, "GET /" .. ("a"):rep(20000))
    refused(414, "GET /" .. ("a"):rep(20000) .. " HTTP/1.1\r\nHost: a\r\n\r\n")
    refused(431, get("A: " .. ("b"):rep(5000) .. "\r\n"))
    refused(431, "GET / HTTP/1.1\r\n" .. ("A: b\r\n"):rep(2000))
    refused(431, get(("A: b\r\n"):rep(150)))
  end)

  it("bounds bodies, before they come", function()
    refused(413, post("Content-Length: 1001\r\n", ""))
    refused(413, post("Content-Length: 99999999999999\r\n", ""))
    refused(413, post("Transfer-Encoding: chunked\r\n", "3e9\r\n"))
    refused(413, post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n"))
    assert.equal(1000, #one(post("Content-Length: 1000\r\n", ("x"):rep(1000))).body)
  end)

  it("bounds what surrounds the chunks of a body", function()
    refused(413, post("Transfer-Encoding: chunked\r\n", ("1;" .. ("x"):rep(200) .. "\r\na\r\n"):rep(100)))
    refused(400, post("Transfer-Encoding: chunked\r\n", "1;" .. ("x"):rep(300)))
    refused(431, post("Transfer-Encoding: chunked\r\n", "0\r\n" .. ("A: b\r\n"):rep(1000)))
    refused(400, post("Transfer-Encoding: chunked\r\n", "0\r\nno field\r\n\r\n"))
  end)

  it("comes to the same, splits or not, for whatever bytes", function()
    local seeds = {
      get("A: b\r\nCookie: c=d\r\nCookie: e\r\n"),
      post("Content-Length: 5\r\n", "hello") .. get(""),
      post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\nA;b=c\r\n0123456789\r\n0\r\nT: u\r\n\r\n") .. get(""),
      post("Expect: 100-continue\r\nContent-Length: 2\r\n", "ab"),
    }
    local pieces = { "\r\n", "\n", "\r", ":", " ", "0", "\0", "%", "\255", "chunked", "\r\n\r\n" }
    pieces[#pieces + 1] = "Content-Length: 1\r\n"
    local seed = 7
    local function random(n)
      seed = seed * 16807 % 2147483647
      return seed % n + 1
    end
    local accepted = 0
    for _ = 1, 4000 do
      local text = seeds[random(#seeds)]
      for _ = 1, random(3) do
        local at, kind = random(#text), random(4)
        if kind == 1 then
          text = text:sub(1, at - 1) .. text:sub(at + random(4))
        elseif kind == 2 then
          text = text:sub(1, at) .. pieces[random(#pieces)] .. text:sub(at + 1)
        elseif kind == 3 then
          text = text:sub(1, at - 1) .. string.char(random(256) - 1) .. text:sub(at + 1)
        else
          text = text:sub(1, at) .. text:sub(random(#text))
        end
      end
      local whole, status = parse(text)
      for _, step in ipairs({ 1, 2 + random(30) }) do
        local again, other = parse(text, step)
        assert.same(whole, again, text)
        assert.equal(status, other, text)
      end
      accepted = accepted + #whole
    end
    assert.is_true(accepted > 100)
  end)
end)
