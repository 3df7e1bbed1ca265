// One measurement of the TypeScript client, in a process of its own: what weir.lua measures, in the
// same way.
//
//   baseline.mjs append|latency|read|read-all|long-poll|sse URL COUNT [SIZE]
//
// `read` takes value after value, `read-all` all of them at once, which is that client's fastest way.
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { DurableStream, IdempotentProducer, stream as open } from '@durable-streams/client'

const [kind, url, countText, sizeText] = process.argv.slice(2)
const count = Number(countText)
const size = Number(sizeText ?? 100)

// Message number i, of `size` bytes: what reference.mjs expects too.
const filler = 'x'.repeat(size - 8)
const large = Buffer.from('0'.repeat(8) + filler)
const message = (i) => String(i).padStart(8, '0') + filler
// Large ones as bytes, which spares the client an encoding.
const payload = (i) => {
  if (size < 65536) return message(i)
  const bytes = Buffer.from(large)
  bytes.write(String(i).padStart(8, '0'))
  return bytes
}

const create = (suffix, contentType = 'application/octet-stream') =>
  DurableStream.create({ url: url + suffix, contentType })

async function measure(work, ...args) {
  const cpu = process.cpuUsage()
  const start = performance.now()
  const fields = (await work(...args)) ?? {}
  fields.seconds = (performance.now() - start) / 1e3
  const used = process.cpuUsage(cpu)
  fields.cpu = (used.user + used.system) / 1e6
  return fields
}

const percentile = (times, p) => times[Math.max(0, Math.ceil((times.length * p) / 100) - 1)]
function percentiles(times) {
  times.sort((a, b) => a - b)
  return { p50: percentile(times, 50), p99: percentile(times, 99) }
}

async function produce(stream, n) {
  let failed
  const producer = new IdempotentProducer(stream, 'bench', {
    maxInFlight: 5,
    onError: (err) => (failed = err),
  })
  for (let i = 1; i <= n; i++) producer.append(payload(i))
  await producer.flush()
  if (failed) throw failed
}

async function appendEach(stream, n) {
  const times = []
  for (let i = 1; i <= n; i++) {
    const start = performance.now()
    await stream.append(message(i))
    times.push((performance.now() - start) * 1e3)
  }
  return percentiles(times)
}

const addTo = (hash, value) => (hash * 31 + value.id + value.name.length) & 0x7fffffff

async function readItems(at) {
  const res = await open({ url: at, live: false, offset: '-1' })
  let items = 0
  let hash = 0
  if (kind === 'read-all') {
    for (const value of await res.json()) {
      items++
      hash = addTo(hash, value)
    }
  } else {
    for await (const value of res.jsonStream()) {
      items++
      hash = addTo(hash, value)
    }
  }
  return { items, hash }
}

async function deliver(stream, n) {
  const times = []
  let arrived
  let received = 0
  const reader = await open({ url: stream.url, live: kind, offset: '-1' })
  const done = new Promise((resolve, reject) => {
    reader.subscribeText((chunk) => {
      if (chunk.text === '') return
      const now = performance.now()
      received++
      if (chunk.text !== message(received)) reject(new Error('another message was delivered'))
      times[received - 1] = (now - times[received - 1]) * 1e3
      arrived()
      if (received === n) resolve()
    })
  })
  for (let i = 1; i <= n; i++) {
    await sleep(3)
    const arrival = new Promise((resolve) => (arrived = resolve))
    times[i - 1] = performance.now()
    await stream.append(message(i))
    await arrival
  }
  await done
  reader.cancel()
  return percentiles(times)
}

async function run() {
  switch (kind) {
    case 'append':
      await produce(await create('-warm-up'), Math.max(2, Math.floor(count / 20)))
      return measure(produce, await create(''), count)
    case 'latency':
      await appendEach(await create('-warm-up'), 200)
      return measure(appendEach, await create(''), count)
    case 'read':
    case 'read-all':
      await readItems(url + '-warm-up')
      return measure(readItems, url)
    default:
      await deliver(await create('-warm-up', 'text/plain'), 50)
      return measure(deliver, await create('', 'text/plain'), count)
  }
}

const fields = await run()
fields.memory = Number(readFileSync('/proc/self/status', 'latin1').match(/VmHWM:\s*(\d+) kB/)[1]) * 1024
console.log(Object.entries(fields).map(([name, value]) => `${name}=${value}`).join(' '))
process.exit(0)
