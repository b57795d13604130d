// A running guest: its handles, and what a test does to it. How it came up (boot or restore) is boot.ts's and
// saved-state.ts's matter; what its command line looks like, machine.ts's.
import { rm } from 'node:fs/promises';
import path from 'node:path';
import * as v from 'valibot';
import { DeadlineError, UnreachableError, UsageError } from '../errors.js';
import { Reverter } from '../reverter.js';
import { AgentChannel } from './agent-channel.js';
import {
  blockNodes,
  createBlank,
  createPayload,
  describeDisk,
  diskDevice,
  type DiskFile,
  type GuestDisk,
} from './disks.js';
import { execInGuest, startInGuest, type ExecOptions, type ExecResult, type GuestProcess } from './guest-exec.js';
import { lastLines, removeFolder, type GuestPaths } from './guest-folder.js';
import type { Machine } from './machine.js';
import type { Monitor } from './monitor.js';
import type { QemuProcess } from './qemu-process.js';

const Status = v.looseObject({ status: v.string() });

export class Guest implements AsyncDisposable {
  /** Folder of this guest: sockets, overlays, logs. Removed at disposal, unless FSB_INSPECT=1. */
  readonly dir: string;
  /** A monitor that nobody uses: it belongs to the program under test. */
  readonly qmpPath: string;
  /** Host end of org.qemu.guest_agent.0: it belongs to the program under test. */
  readonly qgaPath: string;
  /** What the guest wrote to its serial console. */
  readonly consolePath: string;
  /** QEMU's. */
  readonly pid: number;
  /** The loopback port of the host that leads to the guest's PostgreSQL: user demo, database demo, no password. */
  readonly postgresPort: number;
  /** The fixture's own monitor. */
  readonly monitor: Monitor;
  /** The stock qemu-ga on org.qemu.guest_agent.1: the channel of `exec`, and in benches the peer that is measured. */
  readonly stockAgent: AgentChannel;
  readonly machine: Machine;
  readonly #qemu: QemuProcess;
  readonly #disks: GuestDisk[];
  readonly #atEnd: Reverter;

  /** Use `bootGuest` or `restoreGuest`. */
  constructor(parts: GuestParts) {
    const { paths, machine, qemu, monitor, postgresPort, atEnd } = parts;
    this.dir = paths.dir;
    this.qmpPath = paths.qmpPath;
    this.qgaPath = paths.qgaPath;
    this.consolePath = paths.consolePath;
    this.pid = qemu.pid;
    this.postgresPort = postgresPort;
    this.monitor = monitor;
    this.stockAgent = new AgentChannel(paths.execPath);
    this.machine = machine;
    this.#qemu = qemu;
    this.#disks = [...machine.disks];
    this.#atEnd = atEnd;
  }

  /** The disks attached now, hot-plugged ones last. After a cut their files are the layers below the active ones. */
  get disks(): readonly GuestDisk[] {
    return this.#disks;
  }

  /** The disk of this name. Throws UsageError when there is none. */
  disk(name: string): GuestDisk {
    const disk = this.#disks.find(({ node }) => node === name);
    if (disk === undefined) {
      throw new UsageError('E_NO_DISK', `no disk ${name}; there are ${this.#disks.map(({ node }) => node).join(', ')}`);
    }
    return disk;
  }

  /** Runs a command to its end: an argument vector, or a line for /bin/sh. See ExecOptions for the limits and errors. */
  async exec(command: string | readonly string[], options?: ExecOptions): Promise<ExecResult> {
    return await execInGuest(this.stockAgent, command, options);
  }

  /** Starts a command and leaves it running. */
  async start(command: string | readonly string[], { input }: { readonly input?: string } = {}): Promise<GuestProcess> {
    return await startInGuest(this.stockAgent, command, input);
  }

  /** Copies host files (or folders) into a folder of the guest, by way of a payload disk. Modes are kept. */
  async copyIn(sources: readonly string[], guestDirectory: string): Promise<void> {
    const file = path.join(this.dir, 'payload.tar');
    await createPayload(file, sources);
    await this.hotplugDisk(file, { name: 'payload', format: 'raw', readOnly: true });
    try {
      await this.exec(['/bin/mkdir', '-p', guestDirectory]);
      const tar = ['/bin/tar', '-xf', '/dev/disk/by-id/virtio-payload', '-C', guestDirectory];
      await this.exec(tar, { timeoutMs: 120_000 });
    } finally {
      await this.unplugDisk('payload');
      await rm(file, { force: true });
    }
  }

