import { expect } from 'chai'
import { Type } from 'typebox'
import { decode, type Encoding, encode } from '../../protocol/codec.ts'
import { DfsError } from '../../protocol/errors.ts'
import { defineRequest, MESSAGE_BYTES_MAX, type RequestOf } from '../../protocol/message.ts'
import type { Bus, BusOptions, BusReply } from '../../runtime/bus.ts'
import { encodingAskedFor, serve } from '../../runtime/endpoint.ts'
import { silentLog } from '../../runtime/log.ts'
import { MemoryBroker } from '../../runtime/memory-bus.ts'
import { MicroService } from '../../runtime/micro-service.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { Timers } from '../../runtime/timers.ts'

const greet = defineRequest({
  name: 'test.greet',
  subject: 'test.greet',
  about: 'For tests.',
  request: Type.Object({ name: Type.Optional(Type.String({ maxLength: 10 })), times: Type.Optional(Type.Integer()) }),
  reply: Type.Object({ text: Type.String() }),
  errors: ['bad_request', 'no_space'],
})

const OPTIONS: BusOptions = { servers: [], name: 'test', inboxPrefix: '_INBOX', waitForServer: false }
const SUBJECT = 'dfs.test.greet'
const PAYLOAD_BYTES_MAX = 256 * 1024

