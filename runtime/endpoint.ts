/** Serves a defined request on the bus: decodes and checks at the door, encodes the answer in kind. */
import { CONTENT_TYPES, type Encoding, encode } from '../protocol/codec.ts'
import { DfsError, ERRORS, errorBody, toDfsError } from '../protocol/errors.ts'
import { admit, type ReplyOf, type RequestDefinition, type RequestOf } from '../protocol/message.ts'
import { BusError, type BusHeaders } from './bus.ts'
import type { Log } from './log.ts'
import type { MicroRequest, MicroService } from './micro-service.ts'

/** What is not said of an endpoint by its definition. */
export interface ServeOptions {
  readonly name?: string
  /** Numbers of its own for STATS. */
  readonly data?: () => Record<string, unknown>
}

/** Serves `definition` on a subject. What the handler throws goes back as an error with code, status and headers. */
export function serve<D extends RequestDefinition>(
  service: MicroService,
  definition: D,
  subject: string,
  log: Log,
  handle: (request: RequestOf<D>) => ReplyOf<D> | Promise<ReplyOf<D>>,
  { name = endpointName(definition.name), data }: ServeOptions = {},
): void {
  service.endpoint({ name, subject, data }, async request => {
    let encoding: Encoding = encodingAskedFor(request.message.headers, request.message.payload)
    try {
      const admitted = admit(definition.request, request.message.payload)
      encoding = admitted.encoding
      const reply = await handle(admitted.value as RequestOf<D>)
      respond(request, encode(reply as object, encoding), encoding)
    } catch (error) {
      failRequest(request, error, encoding, log)
    }
  })
}

function respond(request: MicroRequest, payload: Uint8Array, encoding: Encoding): void {
  try {
    request.respond(payload, contentType(encoding))
  } catch (cause) {
    if (!(cause instanceof BusError) || cause.code !== 'too_large') throw cause
    throw new DfsError('too_large', `the answer has ${payload.length} bytes, more than one message takes`, { cause })
  }
}

/** Answers with an error: the two micro-service headers, and the body in the caller's encoding. */
export function failRequest(request: MicroRequest, thrown: unknown, encoding: Encoding, log: Log): void {
  const error = toDfsError(thrown)
  if (error.code === 'internal') log.error({ err: thrown, subject: request.message.subject }, 'a request failed')
  const body = encode(errorBody(error.code, error.message), encoding)
  request.fail(error.code, ERRORS[error.code].status, error.message, body, contentType(encoding))
}

/** The encoding for an answer to a body that is not a map: `Accept`, or JSON. */
export function encodingAskedFor(headers: BusHeaders, payload: Uint8Array = new Uint8Array()): Encoding {
  if (headers.Accept === CONTENT_TYPES.msgpack) return 'msgpack'
  const first = payload[0] ?? 0
  return first >= 0x80 && (first <= 0x8f || first >= 0xde) ? 'msgpack' : 'json'
}

/** The header that names an encoding. */
export function contentType(encoding: Encoding): BusHeaders {
  return { 'Content-Type': CONTENT_TYPES[encoding] }
}

/** `tracker.queryStore` is the endpoint `queryStore` of the service `dfs-tracker`: the `nats` command allows no dots. */
export function endpointName(name: string): string {
  return name.slice(name.indexOf('.') + 1)
}
