import { expect } from 'chai'
import {
  type TrackerEffect,
  type TrackerMessage,
  type TrackerState,
  trackerBehaviour,
} from '../../../actors/tracker/tracker.ts'
import { TRACKER_BODY_BYTES_MAX, trackerPort } from '../../../actors/tracker/tracker-port.ts'
import { COMMANDS, header, readInt64, readString } from '../../../protocol/frame.ts'
import type { StorageReport } from '../../../protocol/storage-messages.ts'
import { Actor } from '../../../runtime/actor.ts'
import { silentLog } from '../../../runtime/log.ts'
import { Timers } from '../../../runtime/timers.ts'
import { type FrameHarness, type RawConnection, requestOf, serveFrames } from '../../runtime/frame-fixture.ts'
import { VirtualClock } from '../../virtual-clock.ts'
import { fileIdOf, NOBODY, pathOf, ROUND_ROBIN, reportOf } from './test-tracker.ts'

const ENOENT = 2
const EINVAL = 22
const EFBIG = 27
const ENOSPC = 28

const CREATED_S = 1_700_000_000

/** `group1` in 16 bytes, an address in 15 and port 23000 in 8, as FastDFS answers them. */
const GROUP1 = `67726f757031${'00'.repeat(10)}`
const SERVER1 = `31302e302e302e31${'00'.repeat(7)}00000000000059d8`
const SERVER2 = `31302e302e302e32${'00'.repeat(7)}00000000000059d8`

