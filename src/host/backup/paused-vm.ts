// What becomes of a VM that QEMU paused since a write of its guest failed, as its copy could not be made.
import { BridgeError } from '../../errors.js';
import type { EndedBackup } from '../vm/hypervisor.js';

/** Throws a BridgeError with the way out, if it is paused still. */
export function checkContinued(vm: EndedBackup, onProgress: (text: string) => void): void {
  if (vm === 'still-paused') {
    const message =
      'QEMU paused the VM, since a write of its guest failed (io-error), and pauses it again when it is continued: see that its disks can be written to, and continue it ("cont" in its monitor)';
    throw new BridgeError('E_BACKUP', message);
  }
  if (vm === 'continued') onProgress('QEMU had paused the VM, since a write of its guest failed: it runs again');
}