  /** Attaches a disk and waits until the guest has its /dev/disk/by-id/virtio-NAME. */
  async hotplugDisk(
    file: string,
    {
      name,
      format = 'qcow2',
      readOnly = false,
    }: { readonly name: string; readonly format?: DiskFile['format']; readonly readOnly?: boolean },
  ): Promise<GuestDisk> {
    if (!/^[a-z][a-z0-9-]{0,19}$/.test(name)) {
      throw new UsageError('E_DISK_NAME', `disk name: expected 1 to 20 of a-z 0-9 -, a letter first, found ${name}`);
    }
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
    this.#disks.push(disk);
    const link = `/dev/disk/by-id/virtio-${name}`;
    await this.exec(`n=0; until [ -e ${link} ]; do n=$((n+1)); [ $n -lt 400 ] || exit 1; sleep 0.05; done`);
    return disk;
  }

  /** Makes a blank qcow2 in the guest's folder and attaches it. */
  async addBlankDisk(name: string, sizeMiB: number): Promise<GuestDisk> {
    const { file } = await createBlank(path.join(this.dir, `${name}.qcow2`), sizeMiB);
    return await this.hotplugDisk(file, { name });
  }

  /** Detaches a disk that nothing in the guest uses, and closes its file. */
  async unplugDisk(name: string): Promise<void> {
    const disk = this.disk(name);
    const gone = this.monitor.event('DEVICE_DELETED', 20_000, (data) => data['device'] === disk.device);
    const asked = this.monitor.execute('device_del', { id: disk.device });
    await Promise.all([gone, asked]);
    for (const node of blockNodes(disk).reverse()) {
      await this.monitor.execute('blockdev-del', { 'node-name': node['node-name'] });
    }
    this.#disks.splice(this.#disks.indexOf(disk), 1);
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

  /** Waits until systemd has started all it will start. Gives `running` or `degraded`. */
  async waitForSystem(timeoutMs = 120_000): Promise<string> {
    const { stdout } = await this.exec('systemctl is-system-running --wait', { timeoutMs, check: false });
    const state = stdout.trim();
    if (state !== 'running' && state !== 'degraded') {
      throw new UnreachableError('E_GUEST_STATE', `guest: expected running or degraded, found ${state}`);
    }
    return state;
  }

  /** Waits until PostgreSQL accepts connections. */
  async waitForPostgres(timeoutMs = 60_000): Promise<void> {
    await this.exec('until /usr/lib/postgresql/15/bin/pg_isready -q -h 127.0.0.1; do sleep 0.1; done', { timeoutMs });
  }

  /** Shuts the guest down cleanly and waits until QEMU has ended. */
  async shutdown(timeoutMs = 60_000): Promise<void> {
    await this.exec(['/bin/systemctl', 'poweroff', '--no-block']);
    try {
      await this.#qemu.waitForEnd(timeoutMs);
    } catch (cause) {
      throw new DeadlineError(`shutdown of the guest (console: ${await lastLines(this.consolePath)})`, timeoutMs, {
        cause,
      });
    }
    await this.#release();
  }

  /** QEMU has ended, however. */
  get isOver(): boolean {
    return this.#qemu.hasEnded();
  }

  /** Ends QEMU as a power cut would. The folder stays until disposal. */
  async kill(): Promise<void> {
    await this.#qemu.kill();
    await this.#release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    await removeFolder(this.dir);
  }

  async #release(): Promise<void> {
    this.stockAgent.close();
    this.monitor.close();
    await this.#atEnd.revert();
  }
}

export interface GuestParts {
  readonly paths: GuestPaths;
  readonly machine: Machine;
  readonly qemu: QemuProcess;
  readonly monitor: Monitor;
  readonly postgresPort: number;
  /** Run once when QEMU has ended. */
  readonly atEnd: Reverter;
}