describe("the tracker's FastDFS port", () => {
  let harness: FrameHarness
  let tracker: Actor<TrackerState, TrackerMessage, TrackerEffect>
  let client: RawConnection

  beforeEach(async () => {
    const clock = new VirtualClock()
    tracker = new Actor(
      trackerBehaviour({ trackerId: 'tracker-1', version: '1.2.3', policy: ROUND_ROBIN }),
      () => undefined,
      { name: 'tracker-1', clock, timers: new Timers(clock), log: silentLog() },
    )
    tracker.start()
    harness = await serveFrames(trackerPort(tracker), {
      bodyBytesMax: TRACKER_BODY_BYTES_MAX,
      closesAfter: () => false,
    })
    client = await harness.connect()
  })
  afterEach(async () => {
    await harness.remove()
    tracker.stop()
  })

  const beat = (storageId: number, more: Partial<StorageReport> = {}) =>
    tracker.post({ type: 'beat', report: reportOf(storageId, more), replyTo: NOBODY })

  /** Sends a request in hex; returns the reply in hex. */
  async function ask(request: string): Promise<string> {
    client.send(Buffer.from(request, 'hex'))
    const { command, status, body } = await client.reply()
    return Buffer.concat([header(command, body.length, status), body]).toString('hex')
  }

  /** Sends a command and its body; returns the status of the reply, which has no body. */
  async function statusOf(command: number, body: string | Uint8Array = ''): Promise<number> {
    client.send(requestOf(command, body))
    const reply = await client.reply()
    if (reply.status !== 0) expect(reply.body).length(0)
    return reply.status
  }

  const groupField = (group: string) => group.padEnd(16, '\0')
  const fileFields = (fileId: string) => groupField(fileId.slice(0, 6)) + fileId.slice(7)

  it('answers a test of the connection with nothing', async () => {
    expect(await ask('00000000000000006f00')).equal('00000000000000006400')
  })

  it('answers where to upload, in turn, with group, address, port and path', async () => {
    beat(1)
    beat(2)
    expect(await ask('00000000000000006500')).equal(`00000000000000286400${GROUP1}${SERVER1}00`)
    expect(await ask('00000000000000006500')).equal(`00000000000000286400${GROUP1}${SERVER2}00`)
  })

  it('answers where to upload in a group that is named', async () => {
    beat(1)
    beat(2, { group: 'group2', storePaths: [pathOf(0, { writable: false }), pathOf(3)] })
    expect(await ask(`00000000000000106800${GROUP1}`)).equal(`00000000000000286400${GROUP1}${SERVER1}00`)
    const group2 = GROUP1.replace('7031', '7032')
    expect(await ask(`00000000000000106800${group2}`)).equal(`00000000000000286400${group2}${SERVER2}03`)
  })

  it('answers who serves a file, and who changes it, with group, address and port', async () => {
    beat(1)
    beat(2)
    const body = Buffer.from(fileFields(fileIdOf(2, CREATED_S)), 'latin1').toString('hex')
    expect(body.length / 2).equal(60)
    expect(await ask(`000000000000003c6600${body}`)).equal(`00000000000000276400${GROUP1}${SERVER2}`)
    expect(await ask(`000000000000003c6700${body}`)).equal(`00000000000000276400${GROUP1}${SERVER2}`)
  })

  it('answers with IPv6 addresses in 45 bytes', async () => {
    beat(1, { ip: 'fd00::1' })
    client.send(requestOf(COMMANDS.queryStoreWithoutGroup))
    const { body } = await client.reply()
    expect(body).length(16 + 45 + 8 + 1)
    expect([readString(body, 16, 45), readInt64(body, 61)]).deep.equal(['fd00::1', 23000])
  })

  it('answers with the errno of what is wrong, and keeps the connection', async () => {
    expect(await statusOf(COMMANDS.queryStoreWithoutGroup)).equal(ENOENT)
    beat(1)
    expect(await ask('000000000000001068006e6f67726f7570000000000000000000')).equal('00000000000000006402')
    expect(await statusOf(COMMANDS.queryFetch, fileFields(fileIdOf(1, CREATED_S, 'group9')))).equal(ENOENT)
    expect(await statusOf(COMMANDS.queryUpdate, `${groupField('group1')}nonsense`)).equal(EINVAL)
    beat(1, { storePaths: [pathOf(0, { freeBytes: 0 })] })
    expect(await statusOf(COMMANDS.queryStoreWithoutGroup)).equal(ENOSPC)
    expect(await statusOf(COMMANDS.activeTest)).equal(0)
  })

  it('refuses a body of the wrong length, and keeps the connection', async () => {
    beat(1)
    const wrong: [number, number][] = [
      [COMMANDS.queryStoreWithoutGroup, 1],
      [COMMANDS.queryStoreWithGroup, 0],
      [COMMANDS.queryStoreWithGroup, 15],
      [COMMANDS.queryStoreWithGroup, 17],
      [COMMANDS.queryFetch, 16],
      [COMMANDS.queryFetch, 16 + 128],
      [COMMANDS.queryUpdate, 0],
      [COMMANDS.queryUpdate, TRACKER_BODY_BYTES_MAX],
    ]
    for (const [command, bytes] of wrong) {
      expect(await statusOf(command, Buffer.alloc(bytes, 'g')), `${command} with ${bytes}`).equal(EINVAL)
    }
    expect(await statusOf(COMMANDS.activeTest)).equal(0)
  })

  it('refuses a command it does not know, and keeps the connection', async () => {
    expect(await ask('0000000000000000c800')).equal('00000000000000006416')
    for (const command of [0, 11, 99, COMMANDS.authenticate, 255]) expect(await statusOf(command, 'body')).equal(EINVAL)
    expect(await statusOf(COMMANDS.activeTest)).equal(0)
  })

  it('refuses a body longer than any question, and ends the connection', async () => {
    expect(await statusOf(COMMANDS.queryFetch, Buffer.alloc(TRACKER_BODY_BYTES_MAX + 1))).equal(EFBIG)
    expect(await client.untilEnded()).length(0)
  })

  it('ends the connection when the client quits', async () => {
    client.send(Buffer.from('00000000000000005200', 'hex'))
    expect(await client.untilEnded()).length(0)
  })

  it('answers pipelined questions in their order', async () => {
    beat(1)
    beat(2)
    const body = fileFields(fileIdOf(2, CREATED_S))
    client.send(
      requestOf(COMMANDS.queryFetch, body),
      requestOf(COMMANDS.activeTest),
      requestOf(COMMANDS.queryUpdate, body),
      requestOf(77),
      requestOf(COMMANDS.queryStoreWithoutGroup),
    )
    const replies = []
    for (let i = 0; i < 5; i++) replies.push(await client.reply())
    expect(replies.map(({ status, body }) => [status, body.length])).deep.equal([
      [0, 39],
      [0, 0],
      [0, 39],
      [EINVAL, 0],
      [0, 40],
    ])
  })
})
