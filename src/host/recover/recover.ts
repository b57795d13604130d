// `recover`: puts right, or tells of, what tools and QEMUs that were killed left behind for a VM: first the guest
// (recover-guest.ts), then the sets (recover-sets.ts), then what no set speaks for (recover-strays.ts). May be called
// at any time, also beside a tool at work, and again: what is right is not found a second time.
import { defined } from '../../defined.js';
import { QuiesceError, UsageError, describeError } from '../../errors.js';
import { interruption } from '../../confirm.js';
import { shellWord } from '../../shell-word.js';
import { readableStore, type FoundVm } from '../sets/find-vm.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import { identifyUnlessBusy, lockVm, waitForOthers, type LockedVm } from '../sets/vm-lock.js';
import { identityKey } from '../vm/identity.js';
import { tryMonitors } from '../vm/monitors.js';
import { nowhere } from '../vm/place.js';
import type { Finding, NewFinding, FindingStatus } from './finding.js';
import { recoverBackup } from './recover-backup.js';
import { recoverGuest } from './recover-guest.js';
import { recoverRestore } from './recover-restore.js';
import { noteBusySets, recoverSets } from './recover-sets.js';
import { recoverStrays } from './recover-strays.js';
import { withKnownWays, type RecoverTarget, type RecoverableVm } from './recover-targets.js';
import { RecoveryRun, type RecoverOptions } from './recovery-run.js';

/**
 * Recovers all of them, each once however often it is named. One that cannot be looked at is a finding, and does not keep
 * the others from being put right. Throws a QuiesceError when interrupted: what was put right stays so.
 */
export async function recoverVms(
  targets: readonly RecoverTarget[],
  options: Omit<RecoverOptions, 'vm' | 'command'> & {
    readonly command: (vm: RecoverableVm, words: readonly string[]) => string;
  },
): Promise<readonly Finding[]> {
  const done = new Set<string>();
  const findings: Finding[] = [];
  for (const target of targets) {
    try {
      findings.push(...(await recoverTarget(target, options, done)));
    } catch (error) {
      if (options.signal.aborted) throw withFindings(error, findings);
      findings.push({ vm: target.vm.name, ...failed(error) });
    }
    if (options.signal.aborted) break;
  }
  return findings;
}

function failed(error: unknown): NewFinding & { readonly status: FindingStatus; readonly commands: readonly string[] } {
  return {
    kind: 'vm-failed',
    status: 'failed',
    found: 'the VM, or what is recorded of it, cannot be looked at',
    did: describeError(error),
    commands: [],
  };
}

function withFindings(error: unknown, before: readonly Finding[]): unknown {
  if (!(error instanceof QuiesceError) || before.length === 0) return error;
  const own = (error.facts['findings'] ?? []) as readonly Finding[];
  return new QuiesceError(error.code, error.message, { cause: error.cause, facts: { findings: [...before, ...own] } });
}

async function recoverTarget(
  target: RecoverTarget,
  options: Parameters<typeof recoverVms>[1],
  done: Set<string>,
): Promise<readonly Finding[]> {
  const { stateDir, limits } = options;
  const found = await identifyUnlessBusy(stateDir, target.vm, limits.monitorTimeoutMs);
  const { identity } = found;
  if (done.has(identityKey(identity))) return [];
  done.add(identityKey(identity));
  const store = await readableStore(stateDir, identity, target.vm);
  const vm = await withKnownWays(stateDir, target, identity, store);
  const command = (...words: readonly string[]): string => options.command(vm, words);
  return await recoverVm({ ...options, vm, command }, found);
}

/**
 * Gives all that was found, in the order it was looked at. Throws a QuiesceError when interrupted (what was put right
 * stays so), and what the state directory's files throw.
 */
async function recoverVm(options: RecoverOptions, found: FoundVm): Promise<readonly Finding[]> {
  const { stateDir, vm, dryRun } = options;
  const { name, identity, agent } = vm;
  const named = { name, identity, monitor: vm.monitors[0] ?? nowhere, ...defined({ agent }) };
  const request = { ...options, vm: named, operation: 'recover', waitMs: options.limits.lockWaitMs } as const;
  let locked: LockedVm | undefined;
  try {
    if (dryRun) await waitForOthers(request);
    else locked = await lockVm(request, found);
  } catch (error) {
    if (error instanceof UsageError && (error.code === 'E_VM_BUSY' || error.code === 'E_SET_BUSY')) {
      return [busyFinding(name, error)];
    }
    throw error;
  }
  await using open = locked;
  return await recoverWith(options, open?.store ?? (await readableStore(stateDir, identity, named)));
}

function busyFinding(vm: string, { message, facts }: UsageError): Finding {
  const about = { vm, kind: 'vm-busy', found: message } as const;
  if (facts['owner'] !== 'elsewhere') return { ...about, status: 'busy', did: 'left alone', commands: [] };
  const commands = [`rm ${shellWord(String(facts['file']))}`];
  return { ...about, status: 'yours', did: 'if it has ended, remove its file and recover again', commands };
}

async function recoverWith(options: RecoverOptions, store: ManifestStore): Promise<readonly Finding[]> {
  const { vm, limits, signal } = options;
  await using monitors = await tryMonitors(vm.monitors, limits.monitorTimeoutMs, vm.identity);
  const { open, silent } = monitors;
  const isKnown = open.length > 0 || (silent.length === 0 && vm.monitors.length > 0);
  const run = new RecoveryRun(options, store, open, open.length > 0 || !isKnown);
  try {
    // A guest that is held does not wait for a monitor.
    await recoverGuest(run);
    await noteBusySets(run);
    if (isKnown) {
      await recoverSets(run);
      await recoverBackup(run);
      await recoverRestore(run);
      await recoverStrays(run);
    } else {
      const why = silent[0] === undefined ? 'where its monitor is, is not known' : describeError(silent[0]);
      run.note('busy', {
        kind: 'vm-unreachable',
        found: `whether VM ${vm.name} runs is not known: ${why}`,
        did: 'left alone: recover again when its monitor is free',
        commands: [options.command('recover')],
      });
    }
  } catch (error) {
    if (!signal.aborted) throw error;
    // A guest that may be frozen is worse news than the interruption.
    if (run.findings.some(({ thawUnconfirmed }) => thawUnconfirmed === true)) return run.findings;
    const message = interruption(signal, 'recover goes on when it is called again');
    throw new QuiesceError('E_INTERRUPTED', message, { cause: error, facts: { findings: run.findings } });
  }
  return run.findings;
}
