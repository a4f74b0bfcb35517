import { expect } from 'chai'
import { DfsError, ERRORS } from '../../protocol/errors.ts'
import { COMMANDS } from '../../protocol/frame.ts'
import { FrameClient } from '../../runtime/frame-client.ts'
import type { FrameHandler } from '../../runtime/frame-server.ts'
import { authenticate, Gatekeeper, type Proof, type ProvenRole, roleKey } from '../../runtime/handshake.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { type FrameHarness, type RawConnection, requestOf, serveFrames, serveRaw, TIMEOUTS } from './frame-fixture.ts'

const SECRET = 'c'.repeat(64)
const OTHER_SECRET = 'd'.repeat(64)
const WHO_AM_I = 111
const { random, sockets } = realWorld()

describe('the handshake', () => {
  let harness: FrameHarness
  let clients: FrameClient[]

  beforeEach(async () => {
    clients = []
    const gatekeeper = new Gatekeeper(SECRET, realWorld())
    const handler: FrameHandler = async request => {
      if (request.command === COMMANDS.authenticate) return gatekeeper.challenge(request)
      if (request.command === COMMANDS.prove) return gatekeeper.verify(request)
      return { status: 0, parts: [Buffer.from(request.connection.role)] }
    }
    harness = await serveFrames(handler, { closesAfter: () => false })
  })
  afterEach(async () => {
    for (const client of clients) client.close()
    await harness.remove()
  })

  async function connect(endpoint = harness.endpoint): Promise<FrameClient> {
    const { clock, timers } = harness
    const client = await FrameClient.connect(endpoint, { sockets, clock, timers, connectMs: 5_000, timeouts: TIMEOUTS })
    clients.push(client)
    return client
  }

  const whoAmI = async (client: FrameClient) => String(await client.request(WHO_AM_I, Buffer.alloc(0)))
  const proofOf = (role: ProvenRole, secret = SECRET): Proof => ({ role, key: roleKey(secret, role) })

  for (const role of ['client', 'peer'] as const) {
    it(`makes a connection one of a ${role} where both sides know the secret`, async () => {
      const client = await connect()
      expect(await whoAmI(client)).equal('anonymous')
      await authenticate(client, proofOf(role), random)
      expect(await whoAmI(client)).equal(role)
      expect(await whoAmI(await connect())).equal('anonymous')
    })

    it(`tells a ${role} with another secret that the server is not the one it looks for`, async () => {
      const client = await connect()
      const error = await errorOf(authenticate(client, proofOf(role, OTHER_SECRET), random))
      expect(error).include({ code: 'unauthorized', message: 'the server does not know our secret' })
      expect(await whoAmI(client)).equal('anonymous')
    })
  }

  it('sends neither the secret nor the same bytes twice', async () => {
    const [one, two] = await Promise.all([harness.connect(), harness.connect()])
    const hello = requestOf(COMMANDS.authenticate, helloOf('peer', Buffer.alloc(32, 7)))
    one.send(hello)
    two.send(hello)
    const [first, second] = [await one.reply(), await two.reply()]
    expect(first.body).length(64)
    expect(first.body.subarray(0, 32)).not.deep.equal(second.body.subarray(0, 32))
    expect(first.body.subarray(32)).not.deep.equal(second.body.subarray(32))
  })

  it('refuses a caller that cannot prove itself, and ends the connection', async () => {
    const raw = await harness.connect()
    raw.send(requestOf(COMMANDS.authenticate, helloOf('peer', Buffer.alloc(32))))
    expect((await raw.reply()).status).equal(0)
    raw.send(requestOf(COMMANDS.prove, Buffer.alloc(32)), requestOf(WHO_AM_I))
    await expectRefusal(raw)
  })

  it('refuses a proof that was good on another connection', async () => {
    const seen = await overhear(proofOf('peer'))
    const raw = await harness.connect()
    raw.send(seen.hello)
    expect((await raw.reply()).status).equal(0)
    raw.send(seen.prove)
    await expectRefusal(raw)
  })

  it('refuses a proof that was good once on the same connection', async () => {
    const raw = await harness.connect()
    let prove: Uint8Array = Buffer.alloc(0)
    const { client, remove } = await relay(async (request, command) => {
      if (command === COMMANDS.prove) prove = request
      raw.send(request)
      return raw.reply()
    })
    await authenticate(client, proofOf('peer'), random)
    raw.send(requestOf(WHO_AM_I))
    expect(String((await raw.reply()).body)).equal('peer')
    raw.send(prove)
    await expectRefusal(raw)
    await remove()
  })

  it('refuses a proof nobody asked for', async () => {
    const raw = await harness.connect()
    raw.send(requestOf(COMMANDS.prove, Buffer.alloc(32)))
    await expectRefusal(raw)
  })

  it('refuses a proof of the wrong length', async () => {
    for (const length of [0, 31, 33]) {
      const raw = await harness.connect()
      raw.send(requestOf(COMMANDS.authenticate, helloOf('peer', Buffer.alloc(32))))
      await raw.reply()
      raw.send(requestOf(COMMANDS.prove, Buffer.alloc(length)))
      await expectRefusal(raw)
    }
  })

  it('refuses the answer of the server played back as the proof of the caller', async () => {
    const raw = await harness.connect()
    raw.send(requestOf(COMMANDS.authenticate, helloOf('peer', Buffer.alloc(32))))
    const { body } = await raw.reply()
    raw.send(requestOf(COMMANDS.prove, body.subarray(32)))
    await expectRefusal(raw)
  })

  it("lets nobody with the clients' key become a peer", async () => {
    const key = roleKey(SECRET, 'client')
    const client = await connect()
    expect((await errorOf(authenticate(client, { role: 'peer', key }, random))).code).equal('unauthorized')
    // A caller that does not care whether the server proves itself gets no further.
    const { client: careless, remove } = await relay(async (request, command) => {
      const raw = await harness.connect()
      if (command === COMMANDS.authenticate) {
        // Says `client` to who holds the key, and `peer` to the server.
        raw.send(requestOf(COMMANDS.authenticate, helloOf('peer', request.subarray(11))))
        const { body } = await raw.reply()
        raw.send(requestOf(COMMANDS.prove, body.subarray(32)))
        await expectRefusal(raw)
      }
      return { status: 13, body: Buffer.alloc(0) }
    })
    expect((await errorOf(authenticate(careless, proofOf('client'), random))).code).equal('unauthorized')
    await remove()
  })

  it("lets nobody with the cluster's secret alone become a client by accident", async () => {
    const client = await connect()
    const error = await errorOf(authenticate(client, { role: 'client', key: SECRET }, random))
    expect(error.code).equal('unauthorized')
  })

  it('refuses a greeting of the wrong length or of no role', async () => {
    for (const hello of [
      Buffer.alloc(0),
      Buffer.alloc(32, 1),
      Buffer.alloc(34, 1),
      Buffer.alloc(33),
      Buffer.alloc(33, 3),
    ]) {
      const raw = await harness.connect()
      raw.send(requestOf(COMMANDS.authenticate, hello))
      expect((await raw.reply()).status).equal(ERRORS.bad_request.errno)
    }
  })

  it('tells the caller that what it talks to is no server of ours', async () => {
    for (const length of [0, 63, 65]) {
      const { client, remove } = await relay(async () => ({ status: 0, body: Buffer.alloc(length) }))
      expect((await errorOf(authenticate(client, proofOf('peer'), random))).message).contain('cannot prove itself')
      await remove()
    }
  })

  /** A client of a server that answers as the test does. */
  async function relay(
    answer: (request: Buffer, command: number) => Promise<{ status: number; body: Buffer }>,
  ): Promise<{ client: FrameClient; remove(): Promise<void> }> {
    const raw = await serveRaw(async connection => {
      try {
        for (;;) {
          const head = await connection.take(10)
          const request = Buffer.concat([head, await connection.take(head[7]!)])
          const { status, body } = await answer(request, head[8]!)
          const reply = requestOf(COMMANDS.reply, body)
          reply[9] = status
          connection.send(reply)
        }
      } catch {
        // The client has gone.
        connection.destroy()
      }
    })
    return { client: await connect(raw.endpoint), remove: raw.remove }
  }

  /** What goes over the wire when somebody authenticates. */
  async function overhear(proof: Proof): Promise<{ hello: Buffer; prove: Buffer }> {
    const to = await harness.connect()
    const requests: Buffer[] = []
    const { client, remove } = await relay(async request => {
      requests.push(request)
      to.send(request)
      return to.reply()
    })
    await authenticate(client, proof, random)
    await remove()
    return { hello: requests[0]!, prove: requests[1]! }
  }
})

function helloOf(role: ProvenRole, nonce: Uint8Array): Buffer {
  return Buffer.concat([Buffer.of(role === 'client' ? 1 : 2), nonce])
}

/** Refused, and the end: nothing that was sent behind it is answered. */
async function expectRefusal(raw: RawConnection): Promise<void> {
  expect((await raw.reply()).status).equal(ERRORS.unauthorized.errno)
  expect(await raw.untilEnded()).length(0)
}

async function errorOf(promise: Promise<unknown>): Promise<DfsError> {
  const error = await promise.then(
    () => expect.fail('it was let in'),
    error => error,
  )
  expect(error).instanceOf(DfsError)
  return error as DfsError
}
