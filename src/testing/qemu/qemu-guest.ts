// A guest in QEMU: a whole machine, with a monitor, virtio-serial ports, saved states. boot-qemu.ts boots it, saved-state.ts
// restores it, machine.ts has its command line.
import { rm } from 'node:fs/promises';
import path from 'node:path';
import * as v from 'valibot';
import { UsageError } from '../../errors.js';
import type { QmpClient } from '../../qmp/client.js';
import { Reverter } from '../../reverter.js';
import { blockNodes, createPayload, describeDisk, diskDevice, type GuestDisk } from '../disks.js';
import { checkDiskName, Guest, type GuestParts, type HotplugOptions } from '../guest.js';
import type { Machine } from './machine.js';

const Status = v.looseObject({ status: v.string() });

export class QemuGuest extends Guest {
  readonly kind = 'qemu';
  /** The socket of a monitor that nobody uses: it belongs to the program under test. */
  readonly qmpPath: string;
  /** A monitor of the fixture's own, beside the one under test. */
  readonly monitor: QmpClient;
  /** @internal */
  readonly machine: Machine;
  /** @internal */
  protected readonly blankFormat = 'qcow2';
  readonly #ports: ReadonlyMap<number, number>;

  /** Use `bootGuest` or `restoreGuest`. @internal */
  constructor(parts: QemuGuestParts) {
    super({ ...parts, disks: parts.machine.disks });
    this.qmpPath = parts.paths.qmpPath;
    this.monitor = parts.monitor;
    this.machine = parts.machine;
    this.#ports = parts.ports;
  }

  /**
   * The port on the host's loopback that leads to this port of the guest. Throws UsageError when the image forwards none
   * there.
   */
  port(guestPort: number): number {
    const port = this.#ports.get(guestPort);
    if (port === undefined) {
      throw new UsageError('E_PORT', `port ${guestPort}: expected one of ${[...this.#ports.keys()].join(', ')}`);
    }
    return port;
  }

  /** Leads to the guest's PostgreSQL: user demo, database demo, no password. */
  get postgresPort(): number {
    return this.port(5432);
  }

  /** Copies through a payload disk that is plugged in for it. */
  async copyIn(sources: readonly string[], guestDirectory: string): Promise<void> {
    const file = path.join(this.dir, 'payload.tar');
    await createPayload(file, sources);
    const { path: device } = await this.hotplugDisk(file, { name: 'payload', format: 'raw', readOnly: true });
    try {
      await this.exec(['/bin/mkdir', '-p', guestDirectory]);
      await this.exec(['/bin/tar', '-xf', device, '-C', guestDirectory], { timeoutMs: 120_000 });
    } finally {
      await this.unplugDisk('payload');
      await rm(file, { force: true });
    }
  }

  async hotplugDisk(file: string, { name, format = 'qcow2', readOnly = false }: HotplugOptions): Promise<GuestDisk> {
    checkDiskName(name);
    const disk = await describeDisk(name, { file, format }, { readOnly });
    await using undo = new Reverter();
    for (const node of blockNodes(disk)) {
      await this.monitor.execute('blockdev-add', node);
      undo.push(`block node ${String(node['node-name'])}`, async () => {
        await this.monitor.execute('blockdev-del', { 'node-name': node['node-name'] });
      });
    }
    await this.monitor.execute('device_add', diskDevice(disk));
    undo.keep();
    this.attached.push(disk);
    await this.exec(`n=0; until [ -e ${disk.path} ]; do n=$((n+1)); [ $n -lt 400 ] || exit 1; sleep 0.05; done`);
    return disk;
  }

  async unplugDisk(name: string): Promise<void> {
    const disk = this.disk(name);
    using deleted = this.monitor.listen('DEVICE_DELETED', ({ data }) => data['device'] === disk.device);
    await this.monitor.execute('device_del', { id: disk.device });
    await deleted.next(20_000);
    for (const node of blockNodes(disk).reverse()) {
      await this.monitor.execute('blockdev-del', { 'node-name': node['node-name'] });
    }
    this.attached.splice(this.attached.indexOf(disk), 1);
  }

  /** Stops the virtual CPUs; time stands still in the guest. */
  async pause(): Promise<void> {
    await this.monitor.execute('stop');
  }

  async resume(): Promise<void> {
    await this.monitor.execute('cont');
  }

  /** Sets the guest's clock to the host's (after a restore it is that of the save). */
  async setClock(): Promise<void> {
    await this.exec(['/bin/date', '-s', `@${(Date.now() / 1000).toFixed(3)}`]);
  }

  /** QEMU's run state: `running`, `paused`, `inmigrate` ... */
  async runState(): Promise<string> {
    return v.parse(Status, await this.monitor.execute('query-status')).status;
  }
}

/** @internal */
export interface QemuGuestParts extends Omit<GuestParts, 'disks'> {
  readonly machine: Machine;
  /** Closed by `atEnd`. */
  readonly monitor: QmpClient;
  /** Port of the guest to port of the host's loopback. */
  readonly ports: ReadonlyMap<number, number>;
}
