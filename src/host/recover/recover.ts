// `recover`: what tools and QEMUs that were killed left behind for one VM, put right or told of. The guest first, then
// the sets, then what no set speaks for. May be called at any time, also beside a tool at work, and again: what is right
// is not found a second time.
import { DeadlineError, QuiesceError, UnreachableError, describeError } from '../../errors.js';
import { interruption } from '../confirm.js';
import type { Finding } from './finding.js';
import { openMonitors, type Monitors } from '../vm/monitors.js';
import { recoverGuest } from './recover-guest.js';
import { noteBusySets, recoverSets } from './recover-sets.js';
import { recoverStrays } from './recover-strays.js';
import { Recovery, type RecoverOptions } from './recovery.js';

/**
 * Gives all that was found, in the order it was looked at. Throws a QuiesceError when interrupted (what was put right
 * stays so), and what the state directory's files throw.
 */
export async function recoverVm(options: RecoverOptions): Promise<readonly Finding[]> {
  const opened = await open(options);
  if (opened instanceof Error) {
    const recovery = new Recovery(options, [], true);
    // A guest that is held does not wait for a monitor.
    await recoverGuest(recovery);
    await noteBusySets(recovery);
    recovery.note('busy', {
      kind: 'vm-unreachable',
      found: `VM ${options.vm.name} cannot be looked at: ${describeError(opened)}`,
      did: 'left alone: recover again when its monitor is free',
      commands: [options.command('recover')],
    });
    return recovery.findings;
  }
  await using monitors = opened;
  const recovery = new Recovery(options, monitors.open, monitors.open.length > 0);
  try {
    await recoverGuest(recovery);
    await noteBusySets(recovery);
    await recoverSets(recovery);
    await recoverStrays(recovery);
  } catch (error) {
    if (!options.signal.aborted) throw error;
    // Worse news than the interruption.
    if (recovery.findings.some(({ thawUnconfirmed }) => thawUnconfirmed === true)) return recovery.findings;
    const message = interruption(options.signal, 'recover goes on when it is called again');
    throw new QuiesceError('E_INTERRUPTED', message, { cause: error, facts: { findings: recovery.findings } });
  }
  return recovery.findings;
}

async function open(
  options: RecoverOptions,
  paths: readonly string[] = options.vm.qmp,
): Promise<Monitors | UnreachableError | DeadlineError> {
  const { limits } = options;
  try {
    return await openMonitors(paths, limits.monitorTimeoutMs);
  } catch (error) {
    if (!(error instanceof UnreachableError) && !(error instanceof DeadlineError)) throw error;
    const [first, ...others] = paths;
    if (first === undefined || others.length === 0) return error;
    // Several ways may lead to one monitor, which serves one client at a time. What a VM behind the others uses is still
    // known by its open files and locks.
    return await open(options, [first]);
  }
}
