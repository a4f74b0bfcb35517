/** Structured logs: one JSON object a line, one child logger per actor. Secrets never go in. */
import { type Logger, pino } from 'pino'

export type Log = Logger

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'silent'

/** Makes the log of a process; it goes to stderr, because stdout belongs to what the user asked for. */
export function processLog(level: LogLevel, bindings: Record<string, unknown>): Log {
  return pino({ level, base: bindings }, pino.destination({ fd: 2, sync: true }))
}

/** A log that says nothing, for clients and tests. */
export function silentLog(): Log {
  return pino({ level: 'silent' })
}
