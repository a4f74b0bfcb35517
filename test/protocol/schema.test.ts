import { expect } from 'chai'
import { Type as TypeBox } from 'typebox'
import { Type } from '../../protocol/schema.ts'

describe('schemas', () => {
  const made = (of: typeof Type) => {
    const name = of.String({ minLength: 1, pattern: '^a' })
    return {
      strings: [name, of.String()],
      numbers: [of.Integer({ minimum: 0, maximum: 9 }), of.Integer(), of.Number({ minimum: 0.5 }), of.Number()],
      literals: [of.Literal('a'), of.Literal(3), of.Literal(true)],
      others: [of.Boolean(), of.Unknown(), of.Union([of.Literal('a'), of.Integer()])],
      arrays: [of.Array(name, { maxItems: 3 }), of.Array(of.Array(of.Boolean()))],
      records: [of.Record(of.String(), of.Unknown()), of.Record(name, of.Integer())],
      objects: [
        of.Object({}),
        of.Object({ name }),
        of.Object({ name: of.Optional(name) }, { additionalProperties: false }),
        of.Object({ a: name, b: of.Optional(name), c: name, d: of.Object({ e: of.Optional(of.Array(name)) }) }),
      ],
    }
  }

  it('are those that TypeBox makes', () => {
    expect(JSON.stringify(made(Type))).equal(JSON.stringify(made(TypeBox)))
  })
})
