// Fills and checks streams for the benchmark with plain fetch, so that neither client vouches for itself.
//
//   reference.mjs fill URL COUNT          a JSON stream of COUNT messages; prints items= and hash=
//   reference.mjs check URL COUNT SIZE    prints ok=1 if the stream is those COUNT messages, each once
//   reference.mjs raw URL                 prints seconds= of reading the stream and doing nothing with it
//   reference.mjs delete URL
//
// `delete` and `check` remove the stream, and its -warm-up.
import { createHash } from 'node:crypto'
import { Agent, get } from 'node:http'

const [command, url, countText, sizeText] = process.argv.slice(2)
const count = Number(countText)

async function request(at, options = {}) {
  const res = await fetch(at, options)
  if (!res.ok) throw new Error(`${options.method ?? 'GET'} ${at}: ${res.status} ${await res.text()}`)
  return res
}

const item = (id) => ({
  id,
  name: `sensor ${id % 97}`,
  at: 1.7e9 + id / 8,
  on: id % 3 === 0,
  tags: ['a', `t${id % 11}`, null],
})

async function fill(at, n) {
  const headers = { 'content-type': 'application/json' }
  await request(at, { method: 'PUT', headers })
  let hash = 0
  for (let first = 1; first <= n; first += 1000) {
    const batch = []
    for (let id = first; id < first + 1000 && id <= n; id++) {
      batch.push(item(id))
      hash = (hash * 31 + id + item(id).name.length) & 0x7fffffff
    }
    await request(at, { method: 'POST', headers, body: JSON.stringify(batch) })
  }
  return hash
}

async function digest(at) {
  const hash = createHash('sha256')
  let offset = '-1'
  for (;;) {
    const res = await request(`${at}?offset=${offset}`)
    for await (const piece of res.body) hash.update(piece)
    if (res.headers.get('stream-up-to-date')) return hash.digest('hex')
    offset = res.headers.get('stream-next-offset')
  }
}

function expected(n, size) {
  const hash = createHash('sha256')
  const filler = 'x'.repeat(size - 8)
  for (let i = 1; i <= n; i++) hash.update(String(i).padStart(8, '0') + filler)
  return hash.digest('hex')
}

// One connection, no compression, no string made of the bytes: what is left is the server's time.
function drain(at, agent) {
  return new Promise((resolve, reject) => {
    const headers = { 'accept-encoding': 'identity' }
    get(`${at}?offset=-1`, { agent, headers }, (res) => {
      if (!res.headers['stream-up-to-date']) reject(new Error('the stream came in parts'))
      res.on('data', () => {})
      res.on('end', resolve)
    }).on('error', reject)
  })
}

async function raw() {
  const agent = new Agent({ keepAlive: true })
  await drain(`${url}-warm-up`, agent)
  const start = performance.now()
  await drain(url, agent)
  agent.destroy()
  return (performance.now() - start) / 1e3
}

async function remove() {
  for (const at of [url, `${url}-warm-up`]) await fetch(at, { method: 'DELETE' })
}

if (command === 'fill') {
  await fill(`${url}-warm-up`, Math.ceil(count / 20))
  console.log(`items=${count} hash=${await fill(url, count)}`)
} else if (command === 'check') {
  const same = (await digest(url)) === expected(count, Number(sizeText))
  await remove()
  console.log(`ok=${same ? 1 : 0}`)
} else if (command === 'raw') {
  console.log(`seconds=${await raw()}`)
} else {
  await remove()
  console.log('ok=1')
}
