// A yamux peer for yamux_spec.lua, on libp2p's implementation. See PEER.md.
import { once } from 'node:events'
import net from 'node:net'
import { yamux } from '@chainsafe/libp2p-yamux'

const role = process.argv[2]
if (role !== 'client' && role !== 'server') {
  console.error('usage: peer.mjs client|server')
  process.exit(2)
}

const say = (line) => process.stdout.write(line + '\n')
const logger = Object.assign(() => {}, { error () {}, trace () {}, enabled: false })
const components = { logger: { forComponent: () => logger } }

// Which of several blocks of 64 KiB a pattern is in depends on nothing but key and offset modulo
// 65536, so one block per key is enough.
const blocks = new Map()
function block (key) {
  key %= 256
  let bytes = blocks.get(key)
  if (bytes === undefined) {
    bytes = Buffer.alloc(65536)
    for (let i = 0; i < bytes.length; i++) bytes[i] = (31 * key + 7 * i + (i >> 8)) & 255
    blocks.set(key, bytes)
  }
  return bytes
}

function * pattern (key, total) {
  for (let at = 0; at < total; at += 65536) yield block(key).subarray(0, Math.min(65536, total - at))
}

class Verifier {
  constructor (key) {
    this.block = block(key)
    this.count = 0
    this.bad = -1
  }

  take (bytes) {
    bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    for (let at = 0; at < bytes.length;) {
      const from = this.count % 65536
      const n = Math.min(bytes.length - at, 65536 - from)
      if (this.bad < 0 && bytes.compare(this.block, from, from + n, at, at + n) !== 0) this.bad = this.count
      at += n
      this.count += n
    }
  }

  verdict () {
    return this.bad < 0 ? `ok ${this.count}` : `bad ${this.bad}`
  }
}

// Reads a stream: lines first, then chunks.
class Reader {
  constructor (stream) {
    this.chunks = stream.source[Symbol.asyncIterator]()
    this.rest = Buffer.alloc(0)
  }

  async next () {
    if (this.rest.length > 0) {
      const rest = this.rest
      this.rest = Buffer.alloc(0)
      return rest
    }
    const { done, value } = await this.chunks.next()
    return done ? undefined : value.subarray()
  }

  async line () {
    let text = Buffer.alloc(0)
    while (true) {
      const end = text.indexOf(10)
      if (end >= 0) {
        this.rest = text.subarray(end + 1)
        return text.subarray(0, end).toString()
      }
      const chunk = await this.next()
      if (chunk === undefined) return undefined
      text = Buffer.concat([text, chunk])
    }
  }

  async * all () {
    for (let chunk; (chunk = await this.next()) !== undefined;) yield chunk
  }
}

const answer = (stream, text) => stream.sink([Buffer.from(text + '\n')])

async function verify (reader, key) {
  const verifier = new Verifier(key)
  for await (const chunk of reader.all()) verifier.take(chunk)
  return verifier.verdict()
}

let resume
const resumed = new Promise((resolve) => { resume = resolve })

async function roundTrip (key, total) {
  const stream = muxer.newStream()
  const [verdict] = await Promise.all([verify(new Reader(stream), key), stream.sink(pattern(key, total))])
  if (verdict !== `ok ${total}`) throw new Error(`stream ${key}: ${verdict}`)
}

const commands = {
  echo: (stream, reader) => stream.sink(reader.all()),
  sink: async (stream, reader, key) => answer(stream, await verify(reader, key)),
  hold: async (stream, reader, key) => {
    await resumed
    await answer(stream, await verify(reader, key))
  },
  resume: (stream) => {
    resume()
    return answer(stream, 'ok')
  },
  source: async (stream, reader, key, total) => {
    await stream.sink(pattern(key, total))
    say((await verify(reader, key)).replace('ok', 'sunk'))
  },
  open: async (stream, reader, count, total) => {
    const trips = []
    for (let key = 1; key <= count; key++) trips.push(roundTrip(key, total))
    let text = `ok ${count}`
    await Promise.all(trips).catch((error) => { text = `bad ${error.message}` })
    await answer(stream, text)
  },
  reset: (stream) => stream.abort(new Error('reset')),
  'await-reset': async (stream, reader) => {
    say('reading')
    try {
      for await (const _ of reader.all());
    } catch (error) {
      if (error.name === 'StreamResetError') say('was reset')
    }
  },
  ping: async (stream) => {
    await muxer.ping()
    await answer(stream, 'ok')
  },
  'go-away': () => muxer.close(),
  'expect-go-away': () => {} // said where the muxer ends
}

async function onIncomingStream (stream) {
  try {
    const reader = new Reader(stream)
    const [name, ...numbers] = (await reader.line() ?? '').split(' ')
    if (commands[name] === undefined) throw new Error(`unknown command '${name}'`)
    await commands[name](stream, reader, ...numbers.map(Number))
  } catch (error) {
    if (error.name !== 'StreamResetError') say(`error ${error.message}`)
    stream.abort(error)
  }
}

const factory = yamux({ enableKeepAlive: false })(components)
let muxer

async function write (socket) {
  const closed = once(socket, 'close')
  for await (const chunk of muxer.source) {
    if (!socket.write(chunk.subarray()) && !socket.destroyed) {
      await Promise.race([once(socket, 'drain'), closed])
    }
  }
  socket.end()
}

const server = net.createServer(async (socket) => {
  server.close()
  socket.setNoDelay(true)
  socket.on('error', () => {})
  muxer = factory.createStreamMuxer({
    direction: role === 'client' ? 'outbound' : 'inbound',
    onIncomingStream
  })
  await Promise.all([write(socket), muxer.sink(socket)])
  if (muxer.remoteGoAway !== undefined) say('go-away')
  socket.destroy()
  say('closed')
  process.exit(0)
})
server.listen(0, '127.0.0.1', () => say(`port ${server.address().port}`))
