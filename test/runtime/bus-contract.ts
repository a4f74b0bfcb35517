/** What every bus promises, as one suite that each of them runs. */
import { expect } from 'chai'
import {
  type Bus,
  BusError,
  type BusErrorCode,
  type BusMessage,
  type BusOptions,
  type BusStatus,
} from '../../runtime/bus.ts'

/** A broker with buses on it. */
export interface BusHarness {
  connect(options?: Partial<BusOptions>): Promise<Bus>
  /** Ends the broker, breaking all connections; `start` brings it back. */
  stop(): Promise<void>
  start(): Promise<void>
  /** Removes the broker. */
  remove(): Promise<void>
}

/** A request that should be answered gets this long. */
const ANSWER_MS = 5_000

/** A request that should not be answered gets this long. */
const NO_ANSWER_MS = 30

/** Says what a text is as bytes. */
export const bytes = (text: string): Uint8Array => Buffer.from(text)

/** Says what bytes are as text. */
export const text = (payload: Uint8Array): string => Buffer.from(payload).toString()

/** Keeps what a subscription is given, for a test to wait for. */
export class Received {
  readonly messages: BusMessage[] = []
  #waiting: { count: number; resolve: () => void } | undefined

  readonly handler = (message: BusMessage): void => {
    this.messages.push(message)
    if (this.#waiting !== undefined && this.messages.length >= this.#waiting.count) this.#waiting.resolve()
  }

  /** Resolves with the payloads, as text, once there are `count` of them. */
  async texts(count: number): Promise<string[]> {
    await new Promise<void>(resolve => {
      if (this.messages.length >= count) resolve()
      else this.#waiting = { count, resolve }
    })
    return this.messages.map(message => text(message.payload))
  }
}

/** Resolves when the bus has this status. */
export function untilStatus(bus: Bus, status: BusStatus): Promise<void> {
  return new Promise(resolve => {
    if (bus.status === status) resolve()
    bus.onStatus(now => now === status && resolve())
  })
}

/** Resolves with the error a promise rejects with, and fails if it does not. */
export async function rejection(promise: Promise<unknown>): Promise<BusError> {
  const outcome = await promise.then(
    value => value,
    error => error,
  )
  expect(outcome).instanceOf(BusError)
  return outcome as BusError
}

async function expectRejection(promise: Promise<unknown>, code: BusErrorCode): Promise<void> {
  expect((await rejection(promise)).code).equal(code)
}

/** Runs the suite. */
export function busContract(name: string, makeHarness: () => Promise<BusHarness>): void {
  describe(`${name} keeps the bus contract`, function () {
    this.timeout(20_000)
    let harness: BusHarness
    // `after` runs even if the broker did not start; that error is the one to show.
    let remove: () => Promise<void> = async () => undefined
    let opened: Bus[] = []

    before(async () => {
      harness = await makeHarness()
      remove = harness.remove
    })
    afterEach(async () => {
      await Promise.all(opened.map(bus => bus.drain()))
      opened = []
    })
    after(() => remove())

    async function connect(options: Partial<BusOptions> = {}): Promise<Bus> {
      const bus = await harness.connect(options)
      opened.push(bus)
      return bus
    }

    /** Two buses: messages go from the first to the second. */
    const pair = () => Promise.all([connect(), connect()])

    it('delivers in the order of publishing, with subject, payload and headers', async () => {
      const [a, b] = await pair()
      const received = new Received()
      b.subscribe('order.x', received.handler)
      await b.flush()
      const sent = Array.from({ length: 500 }, (_, i) => `message ${i}`)
      for (const one of sent) a.publish('order.x', bytes(one), { headers: { 'X-Text': ` ${one} ä ` } })
      expect(await received.texts(500)).deep.equal(sent)
      const last = received.messages[499]!
      expect(last.subject).equal('order.x')
      expect(last.headers).deep.equal({ 'X-Text': 'message 499 ä' })
      expect(last.replyTo).equal(undefined)
    })

    it('delivers to its own subscriptions, and never inside publish', async () => {
      const bus = await connect()
      const received = new Received()
      bus.subscribe('echo', received.handler)
      bus.publish('echo', bytes('1'))
      expect(received.messages).empty
      expect(await received.texts(1)).deep.equal(['1'])
    })

    it('delivers what was in the payload when it was published', async () => {
      const [a, b] = await pair()
      const received = new Received()
      b.subscribe('bytes', received.handler)
      await b.flush()
      const payload = Uint8Array.from({ length: 256 }, (_, i) => i)
      a.publish('bytes', payload)
      await a.flush()
      payload.fill(0)
      a.publish('bytes', new Uint8Array())
      await received.texts(2)
      expect([...received.messages[0]!.payload]).deep.equal(Array.from({ length: 256 }, (_, i) => i))
      expect(received.messages[1]!.payload).length(0)
    })

    const wildcards: [pattern: string, subjects: string[]][] = [
      ['w.a.b', ['w.a.b']],
      ['w.*.b', ['w.a.b', 'w.c.b']],
      ['w.*', ['w.a']],
      ['w.>', ['w.a', 'w.a.b', 'w.c.b', 'w.a.b.c']],
      ['*.a.>', ['w.a.b', 'w.a.b.c']],
      ['w.*.*', ['w.a.b', 'w.c.b']],
    ]
    for (const [pattern, expected] of wildcards) {
      it(`matches ${pattern} as NATS does`, async () => {
        const bus = await connect()
        const received = new Received()
        bus.subscribe(pattern, received.handler)
        for (const subject of ['w', 'w.a', 'w.a.b', 'w.c.b', 'w.a.b.c', 'wa.a']) bus.publish(subject, bytes(subject))
        await bus.flush()
        expect(await received.texts(expected.length)).deep.equal(expected)
      })
    }

    it('refuses subjects that a server would misread', async () => {
      const bus = await connect()
      for (const subject of ['', 'a b', 'a\r\nPUB b 0', 'a..b', '.a', 'a.', 'a.*', '>', 'a'.repeat(513)]) {
        expect(() => bus.publish(subject, bytes('')), subject).throws(RangeError)
        expect(() => bus.publish('a', bytes(''), { replyTo: subject }), subject).throws(RangeError)
      }
      for (const pattern of ['', 'a b', 'a..b', '>.a', 'a*', 'a.>.b', 'a>']) {
        expect(() => bus.subscribe(pattern, () => undefined), pattern).throws(RangeError)
      }
      expect(() => bus.publish('a', bytes(''), { headers: { 'a b': '' } })).throws(RangeError)
      expect(() => bus.publish('a', bytes(''), { headers: { a: 'x\r\ny: z' } })).throws(RangeError)
    })

    it('gives each message to one member of each queue group, and to all outside of one', async () => {
      const [a, b] = await pair()
      const members = [new Received(), new Received(), new Received()]
      for (const member of members) b.subscribe('q.*', member.handler, { queue: 'q' })
      const [other, all] = [new Received(), new Received()]
      a.subscribe('q.x', other.handler, { queue: 'other' })
      a.subscribe('q.x', all.handler)
      await Promise.all([a.flush(), b.flush()])
      for (let i = 0; i < 300; i++) a.publish('q.x', bytes(String(i)))
      await Promise.all([other.texts(300), all.texts(300)])
      await Promise.all([a.flush(), b.flush()])
      const shares = members.map(member => member.messages.length)
      expect(shares.reduce((sum, share) => sum + share)).equal(300)
      for (const share of shares) expect(share).greaterThan(50)
      const numbers = members.flatMap(member => member.messages.map(message => Number(text(message.payload))))
      expect(new Set(numbers).size).equal(300)
    })

    it('answers a request, with headers both ways', async () => {
      const [a, b] = await pair()
      b.subscribe('svc.up', message => {
        expect(message.replyTo).a('string')
        message.respond(bytes(text(message.payload).toUpperCase()), { 'X-Echo': message.headers['X-In'] ?? '' })
      })
      await b.flush()
      const reply = await a.request('svc.up', bytes('hello'), { timeoutMs: ANSWER_MS, headers: { 'X-In': 'é: 1' } })
      expect(text(reply.payload)).equal('HELLO')
      expect(reply.headers).deep.equal({ 'X-Echo': 'é: 1' })
    })

    it('matches each of 1,000 outstanding requests with its own reply', async () => {
      const [a, b] = await pair()
      const waiting: BusMessage[] = []
      b.subscribe('svc.many', message => {
        waiting.push(message)
        if (waiting.length < 1_000) return
        for (const one of waiting.reverse()) one.respond(one.payload)
      })
      await b.flush()
      const requests = Array.from({ length: 1_000 }, (_, i) =>
        a.request('svc.many', bytes(String(i)), { timeoutMs: ANSWER_MS }),
      )
      const replies = await Promise.all(requests)
      expect(replies.map(reply => Number(text(reply.payload)))).deep.equal(replies.map((_, i) => i))
    })

    it('rejects requests past its limit as busy, and takes new ones when those ended', async () => {
      const bus = await connect()
      bus.subscribe('svc.full', () => undefined)
      const requests = Array.from({ length: 16_384 }, () =>
        bus.request('svc.full', bytes(''), { timeoutMs: NO_ANSWER_MS }),
      )
      const outcomes = Promise.all(requests.map(request => rejection(request)))
      await expectRejection(bus.request('svc.full', bytes(''), { timeoutMs: ANSWER_MS }), 'busy')
      for (const error of await outcomes) expect(error.code).equal('timeout')
      await expectRejection(bus.request('svc.full', bytes(''), { timeoutMs: NO_ANSWER_MS }), 'timeout')
    })

    it('rejects as timeout what is not answered, and drops the reply that comes late', async () => {
      const [a, b] = await pair()
      const received = new Received()
      b.subscribe('svc.slow', received.handler)
      await b.flush()
      await expectRejection(a.request('svc.slow', bytes('1'), { timeoutMs: NO_ANSWER_MS }), 'timeout')
      await received.texts(1)
      received.messages[0]!.respond(bytes('late'))
      const second = a.request('svc.slow', bytes('2'), { timeoutMs: ANSWER_MS })
      await received.texts(2)
      received.messages[1]!.respond(bytes('in time'))
      received.messages[1]!.respond(bytes('once more'))
      expect(text((await second).payload)).equal('in time')
    })

    it('rejects at once as no_responders when nobody listens', async () => {
      const bus = await connect()
      await expectRejection(bus.request('svc.nobody', bytes(''), { timeoutMs: ANSWER_MS }), 'no_responders')
    })

    it('says that nobody listens to whoever waits at replyTo', async () => {
      const bus = await connect()
      const received = new Received()
      const inbox = bus.newInbox()
      bus.subscribe(inbox, received.handler)
      bus.publish('svc.nobody', bytes('x'), { replyTo: inbox })
      await received.texts(1)
      expect(received.messages[0]!.headers).include({ Status: '503' })
    })

    it('takes an empty reply for a reply', async () => {
      const [a, b] = await pair()
      b.subscribe('svc.empty', message => message.respond(bytes('')))
      await b.flush()
      expect((await a.request('svc.empty', bytes(''), { timeoutMs: ANSWER_MS })).payload).length(0)
    })

    it('takes messages up to the limit of the server and throws too_large past it', async () => {
      const [a, b] = await pair()
      const received = new Received()
      b.subscribe('big', received.handler)
      await b.flush()
      const headers = { 'X-Name': 'ä' }
      const headerBytes = Buffer.byteLength('NATS/1.0\r\nX-Name: ä\r\n\r\n')
      a.publish('big', new Uint8Array(a.payloadBytesMax))
      a.publish('big', new Uint8Array(a.payloadBytesMax - headerBytes), { headers })
      await received.texts(2)
      const publishes = [
        () => a.publish('big', new Uint8Array(a.payloadBytesMax + 1)),
        () => a.publish('big', new Uint8Array(a.payloadBytesMax - headerBytes + 1), { headers }),
      ]
      for (const publish of publishes) expect(publish).throws(BusError).property('code', 'too_large')
      const tooLarge = a.request('big', new Uint8Array(a.payloadBytesMax + 1), { timeoutMs: ANSWER_MS })
      await expectRejection(tooLarge, 'too_large')
      expect(a.status).equal('connected')
    })

    it('delivers nothing after unsubscribe, not even what was on its way', async () => {
      const bus = await connect()
      const [first, second] = [new Received(), new Received()]
      const subscription = bus.subscribe('unsub', message => {
        first.handler(message)
        subscription.unsubscribe()
      })
      bus.subscribe('unsub', second.handler)
      for (let i = 0; i < 5; i++) bus.publish('unsub', bytes(String(i)))
      await second.texts(5)
      expect(await first.texts(1)).deep.equal(['0'])
      subscription.unsubscribe()
    })

    it('makes inboxes below its prefix that gather answers from many', async () => {
      const [a, b] = [await connect({ inboxPrefix: '_INBOX_a' }), await connect()]
      const inbox = a.newInbox()
      expect(inbox).match(/^_INBOX_a\.[\w-]+$/)
      expect(a.newInbox()).not.equal(inbox)
      const received = new Received()
      a.subscribe(inbox, received.handler)
      for (let i = 0; i < 3; i++) b.subscribe('all', message => message.respond(bytes(`from ${i}`)))
      await Promise.all([a.flush(), b.flush()])
      a.publish('all', bytes(''), { replyTo: inbox })
      expect((await received.texts(3)).sort()).deep.equal(['from 0', 'from 1', 'from 2'])
    })

    it('does nothing when it responds where no answer is wanted', async () => {
      const bus = await connect()
      const received = new Received()
      bus.subscribe('plain', received.handler)
      bus.publish('plain', bytes(''))
      await received.texts(1)
      received.messages[0]!.respond(bytes('ignored'))
      await bus.drain()
      received.messages[0]!.respond(bytes('ignored'))
    })

    it('drains: hands over what came in, sends its answers, then is closed', async () => {
      const [a, b] = await pair()
      let handledCount = 0
      b.subscribe('drain', message => {
        handledCount++
        message.respond(message.payload)
      })
      await b.flush()
      const requests = Array.from({ length: 100 }, (_, i) =>
        a.request('drain', bytes(String(i)), { timeoutMs: ANSWER_MS }),
      )
      await a.flush()
      const drained = b.drain()
      expect(b.drain()).equal(drained)
      await drained
      expect(b.status).equal('closed')
      expect(handledCount).equal(100)
      const replies = await Promise.all(requests)
      expect(replies.map(reply => Number(text(reply.payload)))).deep.equal(replies.map((_, i) => i))
      await expectRejection(a.request('drain', bytes(''), { timeoutMs: ANSWER_MS }), 'no_responders')
    })

    it('rejects what waits when it closes, and everything after', async () => {
      const bus = await connect()
      bus.subscribe('never', () => undefined)
      const waiting = expectRejection(bus.request('never', bytes(''), { timeoutMs: ANSWER_MS }), 'closed')
      await bus.drain()
      await waiting
      expect(() => bus.publish('x', bytes('')))
        .throws(BusError)
        .property('code', 'closed')
      expect(() => bus.subscribe('x', () => undefined))
        .throws(BusError)
        .property('code', 'closed')
      await expectRejection(bus.request('x', bytes(''), { timeoutMs: ANSWER_MS }), 'closed')
      await expectRejection(bus.flush(), 'closed')
      await bus.drain()
    })

    it('comes back after a restart of the broker, with its subscriptions', async () => {
      const [a, b] = await pair()
      const statuses: BusStatus[] = []
      a.onStatus(status => statuses.push(status))
      const received = new Received()
      a.subscribe('restart', received.handler)
      b.subscribe('restart.svc', message => message.respond(bytes('yes')))
      b.subscribe('restart.never', () => undefined)
      await b.flush()
      const waiting = expectRejection(a.request('restart.never', bytes(''), { timeoutMs: 60_000 }), 'disconnected')
      await a.flush()

      await harness.stop()
      await waiting
      await Promise.all([untilStatus(a, 'disconnected'), untilStatus(b, 'disconnected')])
      await expectRejection(a.request('restart.svc', bytes(''), { timeoutMs: ANSWER_MS }), 'disconnected')
      await expectRejection(a.flush(), 'disconnected')
      a.publish('restart', bytes('lost'))
      await expectRejection(harness.connect({ waitForServer: false }), 'disconnected')
      const late = connect({ waitForServer: true })

      await harness.start()
      await Promise.all([untilStatus(a, 'connected'), untilStatus(b, 'connected')])
      await (await late).flush()
      await b.flush()
      const reply = await a.request('restart.svc', bytes(''), { timeoutMs: ANSWER_MS })
      expect(text(reply.payload)).equal('yes')
      b.publish('restart', bytes('back'))
      expect(await received.texts(1)).deep.equal(['back'])
      expect(statuses).deep.equal(['disconnected', 'connected'])
    })

    it('closes while it is disconnected', async () => {
      const bus = await connect()
      const statuses: BusStatus[] = []
      bus.onStatus(status => statuses.push(status))
      await harness.stop()
      await untilStatus(bus, 'disconnected')
      await bus.drain()
      expect(statuses).deep.equal(['disconnected', 'closed'])
      await harness.start()
    })
  })
}
