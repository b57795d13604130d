// An overlay, the layer that takes a disk's writes after the cut, as the hypervisor needs to know it.
import { CutError, describeError } from '../../errors.js';
import type { VmDisk } from '../../qmp/block-graph.js';
import { diskName } from './disk-choice.js';

export interface Overlay {
  readonly disk: VmDisk;
  readonly file: string;
  readonly node: string;
  /** The name of its base in its header: started from the overlay, the VM reads the same bytes (backing-name.ts). */
  readonly baseName: string;
}

export function overlayFailure({ disk }: Overlay, cause: unknown): CutError {
  return new CutError('E_OVERLAY', `overlay for disk ${diskName(disk)}: ${describeError(cause)}`, { cause });
}
