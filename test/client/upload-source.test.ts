import { PassThrough } from 'node:stream'
import { expect } from 'chai'
import { openSource, PIECE_BYTES } from '../../client/upload-source.ts'
import { realDisk } from '../../runtime/real-disk.ts'

const failureOf = (work: Promise<unknown>) => work.catch((error: Error) => error.message)

describe('the source of an upload', () => {
  it('that is a stream can be sent again if it fits one piece, and else has no known size', async () => {
    const short = await openSource(
      realDisk,
      (async function* () {
        yield Buffer.alloc(PIECE_BYTES)
      })(),
    )
    expect(short).to.include({ repeatable: true, sizeBytes: PIECE_BYTES })
    const long = await openSource(
      realDisk,
      (async function* () {
        yield Buffer.alloc(PIECE_BYTES)
        yield Buffer.alloc(1)
      })(),
    )
    expect(long).to.include({ repeatable: true, sizeBytes: undefined })
    await long.send(async () => undefined)
    expect(long.repeatable).to.equal(false)
  })

  it('closes though its stream has not answered a read, and may never do so', async () => {
    const stream = new PassThrough()
    stream.write(Buffer.alloc(PIECE_BYTES + 1))
    const source = await openSource(realDisk, stream)
    const sending = failureOf(source.send(async () => undefined))
    await new Promise(setImmediate)
    await source.close()
    stream.destroy(new Error('gone'))
    expect(await sending).to.equal('the stream failed')
  })

  it('says what is wrong with a path that is no file', async () => {
    expect(await failureOf(openSource(realDisk, '/nosuch'))).to.equal('there is no /nosuch')
    expect(await failureOf(openSource(realDisk, '/dev/null'))).to.equal('/dev/null is not a regular file')
  })
})
