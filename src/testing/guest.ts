// A running guest of either kind, and all that a test does to it. qemu/qemu-guest.ts and user-mode/user-mode-guest.ts are
// the kinds. An ability that only one of them has is a capability that a test asks for.
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DeadlineError, UnreachableError, UsageError } from '../errors.js';
import type { Reverter } from '../reverter.js';
import { AgentChannel } from './agent-channel.js';
import { createBlank, type DiskFile, type GuestDisk } from './disks.js';
import { execInGuest, startInGuest, type ExecOptions, type ExecResult, type GuestProcess } from './guest-exec.js';
import { lastLines, removeFolder, type GuestPaths } from './guest-folder.js';
import { startPostgresLine, type GuestImage } from './guest-image.js';
import type { MachineProcess } from './machine-process.js';

/** Its sockets close a moment before its process ends. */
const END_SEEN_MS = 2_000;

export type GuestKind = 'qemu' | 'user-mode';

/** Abilities that only one kind has, and which one. */
const CAPABILITIES = {
  monitor: { kind: 'qemu', what: 'a QMP monitor' },
  'saved-states': { kind: 'qemu', what: 'saved states' },
  'virtio-serial': { kind: 'qemu', what: 'virtio-serial ports' },
  processors: { kind: 'qemu', what: 'more than one processor' },
  'disk-addresses': { kind: 'qemu', what: 'serial numbers and addresses of disks' },
  'paused-clock': { kind: 'qemu', what: 'a clock that stands still while the guest is paused' },
  ports: { kind: 'qemu', what: 'a network with forwarded ports' },
  kernels: { kind: 'user-mode', what: 'a choice of kernels' },
  'shared-folder': { kind: 'user-mode', what: "a folder of the host's" },
} as const satisfies Readonly<Record<string, { readonly kind: GuestKind; readonly what: string }>>;

export type Capability = keyof typeof CAPABILITIES;

/** Throws UsageError `E_CAPABILITY`, with the kind that has it, when guests of `kind` have not all of `needs`. */
export function requireCapabilities(kind: GuestKind, needs: readonly Capability[]): void {
  for (const need of needs) {
    const { kind: has, what } = CAPABILITIES[need];
    if (has !== kind) {
      throw new UsageError(
        'E_CAPABILITY',
        `a guest of kind ${kind} has not ${what} (${need}); boot one of kind ${has}`,
      );
    }
  }
}

export interface HotplugOptions {
  /** 1 to 20 of a-z 0-9 -, a letter first. */
  readonly name: string;
  readonly format?: DiskFile['format'];
  readonly readOnly?: boolean;
}

export abstract class Guest implements AsyncDisposable {
  abstract readonly kind: GuestKind;
  readonly image: GuestImage;
  /** Folder of this guest: sockets, disks, logs. Removed at disposal, unless FSB_INSPECT=1. */
  readonly dir: string;
  /** Host end of org.qemu.guest_agent.0, a unix socket: it belongs to the program under test. One client at a time. */
  readonly qgaPath: string;
  /** The file with all that the guest wrote to its console. */
  readonly consolePath: string;
  /** The stock qemu-ga on org.qemu.guest_agent.1: the channel of `exec`, and in benches the peer that is measured. */
  readonly stockAgent: AgentChannel;
  /** @internal */
  protected readonly attached: GuestDisk[];

  readonly #process: MachineProcess;
  readonly #atEnd: Reverter;

  /** @internal */
  protected constructor({ image, paths, disks, process, atEnd }: GuestParts) {
    this.image = image;
    this.dir = paths.dir;
    this.qgaPath = paths.qgaPath;
    this.consolePath = paths.consolePath;
    this.stockAgent = new AgentChannel(paths.execPath);
    this.attached = [...disks];
    this.#process = process;
    this.#atEnd = atEnd;
  }

  /** The process on the host that is the guest. */
  get pid(): number {
    return this.#process.pid;
  }

  /** True once it has ended, by whatever cause. */
  get isOver(): boolean {
    return this.#process.hasEnded();
  }

  /** Copies host files (or folders) into a folder of the guest, owned by root. Modes are kept, and links are copied as links. */
  abstract copyIn(sources: readonly string[], guestDirectory: string): Promise<void>;

  /** Attaches a disk and waits until the guest has its device. */
  abstract hotplugDisk(file: string, options: HotplugOptions): Promise<GuestDisk>;

  /** Detaches a disk that nothing in the guest uses, and closes its file. */
  abstract unplugDisk(name: string): Promise<void>;

  /** Stops the guest until `resume`. Its time stands still, too, only where there is a `paused-clock`. */
  abstract pause(): Promise<void>;

  abstract resume(): Promise<void>;

  /** The format of blank disks. @internal */
  protected abstract readonly blankFormat: DiskFile['format'];

  /** Throws UsageError `E_CAPABILITY` if guests of this kind have not all of them. */
  requires(...needs: readonly Capability[]): void {
    requireCapabilities(this.kind, needs);
  }

  /** The disks attached now, hot-plugged ones last. After a cut their files are the layers below the active ones. */
  get disks(): readonly GuestDisk[] {
    return this.attached;
  }

