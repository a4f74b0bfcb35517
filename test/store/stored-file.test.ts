import { readdir, readFile, stat, truncate, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32c } from '@node-rs/crc32'
import { expect } from 'chai'
import { realWorld } from '../../runtime/real-world.ts'
import { BLOCK_BYTES } from '../../store/block-pool.ts'
import { checkContent, IncomingFile } from '../../store/incoming-file.ts'
import { blockCount, crcOffset, SIDECAR_HEADER_BYTES, SidecarWriter, sidecarPath } from '../../store/sidecar.ts'
import { StorePath } from '../../store/store-path.ts'
import { StoredFile } from '../../store/stored-file.ts'
import { FaultyDisk } from './faulty-disk.ts'
import { contentOf, fill, pathOptions, readAll, rejection, SIZES, sumOf, Workshop } from './store-fixture.ts'

describe('file on its way in and back', () => {
  let workshop: Workshop
  let disk: FaultyDisk
  let storePath: StorePath

  beforeEach(async () => {
    workshop = await Workshop.make()
    disk = new FaultyDisk(realWorld().disk)
    storePath = await StorePath.open(disk, 0, workshop.path, pathOptions('0'.repeat(32)))
  })
  afterEach(() => workshop.remove())

  const pathOf = (token: string) => storePath.temporaryPath(token)
  const temporaries = () => readdir(join(workshop.path, 'tmp'))
  async function store(content: Buffer, token = 'a'): Promise<string> {
    await (await fill(await IncomingFile.create(disk, storePath, token), content)).seal()
    return pathOf(token)
  }
  const open = (path: string, content: Buffer) => StoredFile.open(disk, path, content.length, sumOf(content))
  /** What each block of a file reads as: its bytes, or the code it is refused with. */
  async function blocksOf(path: string, content: Buffer): Promise<(Buffer | string)[]> {
    const file = await open(path, content)
    const blocks: (Buffer | string)[] = []
    for (let i = 0; i < blockCount(content.length); i++) {
      const target = Buffer.alloc(BLOCK_BYTES)
      blocks.push(await file.readBlocks(i, target).catch(error => (error as { code: string }).code))
    }
    await file.close()
    return blocks
  }
  const blockOf = (content: Buffer, i: number) => content.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES)

  it('is read as it was written, at every size where something changes', async () => {
    for (const [i, sizeBytes] of SIZES.entries()) {
      const content = contentOf(sizeBytes, i + 1)
      const incoming = await fill(await IncomingFile.create(disk, storePath, `t${i}`), content)
      expect(incoming).to.include({ sizeBytes, crc32: sumOf(content) })
      await incoming.seal()
      expect((await readAll(await open(pathOf(`t${i}`), content))).equals(content), String(sizeBytes)).to.equal(true)
      const withSidecar = sizeBytes > BLOCK_BYTES
      const sidecar = await stat(sidecarPath(pathOf(`t${i}`))).catch(() => undefined)
      const expectedBytes = withSidecar ? SIDECAR_HEADER_BYTES + 4 * blockCount(sizeBytes) : undefined
      expect(sidecar?.size, String(sizeBytes)).to.equal(expectedBytes)
    }
  })

  it('is durable with its sidecar and its directory entry once it is sealed', async () => {
    await store(contentOf(BLOCK_BYTES + 1))
    const directory = disk.find('end', { action: 'syncDirectory', path: /natsdfs.*\/tmp$/ })
    expect(disk.find('end', { action: 'sync', path: /tmp\/a$/ })).to.be.within(0, directory)
    expect(disk.find('end', { action: 'sync', path: /tmp\/a~sum$/ })).to.be.within(0, directory)
  })

  it('is refused with any flipped bit in its data, and only the block that has it', async () => {
    for (const sizeBytes of [1, BLOCK_BYTES, 3 * BLOCK_BYTES + 17]) {
      const content = contentOf(sizeBytes)
      const path = await store(content, `s${sizeBytes}`)
      for (const at of [0, sizeBytes >> 1, sizeBytes - 1]) {
        const flipped = Buffer.from(content)
        flipped[at]! ^= 1 << (at % 8)
        await writeFile(path, flipped)
        const blocks = await blocksOf(path, content)
        blocks.forEach((block, i) => {
          if (i === Math.floor(at / BLOCK_BYTES)) expect(block, `byte ${at} of ${sizeBytes}`).to.equal('corrupt')
          else expect(blockOf(content, i).equals(block as Buffer), `block ${i}`).to.equal(true)
        })
      }
    }
  })

  it('never reads as wrong bytes when its sidecar has a flipped bit', async () => {
    const content = contentOf(3 * BLOCK_BYTES + 17)
    const path = await store(content)
    const sidecar = await readFile(sidecarPath(path))
    for (let at = 0; at < sidecar.length; at++) {
      const flipped = Buffer.from(sidecar)
      flipped[at]! ^= 1 << (at % 8)
      await writeFile(sidecarPath(path), flipped)
      const bad = (await blocksOf(path, content)).flatMap((block, i) => {
        if (block === 'corrupt') return [i]
        expect(blockOf(content, i).equals(block as Buffer), `byte ${at}, block ${i}`).to.equal(true)
        return []
      })
      const reserved = at >= 12 && at < 16
      const crc = Math.floor((at - SIDECAR_HEADER_BYTES) / 4)
      expect(bad, `byte ${at}`).to.deep.equal(at >= SIDECAR_HEADER_BYTES ? [crc] : reserved ? [] : [0, 1, 2, 3])
    }
  })

  it('is refused where its sidecar is missing or cut short', async () => {
    const content = contentOf(3 * BLOCK_BYTES + 17)
    const path = await store(content)
    const whole = (await stat(sidecarPath(path))).size
    for (let length = whole - 1; length >= 0; length--) {
      await truncate(sidecarPath(path), length)
      const known = Math.max(0, Math.floor((length - SIDECAR_HEADER_BYTES) / 4))
      const good = (await blocksOf(path, content)).filter(block => block !== 'corrupt')
      expect(good.length, `sidecar of ${length}`).to.equal(known)
    }
    await unlink(sidecarPath(path))
    expect(await blocksOf(path, content)).to.deep.equal(['corrupt', 'corrupt', 'corrupt', 'corrupt'])
  })

  it('is not called corrupt when its disk does not give the sidecar, and reads right when it does', async () => {
    const content = contentOf(2 * BLOCK_BYTES)
    const file = await open(await store(content), content)
    for (const action of ['open', 'read'] as const) {
      disk.fail({ action, path: /~sum$/ }, 'EIO')
      const refused = await rejection(file.readBlocks(1, Buffer.alloc(BLOCK_BYTES)))
      expect(refused, action).to.include({ name: 'DiskError', errno: 'EIO' })
    }
    expect((await readAll(file)).equals(content)).to.equal(true)
  })

  it('is checked by the CRC32C of its blocks if its sidecar is of version 1', async () => {
    const content = contentOf(2 * BLOCK_BYTES)
    const path = await store(content)
    const sidecar = await readFile(sidecarPath(path))
    sidecar.writeUInt32BE(1, 4)
    await writeFile(sidecarPath(path), sidecar)
    expect(await blocksOf(path, content)).to.deep.equal(['corrupt', 'corrupt'])
    for (const i of [0, 1]) sidecar.writeUInt32BE(crc32c(blockOf(content, i)), crcOffset(i))
    await writeFile(sidecarPath(path), sidecar)
    expect(await blocksOf(path, content)).to.deep.equal([blockOf(content, 0), blockOf(content, 1)])
  })

  it('is refused where it is cut short itself', async () => {
    for (const sizeBytes of [1, BLOCK_BYTES, 2 * BLOCK_BYTES]) {
      const content = contentOf(sizeBytes)
      const path = await store(content, `c${sizeBytes}`)
      await truncate(path, sizeBytes - 1)
      expect((await blocksOf(path, content)).at(-1), String(sizeBytes)).to.equal('corrupt')
      await truncate(path, 0)
      for (const block of await blocksOf(path, content)) expect(block).to.equal('corrupt')
    }
    // The CRC32 of these four bytes is that of none.
    const content = Buffer.from('9d0ad96d', 'hex')
    const path = await store(content, 'zero')
    expect(await blocksOf(path, content)).to.deep.equal([content])
    await truncate(path, 0)
    expect(await blocksOf(path, content)).to.deep.equal(['corrupt'])
  })

  it('has checks beyond the first read of its sidecar, and forwards and backwards', async () => {
    const blocks = 1030
    const writer = new SidecarWriter()
    const block = contentOf(BLOCK_BYTES)
    for (let i = 0; i < blocks; i++) writer.add(block)
    const path = join(workshop.path, 'large')
    // One block, and holes: what a hole reads as is not what its check says.
    await writeFile(path, block)
    await truncate(path, blocks * BLOCK_BYTES)
    await writeFile(sidecarPath(path), writer.encode(blocks * BLOCK_BYTES))
    const file = await StoredFile.open(disk, path, blocks * BLOCK_BYTES, 0)
    const target = Buffer.alloc(BLOCK_BYTES)
    expect(await rejection(file.readBlocks(blocks - 1, target))).to.include({ code: 'corrupt' })
    expect((await file.readBlocks(0, target)).equals(block)).to.equal(true)
    await file.close()
    expect(disk.count({ action: 'open', path: /large~sum$/ })).to.equal(2)
  })

  it('leaves nothing behind when it is discarded, at whatever point', async () => {
    const early = await IncomingFile.create(disk, storePath, 'early')
    await early.discard()
    const late = await fill(await IncomingFile.create(disk, storePath, 'late'), contentOf(BLOCK_BYTES + 1))
    await late.seal()
    await late.discard()
    expect(await temporaries()).to.deep.equal([])
  })

  it('is not given up before its sidecar has ended too, so that nothing comes after the clearing away', async () => {
    const incoming = await fill(await IncomingFile.create(disk, storePath, 'a'), contentOf(BLOCK_BYTES + 1))
    const sidecar = disk.hold({ action: 'open', path: /~sum$/ })
    disk.fail({ action: 'sync', path: /tmp\/a$/ }, 'EIO')
    let errno: string | undefined
    const sealed = incoming.seal().catch(error => {
      errno = (error as { errno: string }).errno
    })
    await sidecar.reached
    await new Promise(resolve => setImmediate(resolve))
    expect(errno).to.equal(undefined)
    sidecar.release()
    await sealed
    expect(errno).to.equal('EIO')
    await incoming.discard()
    expect(await temporaries()).to.deep.equal([])
  })

  it('is checked against what was announced', async () => {
    const content = contentOf(10)
    const incoming = await fill(await IncomingFile.create(disk, storePath, 'a'), content)
    checkContent(incoming, 10, sumOf(content))
    for (const [size, sum] of [
      [11, sumOf(content)],
      [10, sumOf(content) + 1],
      [undefined, sumOf(content)],
    ] as const) {
      expect(() => checkContent(incoming, size, sum))
        .to.throw()
        .with.property('code', 'digest_mismatch')
    }
    await incoming.discard()
  })
})
