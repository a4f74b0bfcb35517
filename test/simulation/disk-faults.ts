/** What may go wrong with a simulated disk while it runs. */

/** Probabilities are per call, and 0 unless somebody sets them; all may be changed at any time. */
export interface DiskFaults {
  /** Uniform. */
  latencyMs: [min: number, max: number]
  /** Of `sync` and `syncDirectory`. */
  syncLatencyMs: [min: number, max: number]
  /** A factor on all latencies. */
  slow: number
  /** `EIO` of read and list. */
  readError: number
  /** `EIO` of write and truncate; some prefix of the write may have reached the file. */
  writeError: number
  /**
   * `EIO`; what was unsynced of the file is lost at the next power cut whatever is synced later: Linux marks the pages
   * clean. Names in a directory stay unsynced, and the next sync may have them.
   */
  syncError: number
  /** `EIO`; nothing was renamed. */
  renameError: number
  openError: number
  removeError: number
  /** Whatever needs room fails with `ENOSPC`; some prefix of the write may have found some. */
  full: boolean
  /** A write lands somewhere else in its file, instead or as well, and nobody is told. */
  misdirected: number
  /** The paths whose writes may be misdirected. */
  misdirectedPath: RegExp
  /** The paths whose calls may fail with `EIO`. */
  faultPath: RegExp
}

/** A disk in good health: an SSD with a cache that is flushed when told. */
export function noFaults(): DiskFaults {
  return {
    latencyMs: [0.02, 0.5],
    syncLatencyMs: [0.2, 3],
    slow: 1,
    readError: 0,
    writeError: 0,
    syncError: 0,
    renameError: 0,
    openError: 0,
    removeError: 0,
    full: false,
    misdirected: 0,
    misdirectedPath: /^/,
    faultPath: /^/,
  }
}
