// A second stock qemu-ga in the guest, on a port of its own, as the peer of tests and benches: the fixture's must stay
// able to run commands while this one holds the guest, is stopped or is killed.
import type { QemuGuest } from '../../src/testing/index.js';

export interface StockAgent {
  /** The host's end of its channel. */
  readonly path: string;
  readonly pid: number;
}

/** Starts it on org.qemu.guest_agent.2. `hook` is its -F: a program that is told freeze or thaw. */
export async function startStockAgent(
  guest: QemuGuest,
  { hook }: { readonly hook?: string } = {},
): Promise<StockAgent> {
  const path = `${guest.dir}/stock.sock`;
  const name = 'org.qemu.guest_agent.2';
  const addr = { type: 'unix', data: { path } };
  const backend = { type: 'socket', data: { addr, server: true, wait: false } };
  await guest.monitor.execute('chardev-add', { id: 'stock', backend });
  const port = { driver: 'virtserialport', bus: 'serial0.0', nr: 3, chardev: 'stock', name, id: 'port-stock' };
  await guest.monitor.execute('device_add', port);
  await guest.exec(`mkdir -p /run/stock; until [ -e /dev/virtio-ports/${name} ]; do sleep 0.05; done`);
  const words = ['--method', 'virtio-serial', '--path', `/dev/virtio-ports/${name}`, '--statedir', '/run/stock'];
  const withHook = hook === undefined ? words : [...words, `-F${hook}`];
  const { pid } = await guest.start(['/usr/sbin/qemu-ga', ...withHook]);
  return { path, pid };
}
