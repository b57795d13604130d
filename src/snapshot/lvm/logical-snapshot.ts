// What classic and thin snapshots have in common: found by their names, mounted by their device's number (no udev is
// waited for), removed with patience: whoever probes a new device keeps it busy.
import { setTimeout as sleep } from 'node:timers/promises';
import { Deadline } from '../../deadline.js';
import { CutError, describeError } from '../../errors.js';
import { mapperName } from '../../linux/device-mapper.js';
import type { ProcessId } from '../../linux/process-stat.js';
import { mountOptions } from '../mount-options.js';
import type { MountSpec, Snapshot, SnapshotStatus } from '../providers/provider.js';
import type { Run } from '../program.js';
import { resumeSuspended, suspendedOf } from '../suspended.js';
import type { Volume } from '../volume.js';
import { originOf, runOf, type LogicalVolume, type Lvm } from './lvm.js';
import type { LvmShell } from './shell.js';

const BUSY_LIMIT_MS = 15_000;
const BUSY_STEP_MS = 250;
/** So long a removal waits for whoever holds the guest. */
const HELD_LIMIT_MS = 90_000;
/** No change leaves a device suspended for as long. */
const SUSPENDED_MS = 1_000;

/** What all snapshots of one provider use together. */
export interface LvmTools {
  readonly lvm: Lvm;
  readonly run: Run;
  readonly sysRoot: string;
  /** Started with the first that is armed. */
  readonly shell: () => LvmShell;
  /** Ends the shell, if there is one: as LvmShell.end(). */
  readonly endShell: (limitMs: number) => Promise<boolean>;
}

export abstract class LogicalSnapshot implements Snapshot {
  abstract readonly provider: string;
  abstract readonly cowBytes?: number;
  readonly volume: Volume;
  readonly underFreeze: boolean;
  readonly waitsForUdev = false;
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

  async disarm(limitMs: number): Promise<boolean> {
    return await this.tools.endShell(limitMs);
  }

  async mount(): Promise<MountSpec> {
    const made = await this.made();
    const { type } = this.volume;
    return { device: `/dev/dm-${made.lv_kernel_minor}`, type, ...mountOptions(type) };
  }

  /** The snapshot as LVM reports it. Throws a CutError if it is not one of this origin, or not active. */
  protected async made(): Promise<LogicalVolume> {
    // All of a set are looked up at once: to start an lvm for each takes longer than all that they tell.
    const all = await this.tools.lvm.all();
    const found = all.find(({ vg_name, lv_name }) => vg_name === this.group && lv_name === this.own);
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
    await removeVolume(this.tools, this.group, this.own, this.runId);
  }
}

export interface SnapshotParts {
  readonly run: string;
  readonly volume: Volume;
  readonly origin: LogicalVolume;
  readonly own: string;
  readonly underFreeze: boolean;
}

/**
 * Requester and lvm both died within a cut: its origin hangs. LVM has just told of the volumes of its group, so that no
 * command of its own is changing that; and what stays suspended for a while is nobody's change.
 */
async function resumeLeft(
  { run: runProgram, sysRoot }: LvmTools,
  origin: LogicalVolume | undefined,
  run: string,
): Promise<void> {
  if (origin === undefined || origin.lv_kernel_minor < 0) return;
  const volume = { device: `${origin.lv_kernel_major}:${origin.lv_kernel_minor}`, run };
  const end = new Deadline(SUSPENDED_MS);
  while (suspendedOf(sysRoot, volume).length > 0) {
    if (end.passed) await resumeSuspended(runProgram, sysRoot, volume);
    else await sleep(BUSY_STEP_MS);
  }
}

/** Removes a volume that carries our tag and the run's, if it is there. Throws a CutError if it stays in use. */
export async function removeVolume(tools: LvmTools, group: string, name: string, run: string): Promise<void> {
  const { lvm } = tools;
  const deadline = new Deadline(BUSY_LIMIT_MS);
  for (;;) {
    // Asked once for both: to start an lvm takes longer than all that it tells.
    const inGroup = await lvm.group(group);
    const find = (wanted: string | undefined) => inGroup.find(({ lv_name }) => lv_name === wanted);
    const found = find(name);
    if (found === undefined) return;
    if (runOf(found) !== run) throw new CutError('E_IN_USE', `${group}/${name} does not carry the tags of run ${run}`);
    await resumeLeft(tools, find(originOf(found)), run);
    try {
      // What was not hung under its origin goes without a touch of that.
      if (found.origin === '') await lvm.do('lvremove', '-y', '-f', `${group}/${name}`);
      else await lvm.doAlone(HELD_LIMIT_MS, 'lvremove', '-y', '-f', `${group}/${name}`);
      return;
    } catch (cause) {
      if (deadline.passed)
        throw new CutError('E_IN_USE', `${group}/${name} cannot be removed: ${describeError(cause)}`, { cause });
    }
    await sleep(BUSY_STEP_MS);
  }
}
