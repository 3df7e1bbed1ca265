// The reference server on a free loopback port, for the specs of the durable-stream client.
//
//   node server.mjs [--dir DIRECTORY] [--port PORT] [--long-poll MILLISECONDS]
//     [--keep-alive MILLISECONDS]
//
// Prints one line, `listening http://127.0.0.1:PORT`, and runs until its standard input ends, which
// is the case when the program that started it has ended. With --dir it keeps its streams in files
// there, and finds them again when it is started anew; without, in memory.
import { parseArgs } from 'node:util'
import { DurableStreamTestServer } from '@durable-streams/server'

const { values } = parseArgs({
  options: {
    dir: { type: 'string' },
    port: { type: 'string', default: '0' },
    'long-poll': { type: 'string', default: '500' },
    'keep-alive': { type: 'string', default: '5000' },
  },
})

const server = new DurableStreamTestServer({
  host: '127.0.0.1',
  port: Number(values.port),
  longPollTimeout: Number(values['long-poll']),
  ...(values.dir === undefined ? {} : { dataDir: values.dir }),
})
await server.start()
server.server.keepAliveTimeout = Number(values['keep-alive'])
console.log(`listening ${server.url}`)

process.stdin.on('end', () => process.exit(0))
process.stdin.on('error', () => process.exit(0))
process.stdin.resume()
