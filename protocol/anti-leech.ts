/**
 * The anti-leech token of FastDFS's nginx module: a link to a file that works for a while, for whoever was given it.
 *
 *     /group1/M00/0A/3F/AQAAAG....jpg?token=<32 hex digits>&ts=<seconds since 1970>
 *     token = MD5(file name without group, secret, ts in decimal), in lower case
 *
 * Where a server asks for tokens, it and those who make links share the secret. MD5 is what their links have; forging
 * one would take a preimage, which MD5 still stands against. Source: FastDFS fdfs_http_shared.c.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import { parseFileId } from './file-id.ts'

/** FastDFS's `http.anti_steal.token_ttl`, as shipped. */
export const TOKEN_TTL_S = 900

/** FastDFS counts time in 32 bits with a sign. */
export const TOKEN_TIME_S_MAX = 2 ** 31 - 1
const TOKEN = /^[0-9a-f]{32}$/
const TIME_S = /^(0|[1-9]\d{0,9})$/

/** What a token is made with. */
export interface TokenSecret {
  readonly secret: string
  /** Seconds since 1970; 0 for a token that never expires. */
  readonly timeS: number
}

/** What a request brought, as it stood in its query: nothing of it is to be trusted. */
export interface TokenQuery {
  readonly token: string | undefined
  readonly ts: string | undefined
}

/** What a token is checked with. */
export interface TokenCheck {
  readonly secret: string
  /** Of the server, seconds since 1970. */
  readonly nowS: number
  readonly ttlS?: number
}

/** Why a token opens nothing. Only whoever has a right one learns of its time. */
export type TokenProblem = 'malformed' | 'wrong' | 'expired' | 'early'

/**
 * Makes the token of a file from its id: 32 hex digits, to be sent with the very `timeS`. Throws `bad_file_id`, and
 * RangeError on an empty secret or a time that is no whole number of seconds up to 2038.
 */
export function antiLeechToken(fileId: string, { secret, timeS }: TokenSecret): string {
  if (secret === '') throw new RangeError('a token takes a secret')
  if (!Number.isInteger(timeS) || timeS < 0 || timeS > TOKEN_TIME_S_MAX) throw new RangeError(`time ${timeS}`)
  return digestOf(parseFileId(fileId).name, secret, String(timeS))
}

/**
 * Says what is wrong with the token that came for a file name, undefined if nothing is. It is good from `ttlS` before its
 * time to `ttlS` after it, both included: FastDFS takes any time ahead, but a clock that far ahead is wrong.
 * Throws RangeError on an empty secret.
 */
export function checkAntiLeechToken(name: string, query: TokenQuery, check: TokenCheck): TokenProblem | undefined {
  const { token = '', ts = '' } = query
  const { secret, nowS, ttlS = TOKEN_TTL_S } = check
  if (secret === '') throw new RangeError('a token takes a secret')
  if (!TOKEN.test(token) || !TIME_S.test(ts)) return 'malformed'
  if (!timingSafeEqual(Buffer.from(token), Buffer.from(digestOf(name, secret, ts)))) return 'wrong'
  if (ts === '0') return undefined
  if (nowS - Number(ts) > ttlS) return 'expired'
  if (Number(ts) - nowS > ttlS) return 'early'
  return undefined
}

function digestOf(name: string, secret: string, time: string): string {
  return createHash('md5').update(name).update(secret).update(time).digest('hex')
}