describe('an endpoint', () => {
  const world = realWorld()
  let bus: Bus
  let service: MicroService
  let requests: RequestOf<typeof greet>[]
  let handle: (request: RequestOf<typeof greet>) => { text: string } | Promise<{ text: string }>

  beforeEach(async () => {
    const options = { payloadBytesMax: PAYLOAD_BYTES_MAX }
    bus = await new MemoryBroker(new Timers(world.clock), world.random, options).connector()(OPTIONS)
    service = new MicroService(bus, world.clock, {
      name: 'dfs-test',
      id: '1',
      version: '1.0.0',
      description: 'a test',
      metadata: {},
    })
    requests = []
    handle = ({ name = 'you' }) => ({ text: `hello ${name}` })
    serve(service, greet, SUBJECT, silentLog(), request => {
      requests.push(request)
      return handle(request)
    })
  })
  afterEach(() => bus.drain())

  const ask = (payload: Uint8Array | string, headers: Record<string, string> = {}) =>
    bus.request(SUBJECT, Buffer.from(payload as string), { timeoutMs: 5_000, headers })

  for (const encoding of ['json', 'msgpack'] as const) {
    it(`answers ${encoding} with ${encoding}, and says so`, async () => {
      const reply = await ask(encode({ name: 'bob' }, encoding))
      expect(reply.headers).deep.equal({ 'Content-Type': `application/${encoding}` })
      expect(decode(reply.payload)).deep.equal({ value: { text: 'hello bob' }, encoding })
    })

    it(`answers ${encoding} with an error in ${encoding}: in two headers and in the body`, async () => {
      handle = () => Promise.reject(new DfsError('no_space', 'all is full'))
      expectError(await ask(encode({ name: 'bob' }, encoding)), encoding, {
        code: 'no_space',
        status: 507,
        message: 'all is full',
        retryable: true,
      })
    })

    it(`refuses what does not fit the schema, in ${encoding}, and names the field`, async () => {
      expectError(await ask(encode({ name: 'far too long a name' }, encoding)), encoding, {
        code: 'bad_request',
        status: 400,
        message: 'name must NOT have more than 10 characters',
        retryable: false,
      })
      expectError(await ask(encode({ times: 1.5 }, encoding)), encoding, {
        code: 'bad_request',
        status: 400,
        message: 'times must be integer',
        retryable: false,
      })
      expect(requests).deep.equal([])
    })
  }

  it('takes an empty payload for all defaults, and answers in JSON', async () => {
    const reply = await ask('')
    expect(Buffer.from(reply.payload).toString()).equal('{"text":"hello you"}')
    expect(requests).deep.equal([{}])
    const { headers } = await ask('', { Accept: 'application/msgpack' })
    expect(headers['Content-Type']).equal('application/json')
  })

  it('takes JSON that somebody has typed with spaces around it', async () => {
    const reply = await ask(' \n{ "name": "bob" }\n')
    expect(decode(reply.payload).value).deep.equal({ text: 'hello bob' })
  })

  it('ignores fields it does not know, so that versions can be mixed', async () => {
    const reply = await ask('{"name":"bob","later":[1]}')
    expect(decode(reply.payload).value).deep.equal({ text: 'hello bob' })
  })

  for (const payload of ['{"name":', 'hello', '[1]', '"text"', '42', 'null']) {
    it(`refuses ${payload}`, async () => {
      expectError(await ask(payload), 'json', { code: 'bad_request', status: 400, retryable: false })
      expect(requests).deep.equal([])
    })
  }

  it('refuses msgpack that is cut short, in msgpack', async () => {
    const whole = encode({ name: 'bob' }, 'msgpack')
    for (let cut = 1; cut < whole.length; cut++) {
      expectError(await ask(whole.subarray(0, cut)), 'msgpack', { code: 'bad_request', status: 400 })
    }
  })

  it('refuses a message over the limit before it looks into it', async () => {
    for (const payload of [`{"name":"bob"}${' '.repeat(MESSAGE_BYTES_MAX)}`, 'x'.repeat(MESSAGE_BYTES_MAX + 1)]) {
      expectError(await ask(payload), 'json', {
        code: 'too_large',
        status: 413,
        message: `a message has at most ${MESSAGE_BYTES_MAX} bytes`,
        retryable: false,
      })
    }
    expect((await ask(`{"name":"bob"}${' '.repeat(MESSAGE_BYTES_MAX - 14)}`)).headers).not.property(
      'Nats-Service-Error',
    )
  })

  it('says that its answer is too large when it is', async () => {
    handle = () => ({ text: 'x'.repeat(PAYLOAD_BYTES_MAX) })
    expectError(await ask('{}'), 'json', { code: 'too_large', status: 413 })
  })

  it('answers a bug with internal, and goes on', async () => {
    handle = () => {
      throw new TypeError('a bug')
    }
    expectError(await ask('{}'), 'json', { code: 'internal', status: 500, retryable: true })
    handle = () => ({ text: 'fine' })
    expect(decode((await ask('{}')).payload).value).deep.equal({ text: 'fine' })
  })

  it('keeps an error on one line of its header', async () => {
    handle = () => Promise.reject(new DfsError('no_space', 'one\r\ntwo'))
    const { headers } = await ask('{}')
    expect(headers['Nats-Service-Error']).equal('one two')
  })

  it('finds the encoding for an answer to bytes that are no map: the one accepted, or that of the first byte, or JSON', () => {
    expect(encodingAskedFor({ Accept: 'application/msgpack' })).equal('msgpack')
    expect(encodingAskedFor({ Accept: 'text/plain' })).equal('json')
    expect(encodingAskedFor({}, encode({ a: 1 }, 'msgpack'))).equal('msgpack')
    expect(encodingAskedFor({}, encode({ a: 1 }, 'json'))).equal('json')
    expect(encodingAskedFor({})).equal('json')
  })

  it('is listed under its verb, because the nats command takes no dots', async () => {
    const info = await bus.request('$SRV.INFO.dfs-test', new Uint8Array(), { timeoutMs: 5_000 })
    const { endpoints } = JSON.parse(Buffer.from(info.payload).toString())
    expect(endpoints).deep.equal([{ name: 'greet', subject: SUBJECT, queue_group: 'q', metadata: {} }])
  })
})

function expectError(reply: BusReply, encoding: Encoding, expected: Record<string, unknown>): void {
  const { value, encoding: got } = decode(reply.payload)
  const { error } = value as { error: { code: string; status: number; message: string } }
  expect(got).equal(encoding)
  expect(error).include(expected).and.have.keys('code', 'status', 'message', 'retryable')
  expect(reply.headers).deep.equal({
    'Content-Type': `application/${encoding}`,
    'Nats-Service-Error': error.message,
    'Nats-Service-Error-Code': String(error.status),
  })
}
