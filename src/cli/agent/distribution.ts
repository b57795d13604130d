// Reads what --service adds to the command line: the distribution's settings, as options, and a hook at a path where
// qemu-ga's manuals put it. Settings that are not used are kept with the reason, for the log and for --check-config.
import { statSync } from 'node:fs';
import {
  readDistributionSettings,
  withOurCommands,
  type DistributionSettings,
  type IgnoredSetting,
} from '../../agent/distribution-settings.js';
import { splitList } from '../../agent/keyfile.js';
import { isExecutable } from '../../agent/program.js';
import { UsageError } from '../../errors.js';
import { dispatchedFolder } from '../../freeze/writers/dispatcher.js';
import { policyPresets } from '../../qga/command.js';
import { commandsOf } from '../../qga/policy.js';
import { GetoptError, normalise } from './getopt.js';
import { optionForms } from './option-table.js';

export interface Distribution extends DistributionSettings {
  /** Canonical options, but for the lists of commands. */
  readonly options: readonly string[];
  readonly blockRpcs: readonly (readonly string[])[];
  readonly allowRpcs: readonly (readonly string[])[];
  /** Where qemu-ga's manuals put a hook. The first one of the administrator's own is used if nothing names another. */
  readonly hooks: readonly { readonly file: string; readonly kind: HookKind }[];
}

export const noDistribution: Distribution = {
  files: [],
  used: [],
  ignored: [],
  options: [],
  blockRpcs: [],
  allowRpcs: [],
  hooks: [],
};

/** Options without a meaning under a unit, which runs the agent in the foreground, and once. */
const notForUnits = [
  'daemonize',
  'pidfile',
  'statedir',
  'version',
  'help',
  'dump-conf',
  'service',
  'check-config',
  'json',
];
const hookPaths = ['/etc/qemu/fsfreeze-hook', '/etc/qemu-ga/fsfreeze-hook'] as const;
/** Places of settings that are read by systemd alone, or by qemu-ga of another build. */
const notRead = [
  ['/etc/systemd/system/qemu-guest-agent.service', "qemu-ga's unit"],
  ['/etc/systemd/system/qemu-guest-agent.service.d', "for qemu-ga's unit"],
  ['/etc/qemu-ga/qemu-ga.conf', 'expected at /etc/qemu/qemu-ga.conf'],
  ['/etc/qemu-ga.conf', 'expected at /etc/qemu/qemu-ga.conf'],
] as const;

/** The kind of file at a path where a hook may be. */
export type HookKind = 'none' | 'dispatcher' | 'own' | 'not-executable';

export interface DistributionEnvironment {
  readonly readFile: (path: string) => string | undefined;
  readonly exists: (path: string) => boolean;
  readonly hookAt: (path: string) => HookKind;
}

/** Throws a UsageError that names file, line and setting. */
export function readDistribution(env: DistributionEnvironment): Distribution {
  const settings = readDistributionSettings(env.readFile);
  const options: string[] = [];
  const blockRpcs: (readonly string[])[] = [];
  const allowRpcs: (readonly string[])[] = [];
  const ignored: IgnoredSetting[] = [...settings.ignored];
  const used = settings.used.flatMap((setting) => {
    const words = wordsOf(setting);
    const taken = words.options.filter((option) => !notForUnits.includes(nameOf(option)));
    for (const option of [...words.options, ...words.positionals]) {
      if (taken.includes(option)) continue;
      const why = option.startsWith('--') ? 'of no use under a unit' : 'not an option';
      ignored.push({ file: setting.file, line: setting.line, setting: `${setting.setting}: ${option}`, why });
    }
    for (const option of taken) {
      const [name, list] = [nameOf(option), splitList(option.replace(/^[^=]*=/, ''))];
      if (name === 'allow-rpcs') allowRpcs.push(withOurCommands(name, list));
      else if (name === 'block-rpcs' || name === 'blacklist') blockRpcs.push(withOurCommands('block-rpcs', list));
      else options.push(option);
    }
    return taken.length === 0 ? [] : [{ ...setting, options: taken }];
  });
  for (const [file, why] of notRead)
    if (env.exists(file)) ignored.push({ file, setting: 'all of it', why: `not read: ${why}` });
  const hooks = hookPaths.map((file) => ({ file, kind: env.hookAt(file) }));
  return { ...settings, used, ignored, options, blockRpcs, allowRpcs, hooks };
}

/** Hooks at the usual paths that will not be run; `used` will. */
export function unusedHooks({ hooks }: Distribution, used: string | undefined): readonly IgnoredSetting[] {
  return hooks.flatMap(({ file, kind }) => {
    if (file === used || kind === 'none' || kind === 'dispatcher') return [];
    const why = kind === 'own' ? `${used ?? 'none'} is used; to have both, put it into ${file}.d` : 'not executable';
    return [{ file, setting: 'hook', why }];
  });
}

function wordsOf({ file, line, setting, options }: DistributionSettings['used'][number]) {
  try {
    return normalise(options, optionForms);
  } catch (error) {
    if (!(error instanceof GetoptError)) throw error;
    throw new UsageError('E_CONFIG', `${file}:${line}: ${setting}: ${error.message}`);
  }
}

const nameOf = (option: string): string => option.slice(2).replace(/=.*$/s, '');

/**
 * The distribution's lists of allowed commands, cut to a preset that was chosen. Such a list takes the place of the
 * preset, but RHEL's package ships one, and whoever has chosen a preset shall not be given more.
 * @param preset as it was given; undefined if none was
 */
export function allowedWithin(
  lists: Distribution['allowRpcs'],
  preset: string | undefined,
  alsoAllow: readonly string[] = [],
): Distribution['allowRpcs'] {
  const known = policyPresets.find((one) => one === preset);
  if (known === undefined) return lists;
  const allowed = new Set([...commandsOf(known), ...alsoAllow]);
  return lists.map((names) => {
    const within = names.filter((name) => allowed.has(name));
    // An empty list would count as none, and allow the whole preset.
    return within.length > 0 ? within : [''];
  });
}

/** Looks at a path. QEMU's dispatcher is no hook of the administrator's own: what matters is the folder beside it. */
export function hookAt(path: string): HookKind {
  if (statSync(path, { throwIfNoEntry: false })?.isFile() !== true) return 'none';
  if (dispatchedFolder(path) !== undefined) return 'dispatcher';
  return isExecutable(path) ? 'own' : 'not-executable';
}
