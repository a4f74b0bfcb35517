/**
 * The one table of what can go wrong in the eyes of a caller. Each code has an HTTP-like status for NATS and HTTP, a
 * Linux errno for FastDFS clients, and says whether the same request may succeed when it is sent again.
 */

interface ErrorMeaning {
  readonly status: number
  readonly errno: number
  readonly retryable: boolean
  readonly about: string
}

const EACCES = 13
const EBUSY = 16
const EEXIST = 17
const EFBIG = 27
const EINVAL = 22
const EOPNOTSUPP = 95
const EIO = 5
const ENOENT = 2
const ENOSPC = 28
const ETIMEDOUT = 110

export const ERRORS = {
  bad_request: {
    status: 400,
    errno: EINVAL,
    retryable: false,
    about: 'The request is malformed; the message names the field.',
  },
  bad_file_id: {
    status: 400,
    errno: EINVAL,
    retryable: false,
    about: 'This is not a file id, or not one of this group.',
  },
  unauthorized: {
    status: 401,
    errno: EACCES,
    retryable: false,
    about: 'The proof of the shared secret is missing or wrong.',
  },
  ticket_expired: {
    status: 401,
    errno: EACCES,
    retryable: true,
    about: 'The ticket was good for a minute, and that is over; a tracker gives another.',
  },
  forbidden: { status: 403, errno: EACCES, retryable: false, about: 'This role may not do that.' },
  not_found: {
    status: 404,
    errno: ENOENT,
    retryable: false,
    about: 'There is no such file: said only by those who would have it.',
  },
  not_here: {
    status: 404,
    errno: ENOENT,
    retryable: true,
    about:
      'What members of a group tell each other: this one does not have the file, and cannot say what became of it.',
  },
  unknown_group: {
    status: 404,
    errno: ENOENT,
    retryable: false,
    about: 'No storage server of this group has ever been heard of.',
  },
  already_exists: {
    status: 409,
    errno: EEXIST,
    retryable: false,
    about: 'There is a file of this name already: a slave file gets its name from its master.',
  },
  unknown_storage: {
    status: 404,
    errno: ENOENT,
    retryable: false,
    about: 'No storage server with this id or address is known in the group.',
  },
  still_in_use: {
    status: 409,
    errno: EBUSY,
    retryable: false,
    about: 'Only a storage server that is offline can be deleted, and only a group that has none.',
  },
  storage_id_in_use: {
    status: 409,
    errno: EEXIST,
    retryable: true,
    about: 'Another storage server joined under this id and is alive.',
  },
  epoch_too_old: {
    status: 409,
    errno: EEXIST,
    retryable: true,
    about: 'This id has lived before: take the epoch given in `epochMin` and join again.',
  },
  too_large: {
    status: 413,
    errno: EFBIG,
    retryable: false,
    about: 'More bytes than this road takes; the message gives the limit.',
  },
  bad_range: { status: 416, errno: EINVAL, retryable: false, about: 'The offset lies past the end of the file.' },
  digest_mismatch: {
    status: 422,
    errno: EIO,
    retryable: true,
    about: 'The bytes that arrived are not the bytes that were announced.',
  },
  busy: {
    status: 429,
    errno: EBUSY,
    retryable: true,
    about: 'A queue or a limit of this server is full for the moment.',
  },
  internal: {
    status: 500,
    errno: EIO,
    retryable: true,
    about: 'A bug or a failing disk; the server logged the cause.',
  },
  not_supported: {
    status: 501,
    errno: EOPNOTSUPP,
    retryable: false,
    about: 'There is nothing here that this could be asked of.',
  },
  corrupt: {
    status: 500,
    errno: EIO,
    retryable: true,
    about: 'This copy of the file fails its checksum; another member may have a good one.',
  },
  unavailable: { status: 503, errno: EBUSY, retryable: true, about: 'Those who could answer cannot be reached now.' },
  no_storage: { status: 503, errno: ENOENT, retryable: true, about: 'No storage server can take this request now.' },
  timeout: {
    status: 504,
    errno: ETIMEDOUT,
    retryable: true,
    about: 'No answer came in time; the request may still have been carried out.',
  },
  ack_timeout: {
    status: 504,
    errno: ETIMEDOUT,
    retryable: true,
    about:
      'The file is stored and stays, but fewer members than asked for held it in time; the same upload id waits again.',
  },
  no_space: {
    status: 507,
    errno: ENOSPC,
    retryable: true,
    about: 'Every writable store path is down to its reserved space.',
  },
} as const satisfies Record<string, ErrorMeaning>

/** A name from the table. */
export type ErrorCode = keyof typeof ERRORS

/** An expected failure as it travels: in a reply body, beside the two micro-service headers. */
export interface ErrorBody {
  readonly error: { code: ErrorCode; status: number; message: string; retryable: boolean }
}

/** An expected failure as it is thrown inside a task or by the SDK; keeps the cause. */
export class DfsError extends Error {
  readonly code: ErrorCode
  constructor(code: ErrorCode, message: string = ERRORS[code].about, options?: { cause: unknown }) {
    super(message, options)
    this.name = 'DfsError'
    this.code = code
  }

  /** Whether the same request may succeed when it is sent again. */
  get retryable(): boolean {
    return ERRORS[this.code].retryable
  }
}

/** Builds the body of an error reply. */
export function errorBody(code: ErrorCode, message: string = ERRORS[code].about): ErrorBody {
  return { error: { code, status: ERRORS[code].status, message, retryable: ERRORS[code].retryable } }
}

/** Turns anything that was thrown into an expected failure; what is not one becomes `internal`. */
export function toDfsError(error: unknown): DfsError {
  if (error instanceof DfsError) return error
  return new DfsError('internal', error instanceof Error ? error.message : String(error), { cause: error })
}
