/** A process of its own that runs a nats-server, to be killed: `node nats-parent.js <binary> <directory>`. */
import { startTestServer } from './nats-fixture.ts'

const [binary, directory] = process.argv.slice(2) as [string, string]
const server = await startTestServer({ binary, directory })
console.log(JSON.stringify({ ready: true, url: server.url, pid: server.status()!.pid }))
// Something must keep the process alive when nats-server has ended and is not started again.
setInterval(() => {}, 60_000)