  /** The disk of this name. Throws UsageError when there is none. */
  disk(name: string): GuestDisk {
    const disk = this.attached.find(({ node }) => node === name);
    if (disk === undefined) {
      const names = this.attached.map(({ node }) => node).join(', ');
      throw new UsageError('E_NO_DISK', `no disk ${name}; there are ${names}`);
    }
    return disk;
  }

  /** Makes a blank disk in the guest's folder and attaches it. */
  async addBlankDisk(name: string, sizeMiB: number): Promise<GuestDisk> {
    const { file, format } = await createBlank(
      path.join(this.dir, `${name}.${this.blankFormat}`),
      sizeMiB,
      this.blankFormat,
    );
    return await this.hotplugDisk(file, { name, format });
  }

  /**
   * Runs a command to its end: an argument vector, or a line for /bin/sh. Throws BridgeError `E_GUEST_COMMAND` when it fails
   * (unless `check` is false), DeadlineError after its limit, UnreachableError with the console's last words if the guest
   * has ended.
   */
  async exec(command: string | readonly string[], options?: ExecOptions): Promise<ExecResult> {
    return await this.#orEnded(execInGuest(this.stockAgent, command, options));
  }

  /** Starts a command and leaves it running. */
  async start(command: string | readonly string[], { input }: { readonly input?: string } = {}): Promise<GuestProcess> {
    return await this.#orEnded(startInGuest(this.stockAgent, command, input));
  }

  /** What a closed channel means is known where it is that of a guest which is gone: a panic, a machine that broke. */
  async #orEnded<T>(call: Promise<T>): Promise<T> {
    try {
      return await call;
    } catch (cause) {
      if (!(cause instanceof UnreachableError)) throw cause;
      await Promise.race([this.#process.ended, sleep(END_SEEN_MS)]);
      if (!this.isOver) throw cause;
      const said = `console: ${await lastLines(this.consolePath)}; output: ${await this.#process.output()}`;
      throw new UnreachableError('E_GUEST_ENDED', `the guest has ended (${said})`, { cause, outcome: 'unknown' });
    }
  }

  /** Waits until commands can be run. Throws UnreachableError with the console's last words. */
  async waitForCommands(timeoutMs: number): Promise<void> {
    try {
      await this.stockAgent.waitForPing(timeoutMs);
    } catch (cause) {
      const said = await lastLines(this.consolePath);
      const message = `the guest did not come up within ${timeoutMs} ms; its console: ${said}`;
      throw new UnreachableError('E_GUEST_SILENT', message, { cause });
    }
  }

  /** Waits until systemd has started all it will start. Gives `running` or `degraded`, or throws UnreachableError. */
  async waitForSystem(timeoutMs = 120_000): Promise<string> {
    const { stdout } = await this.exec('systemctl is-system-running --wait', { timeoutMs, check: false });
    const state = stdout.trim();
    if (state !== 'running' && state !== 'degraded') {
      throw new UnreachableError('E_GUEST_STATE', `guest: expected running or degraded, found ${state}`);
    }
    return state;
  }

  /** Starts PostgreSQL, which is off in a guest that was booted, and waits until it accepts connections. */
  async startPostgres(timeoutMs = 120_000): Promise<void> {
    await this.exec(startPostgresLine(this.image), { timeoutMs });
  }

  /** Shuts the guest down cleanly and waits until it has ended. */
  async shutdown(timeoutMs = 60_000): Promise<void> {
    try {
      await this.exec(['/bin/systemctl', 'poweroff', '--no-block']);
    } catch (error) {
      // On a busy host it is gone before its agent was asked how that ended.
      if (!this.isOver) throw error;
    }
    await this.waitForEnd(timeoutMs);
  }

  /** Waits until it has ended by itself, at most `timeoutMs` (DeadlineError with the console's last lines). */
  async waitForEnd(timeoutMs: number): Promise<void> {
    try {
      await this.#process.waitForEnd(timeoutMs);
    } catch (cause) {
      throw new DeadlineError(`end of the guest (console: ${await lastLines(this.consolePath)})`, timeoutMs, { cause });
    }
    await this.#release();
  }

  /** Ends the guest as a power cut would. The folder stays until disposal. */
  async kill(): Promise<void> {
    await this.#process.kill();
    await this.#release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    await removeFolder(this.dir);
  }

  async #release(): Promise<void> {
    this.stockAgent.close();
    await this.#atEnd.revert();
  }
}

/** The parts that every guest is made of. @internal */
export interface GuestParts {
  readonly image: GuestImage;
  readonly paths: GuestPaths;
  readonly disks: readonly GuestDisk[];
  readonly process: MachineProcess;
  /** Run once when it has ended. */
  readonly atEnd: Reverter;
}

/** Throws UsageError `E_DISK_NAME` when a disk cannot be called so. */
export function checkDiskName(name: string): void {
  if (!/^[a-z][a-z0-9-]{0,19}$/.test(name)) {
    throw new UsageError('E_DISK_NAME', `disk name: expected 1 to 20 of a-z 0-9 -, a letter first, found ${name}`);
  }
}
