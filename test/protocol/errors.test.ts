import { expect } from 'chai'
import { DfsError, ERRORS, type ErrorCode, errorBody, toDfsError } from '../../protocol/errors.ts'

const codes = Object.keys(ERRORS) as ErrorCode[]

describe('error codes', () => {
  it('are snake_case nouns with a status, an errno and a sentence', () => {
    for (const code of codes) {
      const { status, errno, retryable, about } = ERRORS[code]
      expect(code).to.match(/^[a-z]+(_[a-z]+)*$/)
      expect(status, code).to.be.within(400, 599)
      expect(errno, code).to.be.within(1, 133)
      expect(retryable, code).to.be.a('boolean')
      expect(about, code).to.match(/^[A-Z].*\.$/)
    }
  })

  it('of what is wrong with the request itself are not worth a retry', () => {
    for (const code of ['bad_request', 'bad_file_id', 'not_found', 'too_large', 'bad_range', 'forbidden'] as const) {
      expect(ERRORS[code].retryable, code).to.equal(false)
    }
  })
})

describe('error', () => {
  it('carries its code, its meaning and its cause', () => {
    const cause = new Error('EIO')
    const error = new DfsError('corrupt', undefined, { cause })
    expect(error).to.include({
      name: 'DfsError',
      code: 'corrupt',
      retryable: true,
      message: ERRORS.corrupt.about,
      cause,
    })
  })

  it('travels as a body that says all of it', () => {
    for (const code of codes) {
      const { status, retryable, about } = ERRORS[code]
      expect(errorBody(code)).to.deep.equal({ error: { code, status, message: about, retryable } })
    }
    expect(errorBody('no_space', 'full').error.message).to.equal('full')
  })

  it('that nobody expected becomes internal and keeps what it was', () => {
    const bug = new TypeError('x is not a function')
    expect(toDfsError(bug)).to.include({ code: 'internal', message: bug.message, cause: bug })
    expect(toDfsError('text')).to.include({ code: 'internal', message: 'text', cause: 'text' })
    const expected = new DfsError('not_found')
    expect(toDfsError(expected)).to.equal(expected)
  })
})
