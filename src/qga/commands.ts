// Every command our agent speaks, in one table. The commands are declared in families, in commands-*.ts. Sources: QEMU
// 10.2, qga/qapi-schema.json, for guest-*; qga/qapi-schema.json of this repository for bridge-*.
import type * as v from 'valibot';
import { keyCommands, passwordCommands } from './commands-accounts.js';
import { bridgeCommands } from './commands-bridge.js';
import { infoCommands, syncCommands } from './commands-channel.js';
import { execCommands } from './commands-exec.js';
import { fileCommands } from './commands-file.js';
import { fsfreezeCommands } from './commands-fsfreeze.js';
import { guestCommands } from './commands-guest.js';
import { memoryCommands, vcpuCommands } from './commands-hardware.js';
import { interfaceCommands, routeCommands } from './commands-network.js';
import { shutdownCommands, suspendCommands } from './commands-power.js';
import { statisticsCommands } from './commands-statistics.js';
import { diskCommands, trimCommands } from './commands-storage.js';
import { timeCommands } from './commands-time.js';

/**
 * In the order of QEMU's schema, ours last. The order is seen from outside: `-b help` lists the commands in it, and
 * guest-info from behind.
 */
export const commands = {
  ...syncCommands,
  ...timeCommands,
  ...infoCommands,
  ...shutdownCommands,
  ...fileCommands,
  ...fsfreezeCommands,
  ...trimCommands,
  ...suspendCommands,
  ...interfaceCommands,
  ...vcpuCommands,
  ...diskCommands,
  ...passwordCommands,
  ...memoryCommands,
  ...execCommands,
  ...guestCommands,
  ...keyCommands,
  ...statisticsCommands,
  ...routeCommands,
  ...bridgeCommands,
} as const;

export type CommandName = keyof typeof commands;
/** Arguments as a handler gets them: checked, defaults filled in. */
export type Args<N extends CommandName> = v.InferOutput<(typeof commands)[N]['args']>;
/** Arguments as a client gives them. */
export type ArgsInput<N extends CommandName> = v.InferInput<(typeof commands)[N]['args']>;
/** What a handler returns, and a client gets. */
export type Returns<N extends CommandName> = v.InferOutput<(typeof commands)[N]['returns']>;

/** In the table's order. */
export const commandNames = Object.keys(commands) as readonly CommandName[];
