/**
 * One definition per message: it yields the TypeScript type, the JSON Schema that the door checks, the subject, the
 * error codes and the documentation, so that none of them can drift from the others.
 */
import { Ajv, type ValidateFunction } from 'ajv'
import type { Static, TObject } from 'typebox'
import { decode, type Encoding } from './codec.ts'
import { DfsError, type ErrorCode } from './errors.ts'

/** The version of everything in this folder; carried in joins and beats. */
export const PROTOCOL_VERSION = 1

/** The first token of every subject unless an operator chooses another, so that clusters can share one NATS. */
export const SUBJECT_PREFIX = 'dfs'

/**
 * The largest map taken at the door. Our largest honest one, a beat of a server with 256 store paths and 31 peers,
 * has 20 KiB.
 */
export const MESSAGE_BYTES_MAX = 64 * 1024

/** A question that gets one answer. */
export interface RequestDefinition<Request extends TObject = TObject, Reply extends TObject = TObject> {
  /** `<actor>.<verb>`. */
  readonly name: string
  /** Without the prefix; `{role}`, `{group}` and `{id}` stand for tokens. */
  readonly subject: string
  readonly about: string
  readonly request: Request
  readonly reply: Reply
  readonly errors: readonly ErrorCode[]
}

/** Something told to whoever listens. */
export interface NoticeDefinition<Payload extends TObject = TObject> {
  readonly name: string
  readonly subject: string
  readonly about: string
  readonly payload: Payload
}

/** The type of a definition's request, reply or payload. */
export type RequestOf<D> = D extends RequestDefinition<infer Q, TObject> ? Static<Q> : never
export type ReplyOf<D> = D extends RequestDefinition<TObject, infer R> ? Static<R> : never
export type PayloadOf<D> = D extends NoticeDefinition<infer P> ? Static<P> : never

/** Checks that a definition is complete, and keeps its exact type. */
export function defineRequest<Q extends TObject, R extends TObject>(
  definition: RequestDefinition<Q, R>,
): RequestDefinition<Q, R> {
  return definition
}

/** Checks that a definition is complete, and keeps its exact type. */
export function defineNotice<P extends TObject>(definition: NoticeDefinition<P>): NoticeDefinition<P> {
  return definition
}

/** What stands for the tokens of a subject; one that is left out becomes the wildcard `*`. */
export interface SubjectTokens {
  readonly prefix: string
  readonly role?: string
  readonly group?: string
  readonly id?: string
}

/** Fills in the tokens of a subject. */
export function subjectOf(definition: { readonly subject: string }, tokens: SubjectTokens): string {
  const filled = definition.subject
    .replace('{role}', tokens.role ?? '*')
    .replace('{group}', tokens.group ?? '*')
    .replace('{id}', tokens.id ?? '*')
  return `${tokens.prefix}.${filled}`
}

/**
 * Decodes a payload and checks it against a schema: the one door through which text from outside comes in. Fields
 * nobody knows are ignored, so that versions can be mixed. Throws `too_large` or `bad_request`.
 */
export function admit<S extends TObject>(schema: S, payload: Uint8Array): { value: Static<S>; encoding: Encoding } {
  if (payload.length > MESSAGE_BYTES_MAX) {
    throw new DfsError('too_large', `a message has at most ${MESSAGE_BYTES_MAX} bytes`)
  }
  const { value, encoding } = decode(payload)
  const check = checkerOf(schema)
  if (!check(value)) {
    const problem = check.errors?.[0]
    const field = problem?.instancePath.replaceAll('/', '.').slice(1) || 'the request'
    throw new DfsError('bad_request', `${field} ${problem?.message ?? 'is not valid'}`)
  }
  return { value: value as Static<S>, encoding }
}

const ajv = new Ajv({ useDefaults: true, unicodeRegExp: false })
const checkers = new WeakMap<TObject, ValidateFunction>()

function checkerOf(schema: TObject): ValidateFunction {
  let checker = checkers.get(schema)
  if (checker === undefined) {
    checker = ajv.compile(schema)
    checkers.set(schema, checker)
  }
  return checker
}
