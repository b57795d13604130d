// The question before images of a VM are written to in place: that the VM is shut off, and nobody needs them as they are. What
// they are to hold is restore-in-place.ts.
import { UsageError } from '../../errors.js';
import { whyInUse } from '../images/use.js';
import { witnessesFor } from '../sets/claims.js';
import type { LockedVm, LockRequest } from '../sets/vm-lock.js';
import { definitionAt } from '../vm/definition.js';
import { placeNow } from '../vm/identity.js';
import { openMonitors } from '../vm/monitors.js';

interface WrittenImage {
  readonly disk: { readonly id: string };
  readonly image: string;
  readonly dataFiles: readonly string[];
  readonly draft: string;
}

/** Throws a UsageError if the VM runs, or anybody needs an image as it is: its own saved memory, for one. */
export async function checkFree(
  vm: LockedVm,
  images: readonly WrittenImage[],
  { lock, monitorTimeoutMs }: { readonly lock: LockRequest; readonly monitorTimeoutMs: number },
): Promise<void> {
  await using monitors = await openMonitors([lock.vm.monitor], monitorTimeoutMs, vm.identity);
  const [running] = monitors.open;
  if (running !== undefined) {
    throw new UsageError('E_VM_RUNS', `the VM runs (monitor ${running.path} answers): shut it off first`);
  }
  const saved = await definitionAt(placeNow(lock.vm.monitor, vm.identity)).savedState();
  const witnesses = await witnessesFor(lock.stateDir, undefined, [], saved);
  for (const { disk, image, dataFiles, draft } of images) {
    // A draft that is there already lies on it, and is ours.
    const ours = { ...witnesses, spent: [...witnesses.spent, draft] };
    const use =
      (await whyInUse([image], ours)) ?? (await whyInUse(dataFiles, { ...ours, spent: [...ours.spent, image] }));
    if (use !== undefined) throw new UsageError('E_IN_USE', `disk ${disk.id}: ${use.file}: ${use.why}`);
  }
}
