/**
 * What messages are made of: JSON Schemas whose types TypeScript knows. Words and types are TypeBox's; of its 700 modules,
 * which a command would spend a third of its start on, messages need these few lines.
 */
import type { Type as TypeBox } from 'typebox'

type Schema = object

/** Fields that a message may do without: copies, because elsewhere the same schema may be a field that has to be there. */
const optional = new WeakSet<Schema>()

const builders = {
  Array: (items: Schema, options?: Schema) => ({ type: 'array', items, ...options }),
  Boolean: (options?: Schema) => ({ type: 'boolean', ...options }),
  Integer: (options?: Schema) => ({ type: 'integer', ...options }),
  Literal: (value: string | number | boolean) => ({ type: typeof value, const: value }),
  Number: (options?: Schema) => ({ type: 'number', ...options }),
  Object(properties: Record<string, Schema>, options?: Schema) {
    const required = Object.keys(properties).filter(name => !optional.has(properties[name]!))
    return { type: 'object', ...(required.length === 0 ? {} : { required }), properties, ...options }
  },
  Optional(schema: Schema) {
    const copy = { ...schema }
    optional.add(copy)
    return copy
  },
  /** Of a name nothing but its pattern is checked. */
  Record: ({ pattern = '^.*$' }: { pattern?: string }, value: Schema) => ({
    type: 'object',
    patternProperties: { [pattern]: value },
  }),
  String: (options?: Schema) => ({ type: 'string', ...options }),
  Union: (anyOf: readonly Schema[]) => ({ anyOf }),
  Unknown: () => ({}),
}

/** TypeBox's builders, as far as messages need them; a test holds them against its own. */
export const Type = builders as unknown as Pick<typeof TypeBox, keyof typeof builders>
