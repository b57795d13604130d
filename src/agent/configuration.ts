// Reads the agent's configuration file. Group [general] holds qemu-ga's own keys; unknown ones are ignored, as there.
// Group [bridge] holds ours; an unknown one is an error, since a mistyped lease must not pass for the default. Where
// the file is and how the command line overrides it: src/cli/agent/options.ts. Reference: qga/conf/qemu-ga.conf.
import * as v from 'valibot';
import { defined } from '../defined.js';
import { UsageError } from '../errors.js';
import { hookFailures } from '../freeze/judgement/requirement.js';
import { mountpointGlob } from '../freeze/judgement/rules.js';
import { policyPresets } from '../qga/command.js';
import { commandNames } from '../qga/commands.js';
import { parseBoolean, parseKeyfile, splitList, unescapeValue, type Keyfile } from './keyfile.js';

/** qemu-ga's settings; what is absent was not given. */
interface GeneralConfiguration {
  readonly daemon?: boolean;
  readonly method?: string;
  readonly path?: string;
  readonly logfile?: string;
  readonly pidfile?: string;
  readonly fsfreezeHook?: string;
  readonly statedir?: string;
  readonly verbose?: boolean;
  readonly retryPath?: boolean;
  readonly blockRpcs: readonly string[];
  readonly allowRpcs: readonly string[];
}

const wholeNumber = (min: number, max: number, unit: string) =>
  v.pipe(
    v.string(),
    v.check(
      (text) => /^\d{1,9}$/.test(text) && Number(text) >= min && Number(text) <= max,
      `a whole number of ${unit} from ${min} to ${max}`,
    ),
    v.transform(Number),
  );
const truth = v.pipe(
  v.picklist(['true', 'false', '1', '0'], 'true or false'),
  v.transform((text) => text === 'true' || text === '1'),
);
const path = v.pipe(v.string(), v.startsWith('/', 'an absolute path'));
const pathOrNone = v.pipe(
  v.string(),
  v.check((text) => text === 'none' || text.startsWith('/'), 'an absolute path, or none'),
);
const folders = v.pipe(
  v.string(),
  v.transform(splitList),
  v.array(v.pipe(v.string(), v.trim(), v.startsWith('/', 'absolute paths, separated by commas'))),
);

// An empty list, as in the example, rules nothing.
const mountpointGlobs = v.pipe(
  v.string(),
  v.transform(splitList),
  v.array(
    v.pipe(
      v.string(),
      v.trim(),
      v.check(
        (glob) => mountpointGlob(glob) !== undefined,
        'absolute mount points without a slash at their end, separated by commas (wildcards: ?, * and **)',
      ),
    ),
  ),
);
const filesystemTypes = v.pipe(
  v.string(),
  v.transform(splitList),
  v.array(
    v.pipe(
      v.string(),
      v.trim(),
      v.regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, 'filesystem types as in /proc/self/mountinfo, separated by commas'),
    ),
  ),
);
const commandList = v.pipe(
  v.string(),
  v.transform((text) => splitList(text).map((name) => name.trim())),
  v.array(v.picklist(commandNames, 'names of commands, separated by commas')),
);

const logLevels = ['debug', 'info', 'warn', 'error'] as const;

const bridgeSchema = v.strictObject({
  /** Lease of a plain guest-fsfreeze-freeze, which cannot name one itself. */
  'lease-ms': v.optional(wholeNumber(100, 3_600_000, 'milliseconds'), '60000'),
  /** No lease, renewed or not, holds the guest longer than this after its first FIFREEZE. */
  'lease-max-s': v.optional(wholeNumber(1, 3600, 'seconds'), '600'),
  'prepare-budget-s': v.optional(wholeNumber(1, 3600, 'seconds'), '60'),
  'plain-prepare-s': v.optional(wholeNumber(1, 3600, 'seconds'), '5'),
  'hold-budget-s': v.optional(wholeNumber(1, 600, 'seconds'), '15'),
  /** Limit of each phase of a plain hook; a described writer names its own limits. */
  'plain-hook-s': v.optional(wholeNumber(1, 600, 'seconds'), '10'),
  /** Whether a failed hook of the administrator's refuses a plain freeze, or lowers its level. */
  'hook-failure': v.optional(v.picklist(hookFailures, `one of ${hookFailures.join(', ')}`), 'refuse'),
  /**
   * Limit of one FIFREEZE. Below the 10 s lease of `bridge-*`: a filesystem that hangs is named before the lease ends.
   */
  'freeze-limit-ms': v.optional(wholeNumber(100, 3_600_000, 'milliseconds'), '8000'),
  'include-mountpoints': v.optional(mountpointGlobs, ''),
  'include-types': v.optional(filesystemTypes, ''),
  'exclude-mountpoints': v.optional(mountpointGlobs, ''),
  'exclude-types': v.optional(filesystemTypes, ''),
  'trust-plain-hooks': v.optional(truth, 'false'),
  'expedite-rcu': v.optional(truth, 'true'),
  /** Default: the folders that freeze/ knows. */
  'writer-folders': v.optional(folders),
  freezer: v.optional(path, '/usr/lib/fsfreeze-bridge/freezer'),
  /** `none`: no local socket. Default: `agent.sock` in the runtime directory. */
  'local-socket': v.optional(pathOrNone),
  /** On tmpfs: sockets, marker, scratch of sessions. */
  'runtime-dir': v.optional(path, '/run/fsfreeze-bridge'),
  /**
   * The preset of commands that the host may use, before block-rpcs and allow-rpcs. The default depends on the channel.
   */
  policy: v.optional(v.picklist(policyPresets, `one of ${policyPresets.join(', ')}`)),
  /** Commands allowed besides those of the policy. The name of no command is an error: nothing would come of it. */
  'also-allow': v.optional(commandList),
  /** Default: `info`; on a standard error that nobody collects, `warn`. */
  'log-level': v.optional(v.picklist(logLevels, `one of ${logLevels.join(', ')}`)),
  /** The version that guest-info gives, for management software that compares. */
  'report-version': v.optional(v.string()),
});
export type BridgeConfiguration = v.InferOutput<typeof bridgeSchema>;

