// The options that several commands share, and what is read from them.
import { homedir } from 'node:os';
import { resolve } from 'node:path';
import type { Argv } from 'yargs';
import { defined } from '../../defined.js';
import { UsageError } from '../../errors.js';
import type { AgentLimits } from '../../host/guest/guest-agent.js';
import { askedLevels } from '../../host/guest/requirement.js';
import { readableStore } from '../../host/sets/find-vm.js';
import { recordedVm } from '../../host/sets/known-vms.js';
import { DEFAULT_STATE_DIR, type ManifestStore } from '../../host/sets/manifest-store.js';
import type { Operation } from '../../host/sets/owner-lock.js';
import { identifyUnlessBusy, type LockRequest } from '../../host/sets/vm-lock.js';
import { chooseVm, DEFAULT_CONFIG_FILE, type Vm } from '../../host/vm/vm.js';

export interface VmArgs {
  vm: string | undefined;
  connect: string | undefined;
  qmp: string | undefined;
  qga: string | undefined;
  config: string;
  'state-dir': string;
  json: boolean;
}

export function withVm<T>(yargs: Argv<T>): Argv<T & VmArgs> {
  return yargs
    .option('vm', {
      type: 'string',
      describe:
        'entry of the configuration, libvirt:DOMAIN, or the UUID or a name of a VM worked on before; with --qmp only its name',
      group: 'VM:',
    })
    .option('connect', { alias: 'c', type: 'string', describe: "libvirt's URI, for libvirt:DOMAIN", group: 'VM:' })
    .option('qmp', { type: 'string', describe: 'monitor socket (QMP) of the VM', group: 'VM:' })
    .option('qga', { type: 'string', describe: 'guest-agent socket of the VM', group: 'VM:' })
    .option('config', {
      type: 'string',
      default: DEFAULT_CONFIG_FILE,
      describe: 'configuration with the VMs',
      group: 'VM:',
    })
    .option('state-dir', {
      type: 'string',
      default: DEFAULT_STATE_DIR,
      describe: 'where manifests are kept',
      group: 'VM:',
    })
    .option('json', { type: 'boolean', default: false, describe: 'the last line of stdout is one JSON object' });
}

export const monitorTimeout = {
  type: 'number',
  default: 5,
  describe: 'seconds to wait for the monitor to answer a connection',
  group: 'Limits:',
} as const;
export const agentTimeout = {
  type: 'number',
  default: 5,
  describe: 'seconds to wait for the guest agent to answer',
  group: 'Limits:',
} as const;

export const thawTimeout = {
  type: 'number',
  default: 120,
  describe: 'seconds to try for a confirmed thaw',
  group: 'Limits:',
} as const;
export const setName = { type: 'string', demandOption: true, describe: 'name of the snapshot set' } as const;
export const yes = { alias: 'y', type: 'boolean', default: false, describe: 'do not ask' } as const;
export const speed = { type: 'number', describe: 'MiB per second at most' } as const;
/** The limit of a merge. */
export const diskTimeout = {
  type: 'number',
  default: 3600,
  describe: 'seconds for each disk',
  group: 'Limits:',
} as const;

/**
 * The absolute path. `~/x` is expanded, since no shell does it in `--qmp=~/x`. Throws a UsageError if it is empty: a
 * variable that a script did not set must not mean the current folder.
 */
export function path(value: string): string {
  if (value === '') throw new UsageError('E_USAGE', 'expected a path, found nothing: an option with a path is empty');
  return resolve(value.startsWith('~/') ? `${homedir()}${value.slice(1)}` : value);
}

export interface LockArgs {
  'lock-timeout': number;
}
export const lockTimeout = {
  type: 'number',
  default: 0,
  describe: 'seconds to wait while another process works on the VM',
  group: 'Limits:',
} as const;

/** Of a cut of a guest that is held for it. */
export interface HoldArgs extends LockArgs {
  lease: number;
  'cut-timeout': number;
  'monitor-timeout': number;
  'agent-timeout': number;
  'freeze-timeout': number;
  'thaw-timeout': number;
}

/** Of a command that holds the guest for a cut. */
export const requireOption = {
  choices: askedLevels,
  default: 'auto' as const,
  describe: 'level asked for; auto: application if the guest has a writer concerned, else filesystem',
};

