// How a guest that is tested fares, as far as that is its own doing. What this host does to it (a signal, a full or failing
// disk, KVM that gives up) is an error and no verdict.
import { throwIfInterrupted } from '../../confirm.js';
import { CutError } from '../../errors.js';
import { runQmp } from '../../qmp/commands.js';
import type { GuestProcess } from './guest-process.js';

export interface GuestState {
  /** In QEMU's words (`guest-shutdown`); undefined while it runs. */
  readonly endedBy?: string | undefined;
  readonly hasPanicked: boolean;
  /** Of its disks, since its start. */
  readonly reads: number;
}

/**
 * Throws a CutError if this host keeps the guest from going on: `E_NO_SPACE` if its images cannot grow, else `E_BOOT`; a
 * QuiesceError when interrupted, and what `runQmp` does if QEMU runs and does not answer.
 */
export async function stateOf(guest: GuestProcess, signal: AbortSignal): Promise<GuestState> {
  throwIfInterrupted(signal, 'nothing was recorded');
  try {
    const { status } = await runQmp(guest.monitor, 'query-status', {});
    const disks = await runQmp(guest.monitor, 'query-blockstats', {});
    if (status === 'io-error') throw await storageError(guest);
    if (status === 'internal-error')
      throw new CutError('E_BOOT', 'QEMU stopped the guest: an internal error of its own');
    // An nvme has no werror: the guest was told of an error that was this host's.
    if (disks.some(({ stats }) => stats.failed_rd_operations + stats.failed_wr_operations > 0)) throw failing();
    const reads = disks.reduce((sum, { stats }) => sum + stats.rd_operations, 0);
    return { hasPanicked: status === 'guest-panicked', reads };
  } catch (error) {
    if (error instanceof CutError) throw error;
    const endedBy = await guest.ending();
    // One who is stopped with QEMU, by systemd for instance, must not take its end for the guest's.
    throwIfInterrupted(signal, 'nothing was recorded');
    if (endedBy === undefined) throw error;
    return { endedBy, hasPanicked: endedBy === 'guest-panic', reads: 0 };
  }
}

async function storageError({ monitor }: GuestProcess): Promise<CutError> {
  const disks = await runQmp(monitor, 'query-block', {});
  if (disks.every((disk) => disk['io-status'] !== 'nospace')) return failing();
  return new CutError(
    'E_NO_SPACE',
    'the guest could not write to its images: no space is left where they lie (a boot test: see --scratch)',
  );
}

function failing(): CutError {
  const message = "this host could not read the files of the run, or not write to the guest's images";
  return new CutError('E_BOOT', `${message}: that says nothing about the run; see the log of the kernel`);
}
