import { expect } from 'chai'
import fc from 'fast-check'
import { antiLeechToken, checkAntiLeechToken, TOKEN_TTL_S } from '../../protocol/anti-leech.ts'
import { DfsError } from '../../protocol/errors.ts'

const NAME = 'M00/00/00/AQAAAGkf3nGAAAAqAAAQABcT3q4123.jpg'
const SLAVE = 'M01/0A/3F/AQAAAGkf3nGAAAAqAAAQABcT3q4123_150x150.jpg'
const SECRET = 'FastDFS1234567890'
const NOW_S = 1_700_000_000

describe('an anti-leech token', () => {
  it('is the MD5 of name, secret and time, as md5sum has it', () => {
    // printf '%s' "$name$secret$time" | md5sum
    for (const [name, secret, timeS, token] of [
      [NAME, SECRET, 1_700_000_000, 'd7ea6014e36285a3ade9709ec56531a2'],
      [NAME, SECRET, 0, 'b43a9d275ef489c143ce5b31bf54d6b3'],
      [SLAVE, 'пароль', 2_147_483_647, '9698bcbf0ed3118f180966960481769d'],
    ] as const) {
      expect(antiLeechToken(`group1/${name}`, { secret, timeS })).equal(token)
      expect(antiLeechToken(`other/${name}`, { secret, timeS }), 'whatever the group').equal(token)
    }
  })

  it('is not made of what is no file id, of no secret, or for a time that FastDFS cannot count', () => {
    expect(() => antiLeechToken('group1/photo.jpg', { secret: SECRET, timeS: 1 })).throw(DfsError)
    expect(() => antiLeechToken(`group1/${NAME}`, { secret: '', timeS: 1 })).throw(RangeError)
    for (const timeS of [-1, 1.5, 2 ** 31, Number.NaN]) {
      expect(() => antiLeechToken(`group1/${NAME}`, { secret: SECRET, timeS })).throw(RangeError)
    }
  })
})

describe('a check of an anti-leech token', () => {
  const tokenOf = (timeS: number, name = NAME, secret = SECRET) => antiLeechToken(`group1/${name}`, { secret, timeS })
  const queryAt = (timeS: number) => ({ token: tokenOf(timeS), ts: String(timeS) })
  const check = (query: { token?: string | undefined; ts?: string | undefined }, name = NAME, ttlS = TOKEN_TTL_S) =>
    checkAntiLeechToken(name, { token: query.token, ts: query.ts }, { secret: SECRET, nowS: NOW_S, ttlS })

  it('finds nothing wrong for as long as it lives on both sides of its time', () => {
    for (const ageS of [-900, -1, 0, 1, 900]) expect(check(queryAt(NOW_S - ageS)), `${ageS} s`).equal(undefined)
    expect(check(queryAt(NOW_S - 901))).equal('expired')
    expect(check(queryAt(NOW_S + 901))).equal('early')
    expect(check(queryAt(2 ** 31 - 1))).equal('early')
  })

  it('takes another length of life, and 900 seconds without one', () => {
    expect([check(queryAt(NOW_S - 60), NAME, 60), check(queryAt(NOW_S - 61), NAME, 60)]).deep.equal([
      undefined,
      'expired',
    ])
    const atDefault = (ageS: number) =>
      checkAntiLeechToken(NAME, queryAt(NOW_S - ageS), { secret: SECRET, nowS: NOW_S })
    expect([atDefault(900), atDefault(901)]).deep.equal([undefined, 'expired'])
  })

  it('lets a token of time 0 live for ever, as FastDFS does, but no other in its place', () => {
    expect(check(queryAt(0))).equal(undefined)
    expect(check({ token: tokenOf(NOW_S), ts: '0' })).equal('wrong')
  })

  it('finds a token wrong that is of another name, another time or another secret', () => {
    const token = tokenOf(NOW_S)
    expect(check({ token, ts: String(NOW_S) }, NAME.replace('123.', '124.'))).equal('wrong')
    expect(check({ token, ts: String(NOW_S) }, NAME.replace('AQAA', 'aqaa'))).equal('wrong')
    expect(check({ token, ts: String(NOW_S) }, `group1/${NAME}`)).equal('wrong')
    expect(check({ token, ts: String(NOW_S + 1) })).equal('wrong')
    expect(check({ token: tokenOf(NOW_S, NAME, `${SECRET}0`), ts: String(NOW_S) })).equal('wrong')
    // An old one does not tell that it once was right.
    expect(check({ token: 'f'.repeat(32), ts: '1' })).equal('wrong')
  })

  it('does not take a token that differs in any one digit', () => {
    const { token, ts } = queryAt(NOW_S)
    for (let i = 0; i < token.length; i++) {
      const other = token[i] === '0' ? '1' : '0'
      expect(check({ token: token.slice(0, i) + other + token.slice(i + 1), ts })).equal('wrong')
    }
  })

  it('finds malformed what is missing, of another length, in upper case, or no time', () => {
    const { token, ts } = queryAt(NOW_S)
    for (const bad of [undefined, '', token.slice(1), `${token}0`, token.toUpperCase(), `${token.slice(1)}g`]) {
      expect(check({ token: bad, ts }), bad).equal('malformed')
    }
    for (const bad of [undefined, '', '-1', '+1', '1.5', '1e9', ` ${ts}`, `0${ts}`, '12345678901', '٣', 'now']) {
      expect(check({ token, ts: bad }), bad).equal('malformed')
    }
  })

  it('throws nothing, and lets nothing in, whatever stands in a query', () => {
    const text = fc.oneof(fc.string(), fc.string({ unit: 'binary' }), fc.constant(tokenOf(NOW_S)), fc.constant('0'))
    fc.assert(
      fc.property(fc.option(text, { nil: undefined }), fc.option(text, { nil: undefined }), (token, ts) => {
        expect(check({ token, ts })).oneOf(['malformed', 'wrong'])
      }),
    )
  })

  it('refuses to go on without a secret', () => {
    expect(() => checkAntiLeechToken(NAME, queryAt(NOW_S), { secret: '', nowS: NOW_S })).throw(RangeError)
  })
})
