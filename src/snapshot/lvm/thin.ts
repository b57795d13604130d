// A snapshot of a thin volume: the cut is one message to its pool, and it has no room of its own. It is activated once
// applications run again. A pool that runs full would stop the origin's writes, so one with little room is refused.
import { CutError } from '../../errors.js';
import type { MountSpec, SnapshotStatus } from '../providers/provider.js';
import { mapperName } from '../../linux/device-mapper.js';
import { poolStatus } from './device-status.js';
import { tagWords, type LogicalVolume } from './lvm.js';
import { LogicalSnapshot, type LvmTools, type SnapshotParts } from './logical-snapshot.js';

/** Fuller than this a pool gets no snapshot, in percent. */
const FULLEST_DATA_PERCENT = 90;
const FULLEST_METADATA_PERCENT = 95;

/** Throws a CutError if the pool has too little room for what will change. */
export function refuseFullPool({ vg_name, lv_name, data_percent, metadata_percent }: LogicalVolume): void {
  const full = [
    ['data', data_percent, FULLEST_DATA_PERCENT],
    ['metadata', metadata_percent, FULLEST_METADATA_PERCENT],
  ] as const;
  for (const [what, percent, most] of full)
    if ((percent ?? 0) > most)
      throw new CutError(
        'E_NO_SPACE',
        `thin pool ${vg_name}/${lv_name}: expected at most ${most} % of its ${what} in use, found ${percent ?? 0} %`,
      );
}

export class ThinSnapshot extends LogicalSnapshot {
  readonly provider = 'lvm-thin';
  declare readonly cowBytes?: never;
  readonly #pool: string;

  constructor(tools: LvmTools, parts: SnapshotParts) {
    super(tools, parts);
    this.#pool = parts.origin.pool_lv;
  }

  async arm(): Promise<void> {
    const shell = this.tools.shell();
    await shell.read();
    this.shell = shell;
  }

  async cut(): Promise<void> {
    if (this.shell === undefined) throw new CutError('E_CUT', `${this.name} was not armed`);
    const origin = `${this.group}/${this.origin}`;
    const words = ['-y', '-an', '-kn', '-s', ...tagWords(this.runId, this.origin), '-n', this.own, origin];
    this.tools.lvm.changed();
    this.said = await this.shell.cut('lvcreate', ...words);
  }

  override async mount(): Promise<MountSpec> {
    await this.tools.lvm.do('lvchange', '-ay', '-K', this.name).catch((error: unknown) => {
      // Without the cut there is nothing to activate, and what LVM said then tells more.
      this.said ||= error instanceof Error ? error.message : '';
    });
    return await super.mount();
  }

  async status(): Promise<SnapshotStatus> {
    const own = await this.kernelStatus(this.mapper);
    if (own === undefined) return { state: 'gone' };
    if (/\bFail\b/.test(own)) return { state: 'lost' };
    const pool = await this.kernelStatus(`${mapperName(this.group, this.#pool)}-tpool`);
    return pool === undefined ? { state: 'gone' } : poolStatus(pool);
  }

  // Its room is the pool's, which others share: the administrator's to extend.
  async extend(): Promise<boolean> {
    return await Promise.resolve(false);
  }
}
