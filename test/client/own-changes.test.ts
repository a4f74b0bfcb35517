import { expect } from 'chai'
import { OwnChanges } from '../../client/own-changes.ts'
import { encodeFileName, tailOf } from '../../protocol/file-id.ts'

const idOf = (storageId: number, sequence: number) =>
  `group1/${encodeFileName({ storePathIndex: 0, directoryIndex: 0, storageId, createTimeS: 1, sizeBytes: 1, crc32: 1, salt: sequence, tail: tailOf('', 0) })}`

describe('what a client has changed', () => {
  it('is known file by file, and of a file long ago by its source: never less than was noted', () => {
    const changes = new OwnChanges()
    const place = (sequence: number) => ({ source: 1, epoch: 1, sequence })
    expect(changes.needed(idOf(1, 1))).to.equal(undefined)
    for (let i = 1; i <= 4096; i++) changes.note(idOf(1, i), place(i))
    expect(changes.needed(idOf(1, 1))).to.deep.equal(place(1))
    expect(changes.needed(idOf(1, 9999)), 'of no matter').to.equal(undefined)
    for (let i = 1; i <= 10; i++) changes.note(idOf(1, 5000 + i), place(5000 + i))
    expect(changes.needed(idOf(1, 1)), 'forgotten').to.deep.equal(place(10))
    expect(changes.needed(idOf(1, 10)), 'forgotten').to.deep.equal(place(10))
    expect(changes.needed(idOf(1, 11))).to.deep.equal(place(11))
    expect(changes.needed(idOf(2, 1)), 'of another source').to.equal(undefined)
  })

  it('needs the source while nobody knows where the change stands', () => {
    const changes = new OwnChanges()
    changes.noteUnplaced(idOf(1, 1))
    expect(changes.needed(idOf(1, 1))?.sequence).to.equal(Number.POSITIVE_INFINITY)
    for (let i = 2; i <= 5000; i++) changes.note(idOf(1, i), { source: 1, epoch: 1, sequence: i })
    expect(changes.needed(idOf(1, 1))?.sequence, 'forgotten with its file').to.be.below(5000)
  })
})
