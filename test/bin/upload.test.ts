import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { findFiles } from '../../bin/upload.ts'

describe('the files to upload', () => {
  let directory: string
  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'dfs-walk-'))
    mkdirSync(join(directory, 'tree', 'b', 'deep'), { recursive: true })
    for (const [name, text] of [
      ['tree/z', 'zz'],
      ['tree/a', 'a'],
      ['tree/b/2', '2'],
      ['tree/b/10', '10'],
      ['tree/b/deep/x', ''],
      ['tree/c', 'ccc'],
    ] as const) {
      writeFileSync(join(directory, name), text)
    }
    symlinkSync(join(directory, 'tree', 'a'), join(directory, 'tree', 'link'))
    symlinkSync(join(directory, 'tree'), join(directory, 'tree', 'b', 'loop'))
  })
  after(() => rmSync(directory, { recursive: true }))

  const found = async (paths: string[], recursive: boolean) =>
    (await findFiles(paths, recursive)).map(file => [
      file.path.replace(`${directory}/`, ''),
      'error' in file ? file.error.message.replace(`${directory}/`, '') : file.sizeBytes,
    ])

  it('come in the order of the arguments, and from directories sorted by name', async () => {
    expect(await found([join(directory, 'tree', 'z'), join(directory, 'tree'), '-'], true)).to.deep.equal([
      ['tree/z', 2],
      ['tree/a', 1],
      ['tree/b/10', 2],
      ['tree/b/2', 1],
      ['tree/b/deep/x', 0],
      ['tree/c', 3],
      ['tree/z', 2],
      ['-', undefined],
    ])
  })

  it('are reached through a symbolic link only if it is named', async () => {
    expect(await found([join(directory, 'tree', 'link')], true)).to.deep.equal([['tree/link', 1]])
  })

  it('are not looked for in a directory without -r', async () => {
    expect(await found([join(directory, 'tree'), join(directory, 'nosuch')], false)).to.deep.equal([
      ['tree', 'tree is a directory; -r uploads what is in it'],
      ['nosuch', 'cannot read nosuch'],
    ])
  })
})
