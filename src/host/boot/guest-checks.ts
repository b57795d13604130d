// What is looked at in a guest that has come up from a backup: its filesystems and writers against what the run's own report
// says was held, what its kernel told, and what the user's commands print. Each is tried until it is as it should be or the
// limit has passed: an agent answers before the last application has started.
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { FreezeReport, WriterReport } from '../../consistency.js';
import { throwIfInterrupted } from '../../confirm.js';
import { Deadline } from '../../deadline.js';
import { BridgeError, DeadlineError, describeError, UnreachableError } from '../../errors.js';
import type { AgentCaller } from '../../qga/client.js';
import { createRemoteCoordinator, type RemoteCoordinator } from '../../qga/remote-coordinator.js';
import { defaultRemoteLimits } from '../../qga/until-confirmed.js';
import { RemoteError } from '../../rpc/errors.js';
import type { BootVerdict } from '../repository/boot-verdict.js';
import type { RunManifest } from '../repository/run-manifest.js';
import type { BootOptions, GuestCommand } from './boot-options.js';
import { clipped } from './clipped.js';
import { damageIn } from './damage.js';
import { execForbidden, execInGuest, mayExec } from './guest-exec.js';

type Check = BootVerdict['checks'][number];

export interface Checked {
  readonly checks: readonly Check[];
  readonly notes: readonly string[];
}

const ASK_MS = 10_000;
const LEASE_MS = 30_000;
/** The guest is thrown away: its thaw need not be confirmed at any price. */
const THAW_MS = 10_000;
const PAUSE_MS = 1000;

export interface CheckLimits {
  /** The guest is gone: nothing will become better. */
  readonly hasEnded: () => boolean;
  readonly signal: AbortSignal;
  readonly onProgress: (text: string) => void;
}

interface Checker extends CheckLimits {
  readonly client: AgentCaller;
  readonly coordinator: RemoteCoordinator;
  readonly deadline: Deadline;
}

/**
 * Throws a UsageError `E_BOOT` if the agent does not run the commands that were asked for, a QuiesceError when interrupted.
 */
export async function checkGuest(
  client: AgentCaller,
  { run, guest }: RunManifest,
  { commands, checkLimitMs, ignoredMounts }: BootOptions,
  limits: CheckLimits,
): Promise<Checked> {
  const deadline = new Deadline(checkLimitMs);
  const canExec = await untilAnswered(() => mayExec(client), deadline, limits);
  if (commands.length > 0 && !canExec) throw execForbidden(run);
  // One that hangs is not waited for much longer than everything may take.
  const freezeMs = Math.min(defaultRemoteLimits.freezeMs, checkLimitMs);
  const remote = { ...defaultRemoteLimits, freezeMs, thawTryMs: THAW_MS, thawMs: THAW_MS };
  const coordinator = await untilAnswered(() => createRemoteCoordinator(client, remote), deadline, limits);
  const checker = { ...limits, client, coordinator, deadline };
  const notes: string[] = [];
  const checks: Check[] = [];
  const look = async (what: string, attempt: () => Promise<Omit<Check, 'what'>>): Promise<void> => {
    limits.onProgress(`checking ${what}`);
    checks.push({ what, ...(await untilPassed(checker, attempt)) });
  };
  if (guest === undefined) {
    notes.push('the run has no report of its guest: which filesystems and writers were there is not known');
  } else {
    const held = guest.filesystems.filter(({ held: how }) => how === 'frozen').map(({ mountpoint }) => mountpoint);
    const wanted = held.filter((mountpoint) => !ignoredMounts.includes(mountpoint));
    await look('filesystems', () => lookForMounts(checker, wanted));
    if (checker.coordinator.kind === 'stock') notes.push('a stock qemu-ga knows no writers: none was looked at');
    else await look('writers', () => holdOnce(checker, guest, wanted));
  }
  for (const command of commands) await look(command.line, () => runCommand(checker, command));
  const damage = canExec ? await readKernelLog(checker) : 'the agent does not run commands';
  if (typeof damage === 'string') notes.push(`the messages of its kernel were not read: ${damage}`);
  else checks.push({ what: 'kernel messages', ...damage });
  return { checks, notes };
}

/** What it gives: a guest whose applications start may be slow to answer, and that is no verdict on it. */
async function untilAnswered<T>(
  ask: () => Promise<T>,
  deadline: Deadline,
  { signal, hasEnded }: CheckLimits,
): Promise<T> {
  for (;;) {
    throwIfInterrupted(signal, 'nothing was recorded');
    try {
      return await ask();
    } catch (error) {
      const isLate = error instanceof DeadlineError || error instanceof UnreachableError;
      if (!isLate || deadline.passed || hasEnded()) throw error;
    }
    await pause(deadline, signal);
  }
}

