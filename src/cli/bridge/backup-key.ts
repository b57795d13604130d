// Options that name the key of encrypted backups.
import type { Argv } from 'yargs';
import { UsageError } from '../../errors.js';
import { keyByCommand, keyInFile } from '../../host/images/key-source.js';
import type { LuksKey } from '../../host/images/luks-key.js';
import { path } from './options.js';

export interface KeyArgs {
  'key-file': string | undefined;
  'key-command': string | undefined;
}

const GROUP = 'Encryption:';

export function withKey<T>(yargs: Argv<T>): Argv<T & KeyArgs> {
  return yargs
    .option('key-file', {
      type: 'string',
      describe:
        'file that holds the key of encrypted runs, and that only its owner can read; a newline at its end counts',
      group: GROUP,
    })
    .option('key-command', {
      type: 'string',
      describe: 'command line (/bin/sh) that prints the key, within a minute; a newline at its end counts',
      group: GROUP,
    });
}

/** Undefined if none is named. Throws a UsageError, and what reading it does. */
export async function keyOf(args: KeyArgs, signal: AbortSignal): Promise<LuksKey | undefined> {
  const { 'key-file': file, 'key-command': command } = args;
  if (file !== undefined && command !== undefined) {
    throw new UsageError('E_USAGE', 'expected either --key-file or --key-command');
  }
  if (file !== undefined) return await keyInFile(path(file));
  return command === undefined ? undefined : await keyByCommand(command, signal);
}

export interface EncryptArgs extends KeyArgs {
  encrypt: boolean | undefined;
  'new-key': boolean;
}

export function withEncryption<T>(yargs: Argv<T>): Argv<T & EncryptArgs> {
  return withKey(yargs)
    .option('encrypt', {
      type: 'boolean',
      describe: 'encrypt the disks; --no-encrypt: do not, though the newest run is encrypted',
      group: GROUP,
    })
    .option('new-key', {
      type: 'boolean',
      default: false,
      describe: 'the key is another than that of earlier runs: every disk as a whole',
      group: GROUP,
    });
}

/** The key to encrypt by; false: not to be encrypted; undefined: nothing is said. Throws a UsageError, as keyOf. */
export async function encryptionOf(args: EncryptArgs, signal: AbortSignal): Promise<LuksKey | false | undefined> {
  if (args['new-key'] && args.encrypt !== true)
    throw new UsageError('E_USAGE', '--new-key: expected with --encrypt only');
  const key = await keyOf(args, signal);
  if (args.encrypt === true) {
    if (key !== undefined) return key;
    throw new UsageError('E_KEY', '--encrypt: expected --key-file or --key-command, too');
  }
  if (key !== undefined) throw new UsageError('E_USAGE', '--key-file, --key-command: expected with --encrypt only');
  return args.encrypt;
}
