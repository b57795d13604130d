// A snapshot of a classic logical volume. The room for what changes (COW) is a volume of its own, made while
// applications run: so a full group is known before anything is held, and the cut only hangs it under the origin.
import { CutError } from '../../errors.js';
import type { SnapshotStatus } from '../providers/provider.js';
import { classicStatus } from './device-status.js';
import { tagWords } from './lvm.js';
import { LogicalSnapshot, type LvmTools, type SnapshotParts } from './logical-snapshot.js';

/** By a half, as lvm.conf(5) shows it for snapshots. */
const GROWTH = 0.5;
/** While the guest is held its origin is written to by nobody; it is looked at again in a second. */
const EXTEND_WAITS_MS = 2_000;

export class ClassicSnapshot extends LogicalSnapshot {
  readonly provider = 'lvm';
  readonly cowBytes: number;

  constructor(tools: LvmTools, parts: SnapshotParts, cowBytes: number) {
    super(tools, parts);
    this.cowBytes = cowBytes;
  }

  async arm(): Promise<void> {
    const size = `${this.cowBytes}b`;
    // Its head must be zero, or what lies there is taken for a list of copied chunks.
    const words = ['-y', '-Zy', '-Wn', ...tagWords(this.runId, this.origin), '-n', this.own, '-L', size, this.group];
    const shell = this.tools.shell();
    // By the shell that cuts: so it has read by then what the cut needs, and no other program is started.
    const said = await shell.arm('lvcreate', ...words);
    this.tools.lvm.changed();
    // Said as the last thing, and only by an lvcreate that has done all it was to do.
    if (!said.includes(`"${this.own}" created`))
      throw new CutError('E_PROVIDER', `lvcreate ${words.join(' ')}: ${said || 'it said nothing'}`);
    this.shell = shell;
  }

  async cut(): Promise<void> {
    if (this.shell === undefined) throw new CutError('E_CUT', `${this.name} was not armed`);
    const origin = `${this.group}/${this.origin}`;
    this.tools.lvm.changed();
    this.said = await this.shell.cut('lvconvert', '-y', '-s', '-Zn', origin, `${this.group}/${this.own}`);
  }

  async status(): Promise<SnapshotStatus> {
    const line = await this.kernelStatus(this.mapper);
    return line === undefined ? { state: 'gone' } : classicStatus(line);
  }

  async extend(): Promise<boolean> {
    const found = await this.tools.lvm.volume(this.group, this.own);
    if (found === undefined || found.vg_free < found.vg_extent_size) return false;
    const bytes = Math.min(
      found.vg_free,
      Math.ceil((found.lv_size * GROWTH) / found.vg_extent_size) * found.vg_extent_size,
    );
    await this.tools.lvm.doAlone(EXTEND_WAITS_MS, 'lvextend', '-L', `+${bytes}b`, `${this.group}/${this.own}`);
    return true;
  }
}
