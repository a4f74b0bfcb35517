import { createServer } from 'node:net'
import { crc32 } from '@node-rs/crc32'
import { expect } from 'chai'
import { makeContent } from '../../bench/content.ts'
import { FrameScanner } from '../../bench/frame-scanner.ts'
import { type Load, type LoadPlan, runLoad } from '../../bench/generator.ts'
import { parseLoadLine } from '../../bench/load-result.ts'
import { type NullServer, type NullServerOptions, startNullServer } from '../../bench/null-server.ts'
import { checkFile, checkGone, sampleOf } from '../../bench/sample.ts'
import { checked } from '../../bench/test-bed.ts'
import { decodeFileName, encodeFileName, parseFileId, tailOf } from '../../protocol/file-id.ts'
import { frame } from '../../protocol/frame.ts'
import type { Endpoint } from '../../runtime/world.ts'

const SIZE = 4096

/** Closes what a test has started, however it ends: an open server keeps the process alive. */
const closing: (() => void)[] = []

function close(): void {
  for (const each of closing.splice(0)) each()
}

describe('the load generator', () => {
  afterEach(close)

  for (const viaTracker of [false, true]) {
    const where = viaTracker ? 'asking the tracker first' : 'straight to a storage server'

    it(`does exactly as many operations as it is told, ${where}`, async () => {
      const server = await nullServer({ sizeBytes: SIZE })
      const plan = { at: server.endpoint, viaTracker, connections: 3, sizeBytes: SIZE }
      const up = await runLoad({ ...plan, kind: 'upload', count: 100 })
      expect(resultOf(up)).include({ operations: 100, errors: 0, leastBytes: SIZE, mostBytes: SIZE })
      expect(up.ids).length(100)
      expect(decodeFileName(parseFileId(up.ids[0]!).name).sizeBytes).equal(SIZE)
      const down = await runLoad({ ...plan, kind: 'download', count: 50, ids: up.ids })
      expect(resultOf(down)).include({ operations: 50, errors: 0, leastBytes: SIZE, mostBytes: SIZE })
      const gone = await runLoad({ ...plan, kind: 'delete', ids: up.ids })
      expect(resultOf(gone)).include({ operations: 100, errors: 0 })
    })
  }

  it('ends after its time, with every operation that began', async () => {
    const server = await nullServer({ sizeBytes: SIZE })
    const load = await runLoad({ ...uploads(server.endpoint), seconds: 0.1 })
    const { operations, seconds, p50Ms, p99Ms } = resultOf(load)
    expect(operations).equal(load.ids.length).greaterThan(0)
    expect(seconds).greaterThan(0)
    expect(p50Ms).most(p99Ms)
  })

  it('sends large files from one buffer, and receives them in pieces', async () => {
    const sizeBytes = 3 * 2 ** 20 + 17
    const server = await nullServer({ sizeBytes })
    const up = await runLoad({ ...uploads(server.endpoint), sizeBytes, count: 4 })
    expect(resultOf(up)).include({ operations: 4, errors: 0 })
    const down = await runLoad({ ...uploads(server.endpoint), kind: 'download', count: 4, ids: up.ids })
    expect(resultOf(down)).include({ operations: 4, errors: 0, leastBytes: sizeBytes, mostBytes: sizeBytes })
  })

  it('counts refusals, connections that break and servers that are not there, and goes on', async () => {
    const replies = [frame(100, Buffer.alloc(0), 28), undefined]
    const server = await startFakeServer(() => (replies.length > 0 ? replies.shift() : replyOf('group1', 'x')))
    const load = await runLoad({ ...uploads(server.endpoint), connections: 1, count: 5 })
    expect(resultOf(load)).include({ operations: 3, errors: 2 })
    close()
    const nobody = await runLoad({ ...uploads(server.endpoint), connections: 1, count: 3 })
    expect(resultOf(nobody)).include({ operations: 0, errors: 3 })
  })

  it('says nothing that is not so: a result with errors, nothing done or another length fails the bench', () => {
    const good = { operations: 9, errors: 0, seconds: 1, p50Ms: 1, p99Ms: 2, leastBytes: SIZE, mostBytes: SIZE }
    expect(checked(good, 'dup', SIZE)).equal(good)
    expect(() => checked({ ...good, errors: 1 }, 'dup', SIZE)).throws('1 of 10 operations failed')
    expect(() => checked({ ...good, operations: 0 }, 'dup', SIZE)).throws('nothing was done')
    expect(() => checked({ ...good, leastBytes: 1 }, 'ddown', SIZE)).throws('files of 1 to 4096 bytes')
  })

  it('reads the line of fdfs_load', () => {
    const line =
      'ddown n=16 conc=8 ops=183872 errs=0 secs=3.00 ops_s=61287.1 MiB_s=239.40 p50=0.120ms p95=0.201ms p99=0.311ms max=4.1ms len=4096..4096'
    expect(parseLoadLine(`something before\n${line}\n`)).deep.equal({
      ...{ operations: 183_872, errors: 0, seconds: 3, p50Ms: 0.12, p99Ms: 0.311 },
      ...{ leastBytes: SIZE, mostBytes: SIZE },
    })
    expect(() => parseLoadLine('connection refused')).throws('connection refused')
  })
})

