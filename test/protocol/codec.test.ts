import { expect } from 'chai'
import fc from 'fast-check'
import { decode, encode } from '../../protocol/codec.ts'

const hex = (text: string) => Buffer.from(text, 'hex')
const codeOf = (payload: Uint8Array) => {
  try {
    decode(payload)
    return 'accepted'
  } catch (error) {
    return (error as { code?: string }).code
  }
}

describe('codec', () => {
  it('decodes what it encoded, and tells how it was encoded', () => {
    const values = fc.oneof(
      fc.string(),
      fc.boolean(),
      fc.constant(null),
      fc.maxSafeInteger(),
      fc.array(fc.string(), { maxLength: 3 }),
      fc.dictionary(fc.stringMatching(/^[a-z]{1,5}$/), fc.maxSafeInteger(), { maxKeys: 3 }),
    )
    const maps = fc.dictionary(fc.stringMatching(/^[a-zA-Z]{1,8}$/), values, { maxKeys: 40 })
    fc.assert(
      fc.property(maps, fc.constantFrom('json' as const, 'msgpack' as const), (map, encoding) => {
        const decoded = decode(encode(map, encoding))
        expect(decoded.encoding).to.equal(encoding)
        expect(decoded.value).to.deep.equal({ ...map })
      }),
    )
  })

  it('takes an empty payload for all defaults, in JSON', () => {
    expect(decode(Buffer.alloc(0))).to.deep.equal({ value: {}, encoding: 'json' })
  })

  it('takes JSON behind white space', () => {
    expect(decode(Buffer.from(' \r\n\t{"a":1}'))).to.deep.equal({ value: { a: 1 }, encoding: 'json' })
  })

  it('takes every kind of msgpack map', () => {
    for (const map of ['81a16101', 'de0001a16101', 'df00000001a16101']) {
      expect(decode(hex(map)), map).to.deep.equal({ value: { a: 1 }, encoding: 'msgpack' })
    }
  })

  it('reads 64-bit integers of other languages as numbers', () => {
    expect(decode(hex('81a161cf0000000200000000')).value).to.deep.equal({ a: 2 ** 33 })
    expect(decode(hex('81a161d3ffffffff00000000')).value).to.deep.equal({ a: -(2 ** 32) })
  })

  it('puts no undefined on the wire: the field is left out', () => {
    const value = { a: undefined, b: 1, c: { d: undefined, e: 2 } }
    for (const encoding of ['json', 'msgpack'] as const) {
      const decoded = decode(encode(value, encoding)).value
      expect(Object.keys(decoded), encoding).to.deep.equal(['b', 'c'])
      expect(decoded, encoding).to.deep.equal({ b: 1, c: { e: 2 } })
    }
  })

  it('writes msgpack that any language reads: plain maps, no extension', () => {
    expect(Buffer.from(encode({ a: 1, b: { c: 'd' } }, 'msgpack')).toString('hex')).to.equal('82a16101a16281a163a164')
  })

  it('refuses a root that is no map', () => {
    for (const json of ['[]', '[1]', '1', '"a"', 'null', 'true']) {
      expect(codeOf(Buffer.from(json)), json).to.equal('bad_request')
    }
    // Array, number, string, nil, extension: as msgpack.
    for (const msgpack of ['9101', '01', 'a161', 'c0', 'd6ff00000000', 'dc000101']) {
      expect(codeOf(hex(msgpack)), msgpack).to.equal('bad_request')
    }
  })

  it('refuses what is torn, too long or no encoding at all', () => {
    const whole = encode({ abc: 'def', list: [1, 2, 3], map: { x: 2 ** 40 } }, 'msgpack')
    for (let length = 1; length < whole.length; length++) {
      expect(codeOf(whole.subarray(0, length)), String(length)).to.equal('bad_request')
    }
    expect(codeOf(Buffer.concat([whole, hex('c0')]))).to.equal('bad_request')
    for (const json of ['{', '{"a"', '{"a":1', '{"a":1}}', 'hello', '\ufeff{}']) {
      expect(codeOf(Buffer.from(json)), json).to.equal('bad_request')
    }
  })

  it('refuses nesting that is too deep to read, and lives on', () => {
    expect(codeOf(Buffer.concat([hex('81a161'), Buffer.alloc(60_000, 0x91)]))).to.equal('bad_request')
    expect(decode(hex('81a16101')).value).to.deep.equal({ a: 1 })
  })

  it('keeps a name like __proto__ from changing what objects are', () => {
    for (const payload of [
      Buffer.from('{"__proto__":{"evil":1}}'),
      encode(JSON.parse('{"__proto__":{"evil":1}}'), 'msgpack'),
    ]) {
      expect((decode(payload).value as { evil?: number }).evil).to.equal(undefined)
    }
    expect(({} as { evil?: number }).evil).to.equal(undefined)
  })
})
