#!/usr/bin/env node
/** The `dfs` command. */
import { Command } from 'commander'
import { addExportCommand } from './export.ts'
import { addFileCommands } from './file-commands.ts'
import { addGatewayCommand } from './gateway.ts'
import { failWith, USAGE } from './output.ts'
import { addStatusCommands } from './status-commands.ts'
import { addStorageCommand } from './storage.ts'
import { addTakeOverCommand } from './take-over.ts'
import { addTokenCommand } from './token.ts'
import { addTrackerCommand } from './tracker.ts'
import { addUpCommand } from './up.ts'
import { VERSION } from './version.ts'

const program = new Command('dfs').description('natsdfs: a distributed file store on NATS').version(VERSION)
// Commands take this over when they are added.
program.exitOverride(error => process.exit(error.exitCode === 0 ? 0 : USAGE))
addUpCommand(program)
addTrackerCommand(program)
addStorageCommand(program)
addGatewayCommand(program)
addTakeOverCommand(program)
addExportCommand(program)
addFileCommands(program)
addTokenCommand(program)
addStatusCommands(program)
await program.parseAsync().catch(failWith)