describe('the sample that is read back', () => {
  const content = makeContent(SIZE)
  afterEach(close)

  it('passes what was uploaded, whatever its own first bytes are', async () => {
    const own = Buffer.from(content)
    own.writeUInt32LE(4711, 2)
    await expectProblem(own, idOf(own), undefined)
  })

  it('sees a wrong length', () => expectProblem(content.subarray(1), idOf(content), '4095 bytes'))

  it('sees an id that promises another length', () => {
    return expectProblem(content, idOf(content, { sizeBytes: 7 }), '7 by its id')
  })

  it('sees bytes that are not those of the id', () => {
    const flipped = Buffer.from(content)
    flipped[2000]! ^= 1
    return expectProblem(flipped, idOf(content), 'its sum is not the one in its id')
  })

  it('sees bytes that were never uploaded, though their sum is right', () => {
    const other = Buffer.alloc(SIZE, 'a')
    return expectProblem(other, idOf(other), 'not those that were uploaded')
  })

  it('sees a file that is missing, and one that is there after it was deleted', async () => {
    const id = idOf(content)
    const missing = await startFakeServer(() => frame(100, Buffer.alloc(0), 2))
    expect(await problemOf(checkFile(missing.endpoint, id, SIZE))).include('status 2')
    await checkGone(missing.endpoint, id)
    const there = await startFakeServer(() => frame(100, content))
    expect(await problemOf(checkGone(there.endpoint, id))).include('was deleted')
  })

  it('is spread over all files', () => {
    expect(sampleOf(['a', 'b', 'c', 'd', 'e', 'f'], 3)).deep.equal(['a', 'c', 'e'])
    expect(sampleOf(['a', 'b'], 5)).deep.equal(['a', 'b'])
    expect(sampleOf([], 5)).deep.equal([])
  })

  async function expectProblem(served: Buffer, id: string, problem: string | undefined): Promise<void> {
    const server = await startFakeServer(() => frame(100, served))
    const found = await problemOf(checkFile(server.endpoint, id, SIZE))
    if (problem === undefined) expect(found).equal(undefined)
    else expect(found).include(problem)
  }
})

function uploads(at: Endpoint): LoadPlan {
  return { kind: 'upload', at, viaTracker: false, connections: 2, sizeBytes: SIZE }
}

/** Through its line, as the bench reads it. */
function resultOf({ tally, seconds }: Load) {
  return parseLoadLine(tally.line('test', 2, seconds))
}

function problemOf(checking: Promise<void>): Promise<string | undefined> {
  return checking.then(
    () => undefined,
    error => error.message,
  )
}

function idOf(bytes: Buffer, promised: { sizeBytes?: number } = {}): string {
  const name = { storePathIndex: 0, directoryIndex: 0, storageId: 1, createTimeS: 1, salt: 0, tail: tailOf('bin', 0) }
  const sizeBytes = promised.sizeBytes ?? bytes.length
  return `group1/${encodeFileName({ ...name, sizeBytes, crc32: crc32(bytes) })}`
}

function replyOf(group: string, name: string): Buffer {
  return frame(100, Buffer.from(group.padEnd(16, '\0') + name))
}

async function nullServer(options: NullServerOptions): Promise<NullServer> {
  const server = await startNullServer(options)
  closing.push(server.close)
  return server
}

/** Answers each request with what `reply` says; ends the connection if it says nothing. */
function startFakeServer(reply: () => Buffer | undefined): Promise<{ endpoint: Endpoint }> {
  const server = createServer(socket => {
    const scanner = new FrameScanner({
      onFrame() {
        const bytes = reply()
        if (bytes === undefined) socket.destroy()
        else socket.write(bytes)
      },
    })
    socket.on('data', chunk => scanner.feed(chunk, chunk.length))
    socket.on('error', () => undefined)
  })
  closing.push(() => void server.close())
  return new Promise(resolve => {
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      resolve({ endpoint: { host: '127.0.0.1', port } })
    })
  })
}
