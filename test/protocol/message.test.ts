import { expect } from 'chai'
import { type TObject, Type } from 'typebox'
import { encode } from '../../protocol/codec.ts'
import { ERRORS } from '../../protocol/errors.ts'
import * as fileMessages from '../../protocol/file-messages.ts'
import {
  admit,
  defineRequest,
  MESSAGE_BYTES_MAX,
  type NoticeDefinition,
  type RequestDefinition,
  subjectOf,
} from '../../protocol/message.ts'
import * as storageMessages from '../../protocol/storage-messages.ts'
import * as trackerMessages from '../../protocol/tracker-messages.ts'

const Question = Type.Object({
  fileId: Type.String({ minLength: 1, maxLength: 10 }),
  offset: Type.Optional(Type.Integer({ minimum: 0 })),
  limit: Type.Integer({ default: 7 }),
  nested: Type.Optional(Type.Object({ port: Type.Integer() })),
})

const question = defineRequest({
  name: 'test.ask',
  subject: 'test.{role}.{group}.{id}.ask',
  about: 'A question.',
  request: Question,
  reply: Type.Object({}),
  errors: ['not_found'],
})

const failureOf = (payload: Uint8Array) => {
  try {
    admit(Question, payload)
    return undefined
  } catch (error) {
    return error as { code: string; message: string }
  }
}
const json = (value: unknown) => Buffer.from(JSON.stringify(value))

type Definition = RequestDefinition | NoticeDefinition
const definitions = [fileMessages, storageMessages, trackerMessages]
  .flatMap(module => Object.values(module) as unknown[])
  .filter((value): value is Definition => typeof (value as Definition)?.subject === 'string')
const requests = definitions.filter((d): d is RequestDefinition => 'reply' in d)

describe('message', () => {
  it('is admitted in both encodings, with defaults filled in', () => {
    for (const encoding of ['json', 'msgpack'] as const) {
      const admitted = admit(Question, encode({ fileId: 'a', offset: 2 ** 40 }, encoding))
      expect(admitted).to.deep.equal({ value: { fileId: 'a', offset: 2 ** 40, limit: 7 }, encoding })
    }
    expect(admit(Type.Object({}), Buffer.alloc(0))).to.deep.equal({ value: {}, encoding: 'json' })
  })

  it('may leave an optional field out or undefined, in both encodings', () => {
    for (const encoding of ['json', 'msgpack'] as const) {
      expect(admit(Question, encode({ fileId: 'a', offset: undefined }, encoding)).value).to.not.have.property('offset')
    }
  })

  it('may have fields nobody knows', () => {
    expect(admit(Question, json({ fileId: 'a', later: { x: 1 } })).value.fileId).to.equal('a')
  })

  it('that is wrong is refused by the name of its first wrong field', () => {
    expect(failureOf(json({}))).to.include({ code: 'bad_request' })
    expect(failureOf(json({}))?.message).to.contain('fileId')
    expect(failureOf(json({ fileId: 5 }))?.message).to.match(/^fileId /)
    expect(failureOf(json({ fileId: 'a', offset: -1 }))?.message).to.match(/^offset /)
    expect(failureOf(json({ fileId: 'a', offset: 1.5 }))?.message).to.match(/^offset /)
    expect(failureOf(json({ fileId: 'a', nested: { port: 'x' } }))?.message).to.match(/^nested\.port /)
    expect(failureOf(Buffer.from('[]'))?.code).to.equal('bad_request')
  })

  it('is refused before it is decoded if it is too large', () => {
    const large = Buffer.alloc(MESSAGE_BYTES_MAX + 1, 0x20)
    expect(failureOf(large)?.code).to.equal('too_large')
    const whole = Buffer.concat([json({ fileId: 'a' }), Buffer.alloc(MESSAGE_BYTES_MAX, 0x20)])
    expect(admit(Question, whole.subarray(0, MESSAGE_BYTES_MAX)).value.fileId).to.equal('a')
  })

  it('has a subject of its tokens; those left out are wildcards', () => {
    expect(subjectOf(question, { prefix: 'dfs', role: 'r', group: 'g', id: 'i' })).to.equal('dfs.test.r.g.i.ask')
    expect(subjectOf(question, { prefix: 'p' })).to.equal('p.test.*.*.*.ask')
  })
})

describe('every definition', () => {
  it('has a name of its own, a subject that can be one, and says what it is about', () => {
    expect(definitions.length).to.be.greaterThan(10)
    expect(new Set(definitions.map(d => d.name)).size).to.equal(definitions.length)
    for (const { name, subject, about } of definitions) {
      expect(name).to.match(/^[a-z]+\.[a-z][A-Za-z]*$/)
      expect(subject, name).to.match(/^(\{(role|group|id)\}|[a-zA-Z]+)(\.(\{(role|group|id)\}|[a-zA-Z]+))*$/)
      expect(about.length, name).to.be.greaterThan(10)
    }
  })

  it('lists only errors that are in the table, each once', () => {
    for (const { name, errors } of requests) {
      for (const code of errors) expect(ERRORS, name).to.have.property(code)
      expect(new Set(errors).size, name).to.equal(errors.length)
    }
  })

  it('has schemas that the door can check', () => {
    const schemas = definitions.flatMap(d => ('reply' in d ? [d.request, d.reply] : [d.payload])) as TObject[]
    for (const schema of schemas) {
      const required = (schema as { required?: string[] }).required ?? []
      if (required.length === 0) expect(admit(schema, Buffer.from('{}')).value).to.deep.equal({})
      else expect(() => admit(schema, Buffer.from('{}'))).to.throw(required[0]!)
    }
  })
})
