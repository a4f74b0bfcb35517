/** The commands for files: from `dfs upload` to `dfs rm`, and those for metadata, slave and appender files. */

import { type Command, Option } from 'commander'
import { ACK_LEVELS } from '../protocol/ack.ts'
import { append, type ModifyFlags, modify, regenerate, truncate } from './appender.ts'
import { type DownloadFlags, download } from './download.ts'
import { info } from './info.ts'
import { type LinkFlags, link } from './link.ts'
import { type ListFlags, ls, parseSince } from './ls.ts'
import { type MetaSetFlags, metaGet, metaSet } from './meta.ts'
import { EXIT_CODES_HELP } from './output.ts'
import { rm } from './rm.ts'
import { type ClusterFlags, clusterCommand, type ReadFlags, readCommand, withClient } from './session.ts'
import { parseNumber } from './sizes.ts'
import { type SlaveFlags, slave } from './slave.ts'
import { type UploadFlags, upload } from './upload.ts'

const BYTES = parseNumber(0, Number.MAX_SAFE_INTEGER)

/** For the examples. */
const APPENDER = 'group1/M00/3F/A0/AQAAAGkf3nGEAAAqAAAAADFcR3A549.log'

export function addFileCommands(program: Command): void {
  program.addHelpText('after', EXIT_CODES_HELP)
  clusterCommand(
    program,
    'upload <file...>',
    'store files and print their ids, one a line; `-` is standard input',
    `dfs upload photo.jpg
     dfs upload -r photos/ --json > ids.jsonl
     dfs upload --ack all --json contract.pdf
     dfs upload --group group2 --ext tar.gz backup-2024.tar.gz
     tar cz docs | dfs upload --ext tgz -`,
  )
    .option('-r, --recursive', 'upload what is in directories; only regular files, symbolic links are not followed')
    .option('--group <name>', 'the group to store them in (default: the tracker chooses)')
    .option('--key <text>', 'files with the same key go to the same group')
    .option('--ext <extension>', 'extension that the id gets, up to 6 characters (default: that of the file)')
    .option('--appender', 'as appender files, which `dfs append`, `modify` and `truncate` change')
    .addOption(
      new Option('--ack <level>', 'how many members of the group hold a file before its id is printed').choices(
        ACK_LEVELS,
      ),
    )
    .option('-q, --quiet', 'no progress')
    .action((paths: string[], flags: UploadFlags) =>
      withClient(flags, 'upload', session => upload(session, paths, flags)),
    )

  readCommand(
    clusterCommand(
      program,
      'download <id>',
      'fetch a file; it appears under its name when it is whole and checked',
      `dfs download group1/M00/3F/A0/AQAAAGkf3nGAAAAqAAAQABcT3q4123.jpg -o photo.jpg
     dfs download group1/M00/3F/A0/AQAAAGkf3nGAAAAqAAAQABcT3q4123.jpg -o - | sha256sum
     dfs download group1/M00/3F/A0/AQAAAGkf3nGAAAAqAAAQABcT3q4123.jpg --continue
     dfs download group1/M00/3F/A0/AQAAAGkf3nGAAAAqAAAQABcT3q4123.jpg --offset 1024 --length 512 -o part`,
    ),
  )
    .option(
      '-o, --output <path>',
      "file or directory to write to, `-` is standard output (default: the id's last part)",
    )
    .option('--offset <bytes>', 'begin here; a range is written directly and not checked against the id', BYTES)
    .option('--length <bytes>', 'at most so many bytes', BYTES)
    .option('--continue', 'go on from the <file>.part that an interrupted download left')
    .option('-q, --quiet', 'no progress')
    .action((fileId: string, flags: DownloadFlags) =>
      withClient(flags, fileId, session => download(session, fileId, flags)),
    )

  readCommand(
    clusterCommand(
      program,
      'info <id...>',
      'print size, CRC32, time of creation and source of files',
      `dfs info group1/M00/3F/A0/AQAAAGkf3nGAAAAqAAAQABcT3q4123.jpg
     dfs info --json $(cat ids)`,
    ),
  ).action((fileIds: string[], flags: ReadFlags) => withClient(flags, 'info', session => info(session, fileIds, flags)))

  clusterCommand(
    program,
    'ls',
    'list files, one a line: time of creation, kind, size, CRC32 and id',
    `dfs ls --group group1
     dfs ls --since 24h --json
     dfs ls --prefix group1/M00/0A`,
    '--subject-prefix',
  )
    .option('--group <name>', 'files of this group only')
    .option('--since <time>', 'files made since then: a date or time, or how long ago, such as 36h or 7d', parseSince)
    .option('--prefix <text>', 'files whose id begins like this')
    .option('--partial', 'do without storage servers that cannot be asked; what only they have is not listed')
    .action((flags: ListFlags) =>
      withClient({ ...flags, prefix: flags.subjectPrefix }, 'ls', session => ls(session, flags)),
    )

  clusterCommand(
    program,
    'rm <id...>',
    'delete files',
    `dfs rm group1/M00/3F/A0/AQAAAGkf3nGAAAAqAAAQABcT3q4123.jpg
     xargs dfs rm < ids`,
  ).action((fileIds: string[], flags: ClusterFlags) => withClient(flags, 'rm', session => rm(session, fileIds, flags)))

  clusterCommand(
    program,
    'slave <id> <prefix> <file>',
    'store another version of a file under its id and a prefix of up to 16 characters, and print its id',
    `dfs slave group1/M00/3F/A0/AQAAAGkf3nGAAAAqAAAQABcT3q4123.jpg _150x150 small.jpg`,
  )
    .option('--ext <extension>', 'extension that the id gets, up to 6 characters (default: that of the file)')
    .action((masterId: string, prefix: string, path: string, flags: SlaveFlags) =>
      withClient(flags, path, session => slave(session, { masterId, prefix, path }, flags)),
    )
  clusterCommand(
    program,
    'link <id> [master] [prefix]',
    'make a file with the content of another one, or a slave file of a master, and print its id',
    `dfs link group1/M00/3F/A0/AQAAAGkf3nGAAAAqAAAQABcT3q4123.jpg
     dfs link group1/M00/3F/A0/AQAAAGkf3nGAAAAqAAAQABcT3q4123.jpg group1/M00/00/1B/AQAAAGkf3nGAAAAqAAAQABcT3q4777.png _cover`,
  )
    .option('--ext <extension>', 'extension that the id gets, up to 6 characters (default: that of the file)')
    .action((fileId: string, masterId: string | undefined, prefix: string | undefined, flags: LinkFlags) =>
      withClient(flags, fileId, session => link(session, { fileId, masterId, prefix }, flags)),
    )
  addMetadataCommands(program)
  addAppenderCommands(program)
}

