// Reads what distributions let an administrator set for qemu-ga outside its own configuration file, and gives the
// options that their units make of it. Done when our unit runs the agent (--service): whoever replaces qemu-ga must not
// lose a list of blocked commands. Debian: init script of qemu-guest-agent 1:7.2; RHEL 6 to 10, Fedora and SUSE: their
// units' EnvironmentFile= and ExecStart=.
import { UsageError } from '../errors.js';
import { commandNames } from '../qga/commands.js';
import { parseEnvironmentFile, splitWords, type EnvironmentFile } from './environment-file.js';

/** Where a setting stands, for messages. */
interface Place {
  readonly file: string;
  readonly line?: number;
  /** The name, or the line if it assigns nothing. */
  readonly setting: string;
}

export interface UsedSetting extends Place {
  readonly line: number;
  readonly options: readonly string[];
}

export interface IgnoredSetting extends Place {
  readonly why: string;
}

export interface DistributionSettings {
  readonly files: readonly { readonly file: string; readonly found: boolean }[];
  /** In the order of the options. */
  readonly used: readonly UsedSetting[];
  readonly ignored: readonly IgnoredSetting[];
}

type Meaning = (value: string) => readonly string[];

const words: Meaning = splitWords;
const option =
  (name: string): Meaning =>
  (value) =>
    value === '' ? [] : [`--${name}=${value}`];

const debianKeys: Readonly<Record<string, Meaning>> = {
  DAEMON_ARGS: words,
  TRANSPORT(value) {
    const [method = '', path = ''] = value.split(/:(.*)/s);
    return [...option('method')(method), ...option('path')(path)];
  },
};

const rpmKeys: Readonly<Record<string, Meaning>> = {
  // RHEL 6 to 8, RHEL 9, RHEL 9.4 and 10 and SUSE, Fedora.
  BLACKLIST_RPC: option('block-rpcs'),
  BLOCK_RPCS: option('block-rpcs'),
  FILTER_RPC_ARGS: words,
  QEMU_GA_ARGS: words,
  // Empty is qemu-ga's own default, as their units' `-F${FSFREEZE_HOOK_PATHNAME}` has it.
  FSFREEZE_HOOK_PATHNAME: (value) => [value === '' ? '--fsfreeze-hook' : `--fsfreeze-hook=${value}`],
  TRANSPORT_METHOD: option('method'),
  DEVPATH: option('path'),
  LOGFILE: option('logfile'),
};

/** In the order in which a later one wins. */
const places: readonly { readonly file: string; readonly keys: Readonly<Record<string, Meaning>> }[] = [
  { file: '/usr/etc/sysconfig/qemu-ga', keys: rpmKeys },
  { file: '/etc/sysconfig/qemu-ga', keys: rpmKeys },
  { file: '/etc/default/qemu-guest-agent', keys: debianKeys },
];

/**
 * Reads all of these files. Throws a UsageError where a setting would have to be run to be known: it may hold a list of
 * blocked commands.
 * @param readFile undefined for a file that does not exist
 */
export function readDistributionSettings(readFile: (path: string) => string | undefined): DistributionSettings {
  const files: { file: string; found: boolean }[] = [];
  const ignored: IgnoredSetting[] = [];
  const used = new Map<string, UsedSetting>();
  for (const { file, keys } of places) {
    const text = readFile(file);
    files.push({ file, found: text !== undefined });
    if (text === undefined) continue;
    const parsed = parseEnvironmentFile(text, file);
    ignored.push(...commandsOf(parsed, file, keys));
    for (const { key, value, line, expands } of parsed.assignments) {
      const meaning = Object.hasOwn(keys, key) ? keys[key] : undefined;
      if (meaning === undefined) {
        ignored.push({
          file,
          line,
          setting: key,
          why: `no setting of this file, expected ${Object.keys(keys).join(', ')}`,
        });
        continue;
      }
      if (expands) {
        throw new UsageError('E_CONFIG', `${file}:${line}: ${key}: expected a value as it is, found one for a shell`);
      }
      used.delete(key);
      used.set(key, { file, line, setting: key, options: meaning(value) });
    }
  }
  return { files, used: [...used.values()], ignored };
}

function commandsOf(
  { others }: EnvironmentFile,
  file: string,
  keys: Readonly<Record<string, Meaning>>,
): readonly IgnoredSetting[] {
  return others.map(({ line, text }) => {
    const key = Object.keys(keys).find((one) => new RegExp(`\\b${one}\\b`).test(text));
    if (key !== undefined) {
      throw new UsageError('E_CONFIG', `${file}:${line}: ${key}: expected ${key}=VALUE, found a command: '${text}'`);
    }
    return { file, line, setting: text, why: 'a command: this file is read, and not run' };
  });
}

const FREEZE = 'guest-fsfreeze-freeze';
const ourCommands: readonly string[] = commandNames.filter((name) => name.startsWith('bridge-'));

/**
 * The list, with our commands in it where it names qemu-ga's freeze and none of ours: a list that was written for
 * qemu-ga cannot name them. Who may freeze may freeze with a lease; who may not, may not.
 */
export function withOurCommands(list: 'block-rpcs' | 'allow-rpcs', names: readonly string[]): readonly string[] {
  if (!names.includes(FREEZE) || names.some((name) => ourCommands.includes(name))) return names;
  return [...names, ...(list === 'allow-rpcs' ? ourCommands : ['bridge-freeze'])];
}
