// Every command our agent speaks, in one table. Families are in files of their own, commands-*.ts. Sources: QEMU 10.2
// qga/qapi-schema.json for guest-*, qga/qapi-schema.json of this repository for bridge-*.
import type * as v from 'valibot';
import { accountCommands } from './commands-accounts.js';
import { bridgeCommands } from './commands-bridge.js';
import { channelCommands } from './commands-channel.js';
import { execCommands } from './commands-exec.js';
import { fileCommands } from './commands-file.js';
import { fsfreezeCommands } from './commands-fsfreeze.js';
import { guestCommands } from './commands-guest.js';
import { hardwareCommands } from './commands-hardware.js';
import { networkCommands } from './commands-network.js';
import { powerCommands } from './commands-power.js';
import { statisticsCommands } from './commands-statistics.js';
import { storageCommands } from './commands-storage.js';
import { timeCommands } from './commands-time.js';

export const commands = {
  ...channelCommands,
  ...timeCommands,
  ...powerCommands,
  ...fileCommands,
  ...fsfreezeCommands,
  ...storageCommands,
  ...networkCommands,
  ...hardwareCommands,
  ...guestCommands,
  ...accountCommands,
  ...execCommands,
  ...statisticsCommands,
  ...bridgeCommands,
} as const;

export type CommandName = keyof typeof commands;
/** Arguments as a handler gets them: checked, defaults filled in. */
export type Args<N extends CommandName> = v.InferOutput<(typeof commands)[N]['args']>;
/** Arguments as a client gives them. */
export type ArgsInput<N extends CommandName> = v.InferInput<(typeof commands)[N]['args']>;
/** What a handler returns, and a client gets. */
export type Returns<N extends CommandName> = v.InferOutput<(typeof commands)[N]['returns']>;

/**
 * In the order of QEMU's schema, which is that of `-b help`; guest-info has it from behind. Ours come last. Types hold
 * it complete: a name too many is no CommandName, and a test counts them.
 */
export const commandNames: readonly CommandName[] = [
  'guest-sync-delimited',
  'guest-sync',
  'guest-ping',
  'guest-get-time',
  'guest-set-time',
  'guest-info',
  'guest-shutdown',
  'guest-file-open',
  'guest-file-close',
  'guest-file-read',
  'guest-file-write',
  'guest-file-seek',
  'guest-file-flush',
  'guest-fsfreeze-status',
  'guest-fsfreeze-freeze',
  'guest-fsfreeze-freeze-list',
  'guest-fsfreeze-thaw',
  'guest-fstrim',
  'guest-suspend-disk',
  'guest-suspend-ram',
  'guest-suspend-hybrid',
  'guest-network-get-interfaces',
  'guest-get-vcpus',
  'guest-set-vcpus',
  'guest-get-disks',
  'guest-get-fsinfo',
  'guest-set-user-password',
  'guest-get-memory-blocks',
  'guest-set-memory-blocks',
  'guest-get-memory-block-info',
  'guest-exec-status',
  'guest-exec',
  'guest-get-host-name',
  'guest-get-users',
  'guest-get-timezone',
  'guest-get-osinfo',
  'guest-ssh-get-authorized-keys',
  'guest-ssh-add-authorized-keys',
  'guest-ssh-remove-authorized-keys',
  'guest-get-diskstats',
  'guest-get-cpustats',
  'guest-get-load',
  'guest-network-get-route',
  'bridge-freeze',
  'bridge-renew',
  'bridge-thaw',
  'bridge-status',
  'bridge-writers',
];
