// Boots one run as a guest that reaches nothing: images of its own over the run's files, which are only read, no network, its
// memory gone with it. It is judged by what it does, and ended.
import { constants } from 'node:fs';
import { access, mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { defined } from '../../defined.js';
import { CutError, DeadlineError, UnreachableError, UsageError } from '../../errors.js';
import type { BootSights, BootVerdict } from '../repository/boot-verdict.js';
import { needsKey } from '../repository/chain-name.js';
import type { FoundRun } from '../repository/find-run.js';
import { requireKey } from '../repository/require-key.js';
import type { RunManifest } from '../repository/run-manifest.js';
import type { MachineFacts } from '../vm/machine-facts.js';
import { runQmp } from '../../qmp/commands.js';
import { awaitAgent } from './await-agent.js';
import type { BootOptions } from './boot-options.js';
import { isOfMachine } from './damage.js';
import { guestArguments, type Accelerator, type GuestSetup } from './guest-arguments.js';
import { checkGuest, type Checked } from './guest-checks.js';
import { GuestConsole } from './guest-console.js';
import { disksFor, flashFor, hasTpm } from './guest-files.js';
import { isRefusedStart, startGuest, type GuestProcess } from './guest-process.js';
import { stateOf } from './guest-state.js';
import { hostArch, machineOfRun } from './machine-of-run.js';

/** A guest that boots reads its disks; one whose processor hangs under KVM does not. */
export const KVM_STALL_MS = 60_000;
const SCREEN_LIMIT_MS = 10_000;
/** For what a QEMU said that has ended. */
const CONSOLE_LIMIT_MS = 2000;
const LINE_CHARACTERS = 200;

export interface BootLimits {
  readonly signal: AbortSignal;
  readonly onProgress: (text: string) => void;
}

export interface BootedOnce {
  readonly verdict: BootVerdict;
  readonly sights: BootSights;
}

/**
 * Throws a UsageError `E_BOOT` if too little is known to start it, or QEMU refuses; a CutError if a file of the run is not
 * what its record says (`E_CHAIN`), the scratch folder is full (`E_NO_SPACE`), or this host ends or stops the guest
 * (`E_BOOT`); a QuiesceError when interrupted. None says anything about
 * the run. QEMU has ended, and the scratch images are gone, in all cases.
 */
export async function bootRun(found: FoundRun, options: BootOptions, limits: BootLimits): Promise<BootedOnce> {
  const { manifest, runs, vm } = found;
  refuseWithoutAgent(found);
  await requireKey(found, manifest.disks, { ...limits, key: options.key });
  const facts = await machineOfRun(vm.folder, runs.all, manifest, options);
  const { accelerator } = options;
  const isTried = accelerator === 'auto' && (await hasKvm(facts));
  const tried = isTried ? await tryKvm(found, facts, options, limits) : undefined;
  if (tried !== undefined && typeof tried !== 'string') return tried;
  const once = await bootOnce(found, facts, accelerator === 'kvm' ? 'kvm' : 'tcg', options, limits);
  const notes = tried === undefined ? [] : [`under KVM it failed (${tried}): it was booted again by emulation`];
  return { ...once, verdict: { ...once.verdict, notes: [...notes, ...once.verdict.notes] } };
}

/** Why it does not pass under KVM, if so: it may hang where that is nested without the right features, and is not judged by it. */
async function tryKvm(
  found: FoundRun,
  facts: MachineFacts,
  options: BootOptions,
  limits: BootLimits,
): Promise<BootedOnce | string> {
  try {
    const once = await bootOnce(found, facts, 'kvm', options, limits);
    const { problems } = once.verdict;
    return problems.length === 0 ? once : problems.join('; ');
  } catch (error) {
    if (isRefusedStart(error) || (error instanceof CutError && error.code === 'E_BOOT')) return error.message;
    throw error;
  }
}

/** Nothing would tell that it is up. */
function refuseWithoutAgent({ manifest, runs }: FoundRun): void {
  if (hasAgent(manifest, runs.all)) return;
  const message = `no agent of the guest answered when run ${manifest.run} and those before it were made: nothing would tell whether it boots`;
  throw new UsageError('E_BOOT', message);
}

/** True if an agent answered when the run, or one before it, was made. */
export function hasAgent({ number }: RunManifest, all: readonly RunManifest[]): boolean {
  return all.some((each) => each.number <= number && each.versions.agent !== undefined);
}

export async function hasKvm({ arch }: MachineFacts): Promise<boolean> {
  if (arch !== hostArch()) return false;
  return await access('/dev/kvm', constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  );
}

async function bootOnce(
  found: FoundRun,
  facts: MachineFacts,
  accelerator: Accelerator,
  options: BootOptions,
  limits: BootLimits,
): Promise<BootedOnce> {
  const { manifest, vm } = found;
  const { run } = manifest;
  const scratch = await mkdtemp(join(options.scratch, 'fsb-boot-')).catch((cause: unknown) => {
    throw new UsageError('E_BOOT', `--scratch: cannot make a folder in ${options.scratch}`, { cause });
  });
  try {
    const { key } = options;
    const reading = { signal: limits.signal, key };
    const { flash, notes: flashNotes } = await flashFor(vm.folder, manifest, facts, scratch, reading);
    if (hasTpm(manifest)) flashNotes.push('it is booted without its TPM: what only that unlocks stays locked');
    const setup: GuestSetup = {
      ...{ facts, accelerator, uuid: manifest.vm.uuid, flash },
      disks: await disksFor(found, manifest.disks, scratch, { lastingBases: false, reading }),
      diskBus: options.diskBus,
      paths: { qmp: join(scratch, 'qmp'), agent: join(scratch, 'agent'), console: join(scratch, 'console') },
      qemuArgs: options.qemuArgs,
    };
    const bootedAt = new Date().toISOString();
    const startMs = performance.now();
    const files = setup.disks.flatMap(({ links }) => links.filter((link) => needsKey([link]))).length;
    const keyed = key === undefined || files === 0 ? undefined : { key, files };
    const program = `qemu-system-${facts.arch}`;
    await using guest = await startGuest(program, guestArguments(setup), setup.paths.qmp, { keyed });
    // QEMU has them open: should we be killed, they go with it.
    const written = [...setup.disks.map(({ overlay }) => overlay), ...copies(flash)];
    for (const file of written) await rm(file);
    using console = await letRun(guest, setup.paths.console, limits.signal);
    const onProgress = (text: string): void => {
      limits.onProgress(`run ${run} (${accelerator}): ${text}`);
    };
    const judged = await judge(guest, manifest, setup, options, { ...limits, onProgress });
    // Before anything is said of the guest: was it let be? It throws if not.
    const { endedBy } = await stateOf(guest, limits.signal);
    const { agentMs, checks } = judged;
    const hasGone = judged.problems.length === 0 && endedBy !== undefined;
    const problems = hasGone
      ? ['the guest powered off, restarted or panicked while it was looked at']
      : judged.problems;
    const screen = await screenOf(guest, join(scratch, 'screen'));
    if (endedBy !== undefined) await console.closed(CONSOLE_LIMIT_MS);
    const { damage, end } = console;
    if (damage !== undefined && isOfMachine(damage)) throw ofMachine(damage);
    const last = agentMs === undefined ? lastLines(end.toString('utf8')) : undefined;
    const testMs = Math.round(performance.now() - startMs);
    const verdict: BootVerdict = {
      ...{ format: 1, run, bootedAt, accelerator, ...defined({ agentMs }), testMs, checks: [...checks] },
      problems: [...problems, ...(damage === undefined ? [] : [`its kernel says: ${damage}`])],
      notes: [...flashNotes, ...judged.notes, ...(last === undefined ? [] : [`its console ends with: ${last}`])],
    };
    return { verdict, sights: { screen, console: end } };
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

function ofMachine(said: string): CutError {
  const message = `the timer of the machine that the guest was given did not work (its kernel says: ${said})`;
  return new CutError('E_BOOT', `${message}: that says nothing about the run; try again when this host has less to do`);
}

/** Hears it from its first word on. */
async function letRun(guest: GuestProcess, path: string, signal: AbortSignal): Promise<GuestConsole> {
  try {
    const console = await GuestConsole.connect(path);
    await runQmp(guest.monitor, 'cont', {});
    return console;
  } catch (error) {
    // Of a QEMU that is gone this tells why.
    await stateOf(guest, signal);
    throw error;
  }
}

/** What the guest writes to. */
function copies(flash: GuestSetup['flash']): string[] {
  return flash.filter(({ readOnly }) => !readOnly).map(({ file }) => file);
}

interface Judged extends Checked {
  readonly agentMs: number | undefined;
  readonly problems: readonly string[];
}

async function judge(
  guest: GuestProcess,
  manifest: RunManifest,
  { paths, accelerator }: GuestSetup,
  options: BootOptions,
  limits: BootLimits,
): Promise<Judged> {
  const startMs = performance.now();
  const answer = await awaitAgent(guest, {
    ...limits,
    agentSocket: paths.agent,
    limitMs: options.bootLimitMs,
    stallMs: accelerator === 'kvm' && options.accelerator === 'auto' ? KVM_STALL_MS : undefined,
  });
  if ('why' in answer) return { agentMs: undefined, problems: [answer.why], checks: [], notes: [] };
  await using client = answer;
  const agentMs = Math.round(performance.now() - startMs);
  const hasEnded = (): boolean => guest.hasEnded();
  try {
    const checked = await checkGuest(client, manifest, options, { ...limits, hasEnded });
    const problems = checked.checks.filter(({ passed }) => !passed).map(({ what, detail }) => `${what}: ${detail}`);
    return { agentMs, problems, ...checked };
  } catch (error) {
    if (!(error instanceof UnreachableError) && !(error instanceof DeadlineError)) throw error;
    // An agent of another version, perhaps.
    if (error.code === 'E_REPLY') throw error;
    return { agentMs, problems: [`its agent answered, and then no more: ${error.message}`], checks: [], notes: [] };
  }
}

/** Undefined where it has no screen, QEMU is older than 7.1, or it has ended. */
async function screenOf({ monitor }: GuestProcess, file: string): Promise<Buffer | undefined> {
  try {
    await runQmp(monitor, 'screendump', { filename: file, format: 'png' }, { timeoutMs: SCREEN_LIMIT_MS });
    return await readFile(file);
  } catch {
    return undefined;
  }
}

/** In one line; undefined if there are none. */
function lastLines(log: string): string | undefined {
  const lines = log.split(/[\r\n]+/).filter((line) => line.trim() !== '');
  if (lines.length === 0) return undefined;
  return lines
    .slice(-3)
    .map((line) => line.slice(0, LINE_CHARACTERS))
    .join(' | ');
}
