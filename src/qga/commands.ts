// Every command our agent speaks, in one table. Families: channel and guest (here), fsfreeze and bridge in their own
// files. Sources: QEMU 10.2 qga/qapi-schema.json for guest-*, qga/qapi-schema.json of this repository for bridge-*.
import type * as v from 'valibot';
import { bridgeCommands } from './commands-bridge.js';
import { channelCommands } from './commands-channel.js';
import { fsfreezeCommands } from './commands-fsfreeze.js';
import { guestCommands } from './commands-guest.js';

export const commands = {
  ...channelCommands,
  ...fsfreezeCommands,
  ...guestCommands,
  ...bridgeCommands,
} as const;

export type CommandName = keyof typeof commands;
/** Arguments as a handler gets them: checked, defaults filled in. */
export type Args<N extends CommandName> = v.InferOutput<(typeof commands)[N]['args']>;
/** Arguments as a client gives them. */
export type ArgsInput<N extends CommandName> = v.InferInput<(typeof commands)[N]['args']>;
/** What a handler returns, and a client gets. */
export type Returns<N extends CommandName> = v.InferOutput<(typeof commands)[N]['returns']>;

export const commandNames = Object.keys(commands) as readonly CommandName[];
