/**
 * What NATS demands of subjects and headers, kept alike by both buses: a server that is sent something else closes the
 * connection, and with it everything that was under way. Breaking a rule is a bug of the caller and throws `RangeError`.
 */
import type { BusHeaders } from './bus.ts'

/**
 * Longest subject. A server ends a connection whose command line passes 4 KiB; one carries at most two subjects, and a
 * character takes at most three bytes.
 */
export const SUBJECT_CHARS_MAX = 512

/** Whether something can be published to this subject. */
export function isSubject(subject: string): boolean {
  return SUBJECT.test(subject) && subject.length <= SUBJECT_CHARS_MAX
}

/** Throws if nothing can be published to this subject. */
export function checkSubject(subject: string): void {
  if (!isSubject(subject)) throw new RangeError(`not a subject: ${JSON.stringify(subject)}`)
}

/** Throws if nothing can subscribe to this subject; `*` stands for one token, `>` at the end for one or more. */
export function checkPattern(pattern: string): void {
  if (!PATTERN.test(pattern) || pattern.length > SUBJECT_CHARS_MAX) {
    throw new RangeError(`not a subject to subscribe to: ${JSON.stringify(pattern)}`)
  }
}

/** Whether a subject, split at its dots, is one that a pattern, split at its dots, stands for. */
export function subjectMatches(pattern: readonly string[], subject: readonly string[]): boolean {
  for (let i = 0; i < pattern.length; i++) {
    const token = pattern[i]
    if (token === '>') return subject.length > i
    if (i >= subject.length || (token !== '*' && token !== subject[i])) return false
  }
  return pattern.length === subject.length
}

/** Returns the bytes a server counts against its largest payload: headers and payload. Throws if a header cannot be sent. */
export function messageBytes(payload: Uint8Array, headers: BusHeaders | undefined): number {
  let bytes = payload.length
  if (headers === undefined) return bytes
  const entries = Object.entries(headers)
  for (const [name, value] of entries) {
    if (!HEADER_NAME.test(name)) throw new RangeError(`not a header name: ${JSON.stringify(name)}`)
    if (LINE_END.test(value)) throw new RangeError(`header ${name} has a line end in its value`)
    bytes += Buffer.byteLength(name) + Buffer.byteLength(value) + ': \r\n'.length
  }
  return entries.length === 0 ? bytes : bytes + 'NATS/1.0\r\n\r\n'.length
}

const SUBJECT = /^[^\s.*>]+(\.[^\s.*>]+)*$/
const PATTERN = /^(([^\s.*>]+|\*)\.)*([^\s.*>]+|\*|>)$/
const HEADER_NAME = /^[!-9;-~]+$/
const LINE_END = /[\r\n]/
