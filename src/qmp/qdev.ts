// Reads from QEMU's object tree (QOM) how the guest knows a device: its serial number and PCI address. Properties differ
// between machines; one that is not there is no error.
import { posix } from 'node:path';
import type { Monitor } from './monitor.js';
import { runQmp, type QmpReply } from './commands.js';
import { QmpError } from './errors.js';

/** virtio-blk has room for 20 bytes; the guest never sees more. */
const VIRTIO_SERIAL_BYTES = 20;

/** The serial as the guest sees it; undefined if the device has none. */
export async function serialOf(client: Monitor, qdev: string): Promise<string | undefined> {
  const serial = await propertyOf(client, qdev, 'serial');
  if (typeof serial !== 'string' || serial === '') return undefined;
  if (!qdev.endsWith('/virtio-backend')) return serial;
  return Buffer.from(serial).subarray(0, VIRTIO_SERIAL_BYTES).toString('utf8');
}

/** QEMU's name of the device model, `scsi-generic`; undefined if it does not tell. */
export async function deviceTypeOf(client: Monitor, qdev: string): Promise<string | undefined> {
  const type = await propertyOf(client, qdev, 'type');
  return typeof type === 'string' ? type : undefined;
}

/** QEMU's model of the controller that a device hangs on; undefined if it hangs on none. */
export async function controllerTypeOf(client: Monitor, qdev: string): Promise<string | undefined> {
  const bus = await propertyOf(client, qdev, 'parent_bus');
  if (typeof bus !== 'string' || bus === '') return undefined;
  // The bus of a virtio device belongs to its backend, which is a part of it.
  return await deviceTypeOf(client, posix.dirname(bus).replace(/\/virtio-backend$/, ''));
}

/** True if the VM's owner lets others write to the disk at the same time (`share-rw=on`). */
export async function isShared(client: Monitor, qdev: string): Promise<boolean> {
  return (await propertyOf(client, qdev, 'share-rw')) === true;
}

/** True if QEMU still has the object that holds a key. */
export async function hasObject(client: Monitor, id: string): Promise<boolean> {
  return (await propertyOf(client, `/objects/${id}`, 'type')) !== undefined;
}

/** `DDDD:BB:SS.F` of the device or of the controller it hangs on; undefined if there is no PCI on the way. */
export async function pciAddressOf(client: Monitor, qdev: string): Promise<string | undefined> {
  const slot = await pciSlotOf(client, qdev, 16);
  return slot === undefined ? undefined : `0000:${hex(slot.bus)}:${hex(slot.slot)}.${slot.function.toString(16)}`;
}

interface PciSlot {
  readonly bus: number;
  readonly slot: number;
  readonly function: number;
}

// Climbs the tree (device -> bus -> device) to the first PCI device. Its bus is the root's, 0, or the one behind a bridge.
// The firmware chose the number of that one, and query-pci knows it.
async function pciSlotOf(client: Monitor, path: string, depth: number): Promise<PciSlot | undefined> {
  if (depth === 0 || !path.startsWith('/machine/')) return undefined;
  const address = await propertyOf(client, path, 'addr');
  const bus = await propertyOf(client, path, 'parent_bus');
  const up = typeof bus === 'string' && bus !== '' ? posix.dirname(bus) : posix.dirname(path);
  if (typeof address !== 'number' || address < 0) return await pciSlotOf(client, up, depth - 1);
  const place = { slot: address >> 3, function: address & 7 };
  const bridge = await pciSlotOf(client, up, depth - 1);
  if (bridge === undefined) return { bus: 0, ...place };
  const secondary = await secondaryBusOf(client, bridge);
  return secondary === undefined ? undefined : { bus: secondary, ...place };
}

async function secondaryBusOf(client: Monitor, at: PciSlot): Promise<number | undefined> {
  const roots = await runQmp(client, 'query-pci', {});
  let devices: QmpReply<'query-pci'>[number]['devices'] = roots.flatMap((root) => root.devices);
  for (let depth = 0; depth < 16 && devices.length > 0; depth++) {
    const found = devices.find(
      (device) => device.bus === at.bus && device.slot === at.slot && device.function === at.function,
    );
    // 0 means that the firmware has not numbered it yet.
    if (found !== undefined) return found.pci_bridge?.bus.secondary === 0 ? undefined : found.pci_bridge?.bus.secondary;
    devices = devices.flatMap((device) => device.pci_bridge?.devices ?? []);
  }
  return undefined;
}

/** A property of an object of QEMU; undefined if it has none of that name. Throws what `runQmp` does. */
export async function propertyOf(client: Monitor, path: string, name: string): Promise<unknown> {
  try {
    return await runQmp(client, 'qom-get', { path, property: name });
  } catch (error) {
    if (error instanceof QmpError) return undefined;
    throw error;
  }
}

function hex(value: number): string {
  return value.toString(16).padStart(2, '0');
}