export function withHold<T>(yargs: Argv<T>): Argv<T & HoldArgs> {
  return yargs
    .option('lease', {
      type: 'number',
      default: 10,
      describe: 'seconds after which the guest thaws itself',
      group: 'Limits:',
    })
    .option('cut-timeout', {
      type: 'number',
      default: 10,
      describe: 'seconds to wait for the transaction',
      group: 'Limits:',
    })
    .option('monitor-timeout', monitorTimeout)
    .option('lock-timeout', lockTimeout)
    .option('agent-timeout', agentTimeout)
    .option('freeze-timeout', {
      type: 'number',
      default: 90,
      describe: 'seconds until the guest is held, with all its writers have to prepare',
      group: 'Limits:',
    })
    .option('thaw-timeout', thawTimeout);
}

export function agentLimits(args: HoldArgs): AgentLimits {
  return {
    answerMs: limitMs('agent-timeout', args['agent-timeout']),
    freezeMs: limitMs('freeze-timeout', args['freeze-timeout']),
    thawMs: limitMs('thaw-timeout', args['thaw-timeout']),
  };
}

export async function vmOf(args: VmArgs, overlayDir?: string): Promise<Vm> {
  return await chooseVm({
    vm: args.vm,
    connect: args.connect,
    qmp: args.qmp === undefined ? undefined : path(args.qmp),
    qga: args.qga === undefined ? undefined : path(args.qga),
    overlayDir: overlayDir === undefined ? undefined : path(overlayDir),
    config: path(args.config),
    recorded: (name) => recordedVm(path(args['state-dir']), name),
  });
}

/** The VM's sets, for reading. The monitor is asked which VM it is, unless somebody works on the VM. */
export async function storeOf(args: VmArgs, vm: Vm, monitorTimeoutMs: number): Promise<ManifestStore> {
  const stateDir = path(args['state-dir']);
  const { identity } = await identifyUnlessBusy(stateDir, vm, monitorTimeoutMs);
  return await readableStore(stateDir, identity, vm);
}

/** The request for the VM's lock, with the work that it is taken for. */
export function lockRequest(
  args: VmArgs & LockArgs,
  vm: Vm,
  work: { readonly operation: Operation; readonly set?: string },
  { signal, onProgress }: Pick<LockRequest, 'signal' | 'onProgress'>,
): LockRequest {
  const waitMs = lockWaitMs(args);
  return {
    ...work,
    stateDir: path(args['state-dir']),
    vm,
    waitMs,
    onProgress,
    ...defined({ signal }),
  };
}

/** Milliseconds to wait for the lock. Throws a UsageError unless the option is a number of seconds from 0 to a day. */
export function lockWaitMs({ 'lock-timeout': seconds }: LockArgs): number {
  return seconds === 0 ? 0 : limitMs('lock-timeout', seconds);
}

/** Milliseconds of an option in seconds. Throws a UsageError unless it is a number above 0 and at most a day. */
export function limitMs(option: string, seconds: number): number {
  if (seconds > 0 && seconds <= 86_400) return Math.max(1, Math.round(seconds * 1000));
  throw new UsageError('E_LIMIT', `--${option}: expected seconds above 0 and at most 86400, found ${seconds}`);
}

/** MiB per second: what QEMU takes for a number, in bytes. */
const MOST_RATE = 2 ** 32;

/** Bytes per second of MiB per second; undefined unless they are above 0, and at most `MOST_RATE`. */
export function bytesOfRate(mebibytes: number): number | undefined {
  return mebibytes > 0 && mebibytes <= MOST_RATE ? Math.ceil(mebibytes * 1024 * 1024) : undefined;
}

/** Bytes per second of an option in MiB per second. Throws a UsageError unless it is above 0. */
export function bytesPerSecond(option: string, speed: number | undefined): number | undefined {
  if (speed === undefined) return undefined;
  const bytes = bytesOfRate(speed);
  if (bytes !== undefined) return bytes;
  throw new UsageError('E_LIMIT', `--${option}: expected MiB per second above 0, found ${speed}`);
}

const units: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/** Bytes of `10G`, `512M`, or a number without a letter. Throws a UsageError for anything else, and for 0. */
export function byteSize(option: string, text: string): number {
  const [, digits, unit] = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$/i.exec(text.trim()) ?? [];
  const bytes = Math.round(Number(digits) * (units[(unit ?? '').toUpperCase()] ?? NaN));
  if (Number.isSafeInteger(bytes) && bytes > 0) return bytes;
  throw new UsageError('E_LIMIT', `--${option}: expected a size as 10G or 512M, found ${JSON.stringify(text)}`);
}
