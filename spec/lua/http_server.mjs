// Servers for http_spec.lua: plain, TLS, HTTP/2, and one that writes bytes as they are told. The first
// line of output is their ports as JSON; it ends with its standard input.
//   node http_server.mjs KEY CERT
import { readFileSync } from 'node:fs'
import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import net from 'node:net'
import zlib from 'node:zlib'

const [keyFile, certFile] = process.argv.slice(2)
const tls = { key: readFileSync(keyFile), cert: readFileSync(certFile) }

const state = { connections: 0, aborted: 0, posts: 0, written: 0, received: 0, open: 0 }

// Bytes that tell their own offset.
function pattern (offset, length) {
  const bytes = Buffer.allocUnsafe(length)
  for (let i = 0; i < length; i++) bytes[i] = ((offset + i) * 31 + ((offset + i) >> 8)) & 255
  return bytes
}

function send (res, size, step) {
  let at = 0
  const more = () => {
    while (at < size) {
      const length = Math.min(step, size - at)
      const ready = res.write(pattern(at, length))
      at += length
      state.written = at
      if (!ready) return res.once('drain', more)
    }
    res.end()
  }
  more()
}

const later = []
let zeros
const sockets = new Map()

const routes = {
  bytes: (req, res, q) => {
    const size = Number(q.get('n'))
    if (q.has('length')) res.setHeader('Content-Length', size)
    send(res, size, 65536)
  },
  stats: (req, res) => res.end(JSON.stringify(state)),
  status: (req, res, q) => { res.statusCode = Number(q.get('code')); res.end() },
  redirect: (req, res) => { res.writeHead(302, { Location: '/stats' }); res.end('elsewhere') },
  echo: (req, res) => {
    const parts = []
    req.on('data', part => parts.push(part))
    req.on('end', () => {
      res.setHeader('X-Method', req.method)
      res.setHeader('X-Fields', JSON.stringify(req.headers))
      res.end(Buffer.concat(parts))
    })
  },
  // Reads the body only when it is told to.
  hold: (req, res, q) => {
    req.pause()
    state.received = 0
    req.on('data', part => { state.received += part.length })
    req.pause()
    later.push(() => req.resume())
    req.on('end', () => res.end(String(state.received)))
    if (q.has('go')) req.resume()
  },
  // Reads 64 KiB every 10 ms.
  sip: (req, res) => {
    req.on('data', () => { req.pause(); setTimeout(() => req.resume(), 10) })
    req.on('end', () => res.end('drunk'))
  },
  release: (req, res) => { later.splice(0).forEach(fn => fn()); res.end() },
  // As servers that linger: what the client still sends is read, so that no reset overtakes the answer.
  refuse: (req, res) => { req.resume(); res.writeHead(413); res.end('too much') },
  never: (req, res) => { req.resume(); res.on('close', () => state.aborted++) },
  stall: (req, res) => { res.write('begun'); res.on('close', () => state.aborted++) },
  slow: (req, res, q) => {
    let n = 0
    const timer = setInterval(() => {
      res.write('x')
      if (++n === 5) { clearInterval(timer); res.end() }
    }, Number(q.get('ms')))
  },
  gzip: (req, res) => {
    const packed = zlib.gzipSync('words '.repeat(1000))
    res.setHeader('Content-Encoding', 'gzip')
    res.setHeader('X-Asked', req.headers['accept-encoding'] || 'no')
    res.end(packed)
  },
  // 96 MiB of zeros in 96 KiB.
  zeros: (req, res) => {
    res.setHeader('Content-Encoding', 'gzip')
    zeros ??= zlib.gzipSync(Buffer.alloc(96 * 1024 * 1024))
    res.end(zeros)
  },
  fields: (req, res, q) => {
    for (let i = 0; i < Number(q.get('n')); i++) res.setHeader('X-' + i, 'v'.repeat(Number(q.get('size') || 1)))
    res.end('done')
  },
  // HTTP/2: ends the stream with that code, before anything, or after a part of the body.
  cancel: (req, res, q) => {
    state.posts += req.method === 'POST'
    const close = () => res.stream.close(Number(q.get('code')))
    if (q.has('after')) res.write('begun', () => setTimeout(close, 20))
    else close()
  },
  // Says 413 and that it wants no more of the body.
  enough: (req, res) => {
    res.statusCode = 413
    res.end('enough')
    res.stream.on('finish', () => res.stream.close(0))
  },
  // HTTP/2: tells the client to go elsewhere with new requests, and answers this one or breaks the connection.
  goaway: (req, res, q) => {
    res.stream.session.goaway(Number(q.get('code')))
    const socket = sockets.get(req.socket.remotePort)
    setTimeout(() => q.has('cut') ? socket.destroy() : res.end('last'), 20)
  },
  die: (req, res) => { req.resume(); req.on('end', () => { state.posts++; req.socket.destroy() }) },
  count: (req, res) => { req.resume(); req.on('end', () => { state.posts++; res.end() }) }
}

function answer (req, res) {
  const url = new URL(req.url, 'http://x')
  const route = routes[url.pathname.slice(1)]
  if (!route) { res.statusCode = 404; return res.end() }
  route(req, res, url.searchParams)
}

// Answers with the bytes that the query says, base64, and ends, resets or keeps the connection.
function raw (socket) {
  let text = ''
  socket.on('error', () => {})
  socket.on('data', data => {
    text += data
    const found = /^GET \/([A-Za-z0-9+/=_-]*)(?:\?(\w+))? HTTP/.exec(text)
    if (!found || !text.includes('\r\n\r\n')) return
    text = ''
    socket.write(Buffer.from(found[1], 'base64url'))
    if (found[2] === 'end') socket.end()
    if (found[2] === 'reset') setTimeout(() => socket.resetAndDestroy(), 50)
  })
}

// A bomb: a head that has no end.
function bomb (socket) {
  socket.on('error', () => {})
  socket.write('HTTP/1.1 200 OK\r\n')
  const more = () => { while (!socket.destroyed && socket.write('X-Bomb: ' + 'x'.repeat(1000) + '\r\n')); }
  socket.on('drain', more)
  more()
}

// Takes requests on a connection; breaks it off, in silence, at the second.
function once (socket) {
  let n = 0
  socket.on('error', () => {})
  socket.on('data', data => {
    if (!data.includes('\r\n\r\n')) return
    if (++n === 1) return socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    state.posts++
    socket.resetAndDestroy()
  })
}

const plain = http.createServer(answer)
plain.on('connection', socket => { state.connections++; state.open++; socket.on('close', () => state.open--) })
const brief = http.createServer({ keepAliveTimeout: 1 }, answer)
brief.keepAliveTimeout = 50
const servers = {
  plain,
  brief,
  tls: https.createServer(tls, answer),
  other: https.createServer(tls, answer), // at an address that the certificate does not name
  h2: http2.createSecureServer({ ...tls, allowHTTP1: true }, answer),
  raw: net.createServer(raw),
  bomb: net.createServer(bomb),
  once: net.createServer(once),
  mute: net.createServer(socket => { socket.on('error', () => {}) })
}
servers.h2.on('session', () => { state.connections++ })
// The sessions of node do not let go of their sockets.
servers.h2.on('secureConnection', socket => { sockets.set(socket.remotePort, socket) })
const ports = {}
for (const [name, server] of Object.entries(servers)) {
  await new Promise(resolve => server.listen(0, name === 'other' ? '127.0.0.2' : '127.0.0.1', resolve))
  ports[name] = server.address().port
}
console.log(JSON.stringify(ports))
process.stdin.on('end', () => process.exit(0)).resume()
