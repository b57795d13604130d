// Everything slow, before the guest is held: the overlays made and checked, the set's name taken, its intent durable.
// What is done here is registered to be undone; nothing is cut.
import { randomBytes, randomUUID } from 'node:crypto';
import { dirname } from 'node:path';
import type { Manifest } from '../sets/manifest.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import { saveTexts } from '../sets/saved-files.js';
import type { Hypervisor } from '../vm/hypervisor.js';
import type { Overlay } from '../vm/overlay.js';
import { placeText } from '../vm/place.js';
import type { StateFolder } from '../vm/state-folder.js';
import type { CreatePlan, PlanOptions } from './create-plan.js';
import { draftManifest } from './manifest-draft.js';
import { checkUnchanged } from './overlay-cut.js';
import { checkOverlays, checkRoom, makeOverlays, planOverlays, readRoom } from './overlays.js';
import type { SetInMaking } from './set-in-making.js';
import { readWriteCounts, type WriteCounts } from './write-counts.js';

export interface PrepareOptions extends PlanOptions {
  readonly set: string;
  readonly minFreeBytes: number;
  /** How long the guest may stay frozen without hearing from us. */
  readonly leaseMs: number;
  readonly signal: AbortSignal;
  /** One line for people. Must not throw. */
  readonly onProgress: (text: string) => void;
}

export interface PreparedSet {
  readonly draft: Manifest;
  readonly overlays: readonly Overlay[];
  /** State that the VM keeps beside its disks, to be copied after the cut. */
  readonly folders: readonly StateFolder[];
  /** The id of the freeze session, in the journal already. */
  readonly session: string;
  readonly writesBefore: WriteCounts;
  /** What the overlays will lack, though they are sound, in sentences. */
  readonly notes: readonly string[];
}

/** Throws a UsageError or a CutError: nothing was cut. */
export async function prepareSet(
  hypervisor: Hypervisor,
  store: ManifestStore,
  plan: CreatePlan,
  making: SetInMaking,
  options: PrepareOptions,
): Promise<PreparedSet> {
  const { set, signal, vm, leaseMs } = options;
  const { reverter } = making;
  const id = randomBytes(4).toString('hex');
  const overlays = await planOverlays(plan.chosen, set, id, vm.overlayDir);
  checkRoom(await readRoom(overlays, options.minFreeBytes));
  const begun = await draftManifest(hypervisor, plan, overlays, id, options);
  await making.begin(begun);
  const { texts, folders } = await hypervisor.describe();
  const saved = await saveTexts(dirname(store.file(set)), texts);
  const draft = { ...begun, ...(saved.length === 0 ? {} : { saved }) };
  making.learn(draft);
  await makeOverlays(overlays, reverter, signal, (done) => {
    options.onProgress(`making overlay ${done + 1} of ${overlays.length}`);
  });
  const notes = await hypervisor.prepare(overlays, reverter, signal);
  await checkOverlays(overlays);
  // Durable before the guest is held: a tool killed after its transaction leaves a set that says so, and a journal that
  // knows whom to thaw.
  await store.write({ ...draft, state: 'cutting' });
  const session = randomUUID();
  if (plan.agent !== undefined && vm.agent !== undefined) {
    await making.willHold({ session, qga: placeText(vm.agent), leaseMs, since: new Date().toISOString() });
  }
  const writesBefore = await readWriteCounts(hypervisor);
  await checkUnchanged(hypervisor, overlays);
  return { draft, overlays, folders, session, writesBefore, notes };
}
