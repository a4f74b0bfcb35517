/** A real cluster for a test: `dfs up` in a temporary directory on free ports, ended by pid, leaving nothing behind. */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, readSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Client } from '../client/client.ts'
import { connect } from '../client/connect.ts'
import { decodeFileName, type FileNameParts, parseFileId } from '../protocol/file-id.ts'
import type { ClusterFile } from '../runtime/cluster-file.ts'
import { isHeaderOf, readSlotHeader, SLOT_HEADER_BYTES } from '../store/slot.ts'
import { until } from './until.ts'

const READY_MS = 30_000
const PROGRAM = fileURLToPath(new URL('../bin/dfs.js', import.meta.url))

export class RunningCluster {
  readonly directory: string
  readonly data: string
  readonly #args: readonly string[]
  #up: ChildProcess | undefined
  #output = ''

  private constructor(directory: string, args: readonly string[]) {
    this.directory = directory
    this.data = join(this.directory, 'data')
    this.#args = args
  }

  /** Starts `dfs up` with further arguments and waits until it is ready. */
  static start(...args: string[]): Promise<RunningCluster> {
    return RunningCluster.startIn(mkdtempSync(join(tmpdir(), 'dfs-cluster-')), ...args)
  }

  /** The same in a directory of the caller's. */
  static async startIn(directory: string, ...args: string[]): Promise<RunningCluster> {
    const cluster = new RunningCluster(directory, args)
    await cluster.up()
    return cluster
  }

  /** Starts `dfs up` again on the same data. */
  async up(): Promise<void> {
    rmSync(this.portsFile, { force: true })
    const fixed = ['up', '--data', this.data, '--port-base', '0', '--ports-file', this.portsFile, '--reserved', '1M']
    const up = spawn(process.execPath, [PROGRAM, ...fixed, ...this.#args], {
      env: this.environment,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    up.stdout.on('data', text => {
      this.#output += text
    })
    up.stderr.on('data', text => {
      this.#output += text
    })
    this.#up = up
    await until('dfs up is ready', () => existsSync(this.portsFile) || up.exitCode !== null, READY_MS)
    if (up.exitCode !== null) throw new Error(`dfs up ended with ${up.exitCode}:\n${this.#output}`)
  }

  get environment(): NodeJS.ProcessEnv {
    return { ...process.env, DFS_HOME: join(this.directory, 'home'), DFS_CLUSTER: this.portsFile }
  }

  get portsFile(): string {
    return join(this.directory, 'ports.json')
  }

  get upPid(): number {
    return this.#up?.pid ?? -1
  }

  /** Everything `dfs up` has said. */
  get output(): string {
    return this.#output
  }

  /** What runs where, as it is now. */
  get ports(): ClusterFile {
    return JSON.parse(readFileSync(this.portsFile, 'utf8')) as ClusterFile
  }

  connect(): Promise<Client> {
    return connect({ clusterFile: this.portsFile })
  }

  /** A file as one storage server has it on its disk, in a slot or in a file of its own; undefined if it has not. */
  readFromDisk(storageId: number, fileId: string): Buffer | undefined {
    const file = decodeFileName(parseFileId(fileId).name)
    const store = join(this.data, `storage-${storageId}`, 'store')
    if (file.slot !== undefined) return readSlot(store, file)
    const path = join(store, 'data', file.directory, file.baseName)
    return existsSync(path) ? readFileSync(path) : undefined
  }

  /** Ends it as Ctrl-C would; resolves with the exit code. */
  async stop(): Promise<number | null> {
    const up = this.#up
    if (up === undefined || up.exitCode !== null || up.signalCode !== null) return up?.exitCode ?? null
    up.kill('SIGINT')
    return new Promise(resolve => up.on('exit', resolve))
  }

  /** Ends it and removes what it wrote. */
  async remove(): Promise<void> {
    await this.stop()
    rmSync(this.directory, { recursive: true, force: true })
  }
}

function readSlot(store: string, file: FileNameParts): Buffer | undefined {
  const { segmentId, offsetBytes, slotBytes } = file.slot!
  const path = join(store, 'segments', String(file.storageId), String(segmentId).padStart(10, '0'))
  if (!existsSync(path)) return undefined
  const slot = Buffer.alloc(slotBytes)
  const segment = openSync(path, 'r')
  readSync(segment, slot, 0, slotBytes, offsetBytes)
  closeSync(segment)
  const header = readSlotHeader(slot)
  const isHere = header !== undefined && !header.isFree && isHeaderOf(header, file)
  return isHere ? slot.subarray(SLOT_HEADER_BYTES, SLOT_HEADER_BYTES + header.sizeBytes) : undefined
}

/** How much memory a process has. */
export function residentBytes(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  return Number(kib) * 1024
}

/** Whether a process lives; one that has ended and was not collected does not. */
export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    // No such entry: either no such process, or not Linux.
    try {
      return process.platform !== 'linux' && process.kill(pid, 0)
    } catch {
      // No such process.
      return false
    }
  }
}
