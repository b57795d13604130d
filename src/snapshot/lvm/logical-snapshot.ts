// What classic and thin snapshots have in common: found by their names, mounted by their device's number (no udev is
// waited for), removed with patience: whoever probes a new device keeps it busy.
import { setTimeout as sleep } from 'node:timers/promises';
import { CutError, describeError } from '../../errors.js';
import { mapperName } from '../../linux/device-mapper.js';
import type { ProcessId } from '../../linux/process-stat.js';
import { mountOptions } from '../mount-options.js';
import type { MountSpec, Snapshot, SnapshotStatus } from '../providers/provider.js';
import type { Run } from '../program.js';
import type { Volume } from '../volume.js';
import { runOf, type LogicalVolume, type Lvm } from './lvm.js';
import type { LvmShell } from './shell.js';

const BUSY_LIMIT_MS = 15_000;
const BUSY_STEP_MS = 250;

/** What all snapshots of one provider use together. */
export interface LvmTools {
  readonly lvm: Lvm;
  readonly run: Run;
  /** Started with the first that is armed. */
  readonly shell: () => Promise<LvmShell>;
}

export abstract class LogicalSnapshot implements Snapshot {
  abstract readonly provider: string;
  abstract readonly cowBytes?: number;
  readonly volume: Volume;
  readonly underFreeze: boolean;
  protected readonly tools: LvmTools;
  protected readonly runId: string;
  protected readonly group: string;
  protected readonly origin: string;
  protected readonly own: string;
  protected shell: LvmShell | undefined;
  /** What LVM said at the cut, for the error if nothing came of it. */
  protected said = '';

  constructor(tools: LvmTools, parts: SnapshotParts) {
    this.tools = tools;
    this.volume = parts.volume;
    this.underFreeze = parts.underFreeze;
    this.runId = parts.run;
    this.group = parts.origin.vg_name;
    this.origin = parts.origin.lv_name;
    this.own = parts.own;
  }

  get name(): string {
    return `${this.group}/${this.own}`;
  }

  get worker(): ProcessId | undefined {
    return this.shell?.process;
  }

  protected get mapper(): string {
    return mapperName(this.group, this.own);
  }

  abstract arm(): Promise<void>;
  abstract cut(): Promise<void>;
  abstract status(): Promise<SnapshotStatus>;
  abstract extend(): Promise<boolean>;

  async mount(): Promise<MountSpec> {
    const made = await this.made();
    const { type } = this.volume;
    return { device: `/dev/dm-${made.lv_kernel_minor}`, type, ...mountOptions(type) };
  }

  /** The snapshot as LVM reports it. Throws a CutError if it is not one of this origin, or not active. */
  protected async made(): Promise<LogicalVolume> {
    const found = await this.tools.lvm.volume(this.group, this.own);
    if (found === undefined || found.origin !== this.origin)
      throw new CutError(
        'E_CUT',
        `no snapshot of ${this.group}/${this.origin} was made: ${this.said || 'LVM said nothing'}`,
      );
    if (found.lv_kernel_minor < 0) throw new CutError('E_CUT', `${this.name} is not active: ${this.said}`);
    return found;
  }

  /** The kernel's word on a device below /dev/mapper; undefined if there is no such. */
  protected async kernelStatus(mapper: string): Promise<string | undefined> {
    const { exitCode, stdout } = await this.tools.run(['dmsetup', 'status', mapper]);
    return exitCode === 0 ? stdout : undefined;
  }

  async remove(): Promise<void> {
    await removeVolume(this.tools.lvm, this.group, this.own, this.runId);
  }
}

export interface SnapshotParts {
  readonly run: string;
  readonly volume: Volume;
  readonly origin: LogicalVolume;
  readonly own: string;
  readonly underFreeze: boolean;
}

/** Removes a volume that carries our tag and the run's, if it is there. Throws a CutError if it stays in use. */
export async function removeVolume(lvm: Lvm, group: string, name: string, run: string): Promise<void> {
  for (let waitedMs = 0; ; waitedMs += BUSY_STEP_MS) {
    const found = await lvm.volume(group, name);
    if (found === undefined) return;
    if (runOf(found) !== run) throw new CutError('E_IN_USE', `${group}/${name} does not carry the tags of run ${run}`);
    try {
      await lvm.do('lvremove', '-y', '-f', `${group}/${name}`);
      return;
    } catch (cause) {
      if (waitedMs >= BUSY_LIMIT_MS)
        throw new CutError('E_IN_USE', `${group}/${name} cannot be removed: ${describeError(cause)}`, { cause });
    }
    await sleep(BUSY_STEP_MS);
  }
}
