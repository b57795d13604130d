// What this host knows of the VM that is started from a run: that it does not run already, and, from then on, where it is
// reached and which images it is on (sets/vm-record.ts).
import { describeError, UsageError } from '../../errors.js';
import type { Monitor } from '../../qmp/monitor.js';
import { readDisks } from '../../qmp/block-graph.js';
import type { Reverter } from '../../reverter.js';
import { noteDisks } from '../sets/disk-images.js';
import { knownVms } from '../sets/known-vms.js';
import { lockVm } from '../sets/vm-lock.js';
import { noteImages, readRecord } from '../sets/vm-record.js';
import { describeIdentity, identityFrom, identityKey, sameVm } from '../vm/identity.js';
import { tryMonitors } from '../vm/monitors.js';
import { parsePlace, socketAt } from '../vm/place.js';
import type { StartFolder } from './start-folder.js';

export interface KnownAs {
  readonly stateDir: string;
  readonly lockWaitMs: number;
  readonly monitorTimeoutMs: number;
  readonly signal: AbortSignal;
  readonly onProgress: (text: string) => void;
  /** One line that people have to see. */
  readonly onWarning: (text: string) => void;
}

interface Recorded {
  readonly name: string;
  readonly uuid: string | undefined;
}

/** Throws a UsageError `E_VM_RUNS` if a VM with its UUID answers where this host reached one; warns if that is not known. */
export async function refuseRunning({ name, uuid }: Recorded, folder: StartFolder, options: KnownAs): Promise<void> {
  const identity = await identityFrom(uuid, socketAt(folder.qmp));
  const places = (await knownVms(options.stateDir))
    .filter((known) => sameVm(known.identity, identity))
    .flatMap(({ qmp }) => qmp.map(parsePlace));
  await using monitors = await tryMonitors(places, options.monitorTimeoutMs, identity);
  const [running] = monitors.open;
  if (running !== undefined) {
    const found = `VM ${name} (${describeIdentity(identity)}) runs: its monitor ${running.path} answers`;
    throw new UsageError('E_VM_RUNS', `${found}; two VMs must not have one identity: shut it off first`);
  }
  for (const error of monitors.silent) {
    options.onWarning(`whether VM ${name} runs already is not known (${describeError(error)}): do not let both run`);
  }
}

/**
 * Writes down that the VM is reached in the folder and runs on its images, so that a backup of it while it is shut off is not
 * one of the images it had before; `undo` takes that back. Throws what lockVm does.
 */
export async function noteStarted(
  { name, uuid }: Recorded,
  folder: StartFolder,
  monitor: Monitor,
  undo: Reverter,
  options: KnownAs,
): Promise<void> {
  const { stateDir, lockWaitMs, signal, onProgress } = options;
  const identity = await identityFrom(uuid, socketAt(folder.qmp));
  const vm = { name, monitor: socketAt(folder.qmp), agent: socketAt(folder.agent) };
  const request = { stateDir, vm, operation: 'restore', waitMs: lockWaitMs, signal, onProgress } as const;
  await using locked = await lockVm(request, { identity, isSure: true });
  const before = (await readRecord(stateDir, identityKey(identity)))?.disks ?? [];
  undo.push(`the images known of VM ${name}`, async () => {
    await using again = await lockVm({ ...request, signal: new AbortController().signal }, { identity, isSure: true });
    await noteImages(stateDir, again.identity, () => Promise.resolve(before));
  });
  await noteDisks(stateDir, identity, await readDisks(monitor), (await locked.store.readAll()).manifests);
}