async function pause(deadline: Deadline, signal: AbortSignal): Promise<void> {
  await sleep(Math.min(PAUSE_MS, deadline.remainingMs + 1), undefined, { signal }).catch(() => undefined);
}

async function untilPassed(
  { deadline, signal, hasEnded }: Checker,
  attempt: () => Promise<Omit<Check, 'what'>>,
): Promise<Omit<Check, 'what'>> {
  for (;;) {
    throwIfInterrupted(signal, 'nothing was recorded');
    let found: Omit<Check, 'what'>;
    try {
      found = await attempt();
    } catch (error) {
      if (!(error instanceof RemoteError) && !(error instanceof BridgeError)) throw error;
      found = { passed: false, detail: clipped(describeError(error)) };
    }
    // What failed since we were told to stop did not fail by itself.
    throwIfInterrupted(signal, 'nothing was recorded');
    if (found.passed || deadline.passed || hasEnded()) return found;
    await pause(deadline, signal);
  }
}

async function lookForMounts({ client }: Checker, wanted: readonly string[]): Promise<Omit<Check, 'what'>> {
  const found = await client.call('guest-get-fsinfo', {}, { timeoutMs: ASK_MS });
  const missing = wanted.filter((mountpoint) => !found.some((each) => each.mountpoint === mountpoint));
  if (missing.length === 0) return { passed: true, detail: `mounted: ${wanted.join(', ')}` };
  return { passed: false, detail: `held in the backup, and not mounted: ${missing.join(', ')}` };
}

/**
 * Holds the guest as a backup does, and lets it go: each writer that was held in the run must be held again, which it is only
 * if its application runs and answers, and no filesystem that was frozen may have become read-only.
 */
async function holdOnce(
  { coordinator, signal }: Checker,
  before: FreezeReport,
  mounts: readonly string[],
): Promise<Omit<Check, 'what'>> {
  const wanted = before.writers.filter(isHeld);
  const request = { requester: 'boot test', session: randomUUID(), leaseMs: LEASE_MS, require: 'crash' } as const;
  const session = await coordinator.freeze(request, signal);
  const report = await session.thaw();
  const faults: string[] = [];
  for (const { name, verdict } of wanted) {
    const now = report.writers.find((each) => each.name === name);
    if (now !== undefined && isHeld(now) && (verdict !== 'verified' || now.verdict === 'verified')) continue;
    faults.push(`${name} was ${verdict} in the backup, and is ${verdictOf(now)}`);
  }
  for (const { mountpoint, held } of report.filesystems) {
    if (held === 'read-only' && mounts.includes(mountpoint)) faults.push(`${mountpoint} became read-only`);
  }
  const names = wanted.map(({ name }) => name).join(', ') || 'none was held in the backup';
  return faults.length === 0 ? { passed: true, detail: names } : { passed: false, detail: clipped(faults.join('; ')) };
}

function isHeld({ verdict }: WriterReport): boolean {
  return verdict === 'verified' || verdict === 'claimed';
}

function verdictOf(writer: WriterReport | undefined): string {
  if (writer === undefined) return 'not there';
  return writer.reason === undefined ? writer.verdict : `${writer.verdict} (${writer.reason})`;
}

async function runCommand(
  { client, deadline, signal }: Checker,
  { line, expect }: GuestCommand,
): Promise<Omit<Check, 'what'>> {
  const { exitCode, stdout, stderr } = await execInGuest(client, line, deadline, signal);
  if (exitCode === undefined) return { passed: false, detail: 'it did not end in time' };
  if (exitCode !== 0) return { passed: false, detail: clipped(`exit code ${exitCode}: ${stderr || stdout}`) };
  if (expect === undefined || expect.test(stdout)) return { passed: true, detail: clipped(stdout) };
  return { passed: false, detail: clipped(`expected ${expect.source}, found ${stdout}`) };
}

/** Why it was not read, if so: nobody asked for it, and a guest without a shell, or that forbids it, is none the worse. */
async function readKernelLog({ client, deadline, signal, onProgress }: Checker): Promise<Omit<Check, 'what'> | string> {
  onProgress('reading the messages of its kernel');
  try {
    const { exitCode, stdout } = await execInGuest(client, 'dmesg', deadline, signal);
    if (exitCode === undefined) return 'dmesg did not end in time';
    if (exitCode !== 0) return `dmesg ended with exit code ${exitCode}`;
    const found = damageIn(stdout);
    return found === undefined ? { passed: true, detail: 'no damage' } : { passed: false, detail: found };
  } catch (error) {
    throwIfInterrupted(signal, 'nothing was recorded');
    if (!(error instanceof RemoteError) && !(error instanceof BridgeError)) throw error;
    return clipped(describeError(error));
  }
}
