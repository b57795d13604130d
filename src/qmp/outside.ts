// Finds storage of the guest that lies in no block node of QEMU's: disks and folders that another process serves. The block
// graph says nothing of them; the tree of devices (QOM) does.
import type { Monitor } from './monitor.js';
import { runQmp } from './commands.js';

export interface OutsideStorage {
  /** The id that the VM's owner gave it, else QEMU's own name: `device[3]`. */
  readonly id: string;
  /** QEMU's name of the device: `vhost-user-blk-pci`. */
  readonly type: string;
  readonly kind: 'disk' | 'folder';
}

const kinds = [
  [/^vhost-user-blk/, 'disk'],
  [/^vhost-(user-)?scsi/, 'disk'],
  [/^(vhost-user-fs|virtio-9p)/, 'folder'],
] as const;

/** In QEMU's order. Throws what `runQmp` does. */
export async function readOutside(client: Monitor): Promise<OutsideStorage[]> {
  const found: OutsideStorage[] = [];
  for (const path of ['/machine/peripheral', '/machine/peripheral-anon']) {
    for (const { name, type } of await runQmp(client, 'qom-list', { path })) {
      const device = /^child<(.+)>$/.exec(type)?.[1];
      const kind = kinds.find(([pattern]) => device !== undefined && pattern.test(device))?.[1];
      if (device !== undefined && kind !== undefined) found.push({ id: name, type: device, kind });
    }
  }
  return found;
}