function addMetadataCommands(program: Command): void {
  const meta = program.command('meta').description('read and set the metadata of files')
  readCommand(
    clusterCommand(
      meta,
      'get <id>',
      'print what is known of a file, name=value, one a line',
      `dfs meta get group1/M00/3F/A0/AQAAAGkf3nGAAAAqAAAQABcT3q4123.jpg
     dfs meta get --json group1/M00/3F/A0/AQAAAGkf3nGAAAAqAAAQABcT3q4123.jpg`,
    ),
  ).action((fileId: string, flags: ReadFlags) => withClient(flags, fileId, session => metaGet(session, fileId, flags)))
  clusterCommand(
    meta,
    'set <id> [name=value...]',
    'set the metadata of a file in place of what it has; nothing takes all of it away',
    `dfs meta set group1/M00/3F/A0/AQAAAGkf3nGAAAAqAAAQABcT3q4123.jpg width=1024 author=Ada
     dfs meta set --merge group1/M00/3F/A0/AQAAAGkf3nGAAAAqAAAQABcT3q4123.jpg height=768`,
  )
    .option('--merge', 'keep what is set under other names')
    .action((fileId: string, records: string[], flags: MetaSetFlags) =>
      withClient(flags, fileId, session => metaSet(session, fileId, records, flags)),
    )
}

function addAppenderCommands(program: Command): void {
  clusterCommand(
    program,
    'append <id> <file>',
    'write a file at the end of an appender file',
    `dfs append ${APPENDER} today.log`,
  ).action((fileId: string, path: string, flags: ClusterFlags) =>
    withClient(flags, path, session => append(session, fileId, path, flags)),
  )
  clusterCommand(
    program,
    'modify <id> <file>',
    'write a file into an appender file',
    `dfs modify ${APPENDER} header.bin --offset 0`,
  )
    .requiredOption('--offset <bytes>', 'where it begins, not behind the end', BYTES)
    .action((fileId: string, path: string, flags: ModifyFlags) =>
      withClient(flags, path, session => modify(session, fileId, path, flags)),
    )
  clusterCommand(program, 'truncate <id>', 'cut an appender file', `dfs truncate ${APPENDER} --size 1024`)
    .requiredOption('--size <bytes>', 'its new size', BYTES)
    .action((fileId: string, flags: ClusterFlags & { size: number }) =>
      withClient(flags, fileId, session => truncate(session, fileId, flags.size, flags)),
    )
  clusterCommand(
    program,
    'regenerate <id>',
    'make a plain file of an appender file, and print its new id',
    `dfs regenerate ${APPENDER}`,
  ).action((fileId: string, flags: ClusterFlags) =>
    withClient(flags, fileId, session => regenerate(session, fileId, flags)),
  )
}
