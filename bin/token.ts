/** `dfs token`: links that work for a while, where a server asks for FastDFS's anti-leech token. Needs no cluster. */
import type { Command } from 'commander'
import { antiLeechToken, TOKEN_TIME_S_MAX } from '../protocol/anti-leech.ts'
import { realEnvironment } from '../runtime/real-environment.ts'
import { realWorld } from '../runtime/real-world.ts'
import { readText } from '../runtime/text-file.ts'
import type { Disk } from '../runtime/world.ts'
import { printJson, printLine, UsageError } from './output.ts'
import { parseNumber } from './sizes.ts'

interface TokenFlags {
  readonly secretFile?: string
  readonly ts?: number
  readonly json?: boolean
}

const TIME = parseNumber(0, TOKEN_TIME_S_MAX)

export function addTokenCommand(program: Command): void {
  program
    .command('token <id>')
    .description('print a file id with the token and the time that a server which checks them asks for')
    .option('--secret-file <file>', 'file with the secret (default: what $DFS_ANTI_LEECH_SECRET holds)')
    .option('--ts <seconds>', 'time that the token counts from, since 1970; 0: it never expires (default: now)', TIME)
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
Examples:
  dfs token group1/M00/3F/A0/AQAAAGkf3nGAAAAqAAAQABcT3q4123.jpg --secret-file secret
  DFS_ANTI_LEECH_SECRET=... dfs token --ts 0 group1/M00/3F/A0/AQAAAGkf3nGAAAAqAAAQABcT3q4123.jpg`,
    )
    .action(printToken)
}

async function printToken(fileId: string, flags: TokenFlags): Promise<void> {
  const { disk, clock } = realWorld()
  const ts = flags.ts ?? Math.floor(clock.wallMs() / 1000)
  const token = antiLeechToken(fileId, { secret: await secretOf(disk, flags), timeS: ts })
  if (flags.json) printJson({ fileId, token, ts })
  else printLine(`${fileId}?token=${token}&ts=${ts}`)
}

/** Never an argument: those are for everybody on the machine to see. */
async function secretOf(disk: Disk, { secretFile }: TokenFlags): Promise<string> {
  const text = secretFile === undefined ? realEnvironment().antiLeechSecret : await readText(disk, secretFile)
  if (text === undefined && secretFile !== undefined) throw new UsageError(`${secretFile}: there is no such file`)
  const secret = text?.replace(/\r?\n$/, '') ?? ''
  if (secret === '') throw new UsageError('a token takes a secret: --secret-file, or $DFS_ANTI_LEECH_SECRET')
  return secret
}