export interface Configuration {
  readonly general: GeneralConfiguration;
  readonly bridge: BridgeConfiguration;
}

/** Reads the text of `file` (a name for messages). Throws a UsageError that names the key. */
export function parseConfiguration(text: string, file: string): Configuration {
  const keyfile = parseKeyfile(text, file);
  return { general: readGeneral(keyfile, file), bridge: readBridge(keyfile, file) };
}

function readGeneral(keyfile: Keyfile, file: string): GeneralConfiguration {
  const group = keyfile.get('general') ?? new Map<string, string>();
  const where = (key: string): string => `${file}: [general] ${key}`;
  const text = (key: string): string | undefined => {
    const value = group.get(key);
    return value === undefined ? undefined : unescapeValue(value, where(key));
  };
  const boolean = (key: string): boolean | undefined => {
    const value = group.get(key);
    return value === undefined ? undefined : parseBoolean(value, where(key));
  };
  return {
    ...defined({
      daemon: boolean('daemon'),
      method: text('method'),
      path: text('path'),
      logfile: text('logfile'),
      pidfile: text('pidfile'),
      fsfreezeHook: text('fsfreeze-hook'),
      statedir: text('statedir'),
      verbose: boolean('verbose'),
      retryPath: boolean('retry-path'),
    }),
    // QEMU 7's old name for it: a list that restricts must not be lost by an update.
    blockRpcs: [...splitList(text('blacklist') ?? ''), ...splitList(text('block-rpcs') ?? '')],
    allowRpcs: splitList(text('allow-rpcs') ?? ''),
  };
}

function readBridge(keyfile: Keyfile, file: string): BridgeConfiguration {
  const entries = [...(keyfile.get('bridge') ?? [])].map(
    ([key, value]) => [key, unescapeValue(value, `${file}: [bridge] ${key}`)] as const,
  );
  const parsed = v.safeParse(bridgeSchema, Object.fromEntries(entries));
  if (parsed.success) {
    const { 'lease-ms': leaseMs, 'lease-max-s': maxS, 'plain-hook-s': hookS, 'hold-budget-s': holdS } = parsed.output;
    const atMost = (key: string, most: string, found: number): UsageError =>
      new UsageError('E_CONFIG', `${file}: [bridge] ${key}: expected at most ${most}, found ${found}`);
    if (leaseMs > maxS * 1000) throw atMost('lease-ms', `lease-max-s (${maxS * 1000} ms)`, leaseMs);
    // A default gives way to a short hold.
    if (hookS > holdS && entries.some(([key]) => key === 'plain-hook-s'))
      throw atMost('plain-hook-s', `hold-budget-s (${holdS} s), which bounds all hooks together`, hookS);
    return parsed.output;
  }
  const [issue] = parsed.issues;
  const key = v.getDotPath(issue) ?? '';
  const known = key.split('.')[0] ?? key;
  throw new UsageError(
    'E_CONFIG',
    Object.hasOwn(bridgeSchema.entries, known)
      ? `${file}: [bridge] ${known}: expected ${issue.message}, found ${issue.received}`
      : `${file}: [bridge] ${key}: unknown key, expected one of ${Object.keys(bridgeSchema.entries).join(', ')}`,
  );
}
