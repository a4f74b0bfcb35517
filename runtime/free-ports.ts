/** Ports for servers that are about to start. */
import { type Random, SocketError, type Sockets } from './world.ts'

/** Below the range that systems take outgoing connections from, so that a server that restarts finds its port free. */
const FIRST = 20_000
const LAST = 32_000
const ATTEMPTS = 200

/** Whether a port can be listened on now. Rejects on anything but "taken". */
export async function isFree(sockets: Sockets, host: string, port: number): Promise<boolean> {
  try {
    await (await sockets.listen({ host, port }, socket => socket.destroy())).close()
    return true
  } catch (error) {
    if (error instanceof SocketError && (error.errno === 'EADDRINUSE' || error.errno === 'EACCES')) return false
    throw error
  }
}

/** Picks a free port that is not among those picked before. */
export async function pickPort(sockets: Sockets, random: Random, host: string, taken: Set<number>): Promise<number> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const port = FIRST + random.below(LAST - FIRST)
    if (taken.has(port) || !(await isFree(sockets, host, port))) continue
    taken.add(port)
    return port
  }
  throw new Error(`no free port between ${FIRST} and ${LAST} was found`)
}
