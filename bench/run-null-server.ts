/**
 * The null server as a program: `SIZE [HOST:PORT…]`, where its tracker sends clients if not to itself. Says
 * `{"ready":true,"port":…}` when it listens, and ends with its parent.
 */
import { startNullServer } from './null-server.ts'
import { endWithParent } from './parent.ts'

endWithParent()
const [size = '4096', ...addresses] = process.argv.slice(2)
const storages = addresses.map(address => {
  const colon = address.lastIndexOf(':')
  return { host: address.slice(0, colon), port: Number(address.slice(colon + 1)) }
})
const { endpoint } = await startNullServer({ sizeBytes: Number(size), ...(storages.length > 0 ? { storages } : {}) })
console.log(JSON.stringify({ ready: true, port: endpoint.port }))
