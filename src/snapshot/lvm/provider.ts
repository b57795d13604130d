// LVM as a provider: classic and thin volumes, found by the number of the device that is mounted.
import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { CutError } from '../../errors.js';
import { isLogicalVolume, mappedDevice } from '../../linux/device-mapper.js';
import { readText } from '../../linux/kernel-values.js';
import { cutsUnderFreeze } from '../kernels.js';
import { hasProgram, type Run } from '../program.js';
import type { Made, Probe, Provider, Revert, SizeWish, Snapshot } from '../providers/provider.js';
import type { Volume } from '../volume.js';
import { ClassicSnapshot } from './classic.js';
import { cowSizes, type Origin } from './cow-size.js';
import { Lvm, makerOf, ourTags, runOf, type Lock, type LogicalVolume } from './lvm.js';
import { removeVolume, type LvmTools, type SnapshotParts } from './logical-snapshot.js';
import { LvmShell } from './shell.js';
import { refuseFullPool, ThinSnapshot } from './thin.js';

const SECTOR_BYTES = 512;
/** A shell that is busy still ends by itself later: whoever waited for its cut was told. */
const CLOSE_LIMIT_MS = 5_000;
const REVERT_WAITS_MS = 30_000;
/** Of `lv_attr`: the state of a snapshot, and that of one whose room was used up (lvs(8)). */
const LOST_PLACE = 4;
const LOST = 'I';
/** What was written since a start that was just now says nothing of the hours to come. */
const SHORTEST_MEASURE_S = 3600;
/** A copy of these beside the original is taken for a part of it, and both are ruined. */
const NEVER_TWICE = new Set(['btrfs', 'bcachefs', 'zfs']);

interface LvmPlaces {
  readonly sysRoot?: string;
  readonly kernelRelease?: string;
}

/** Both kinds share what LVM is asked, and the shell that cuts. */
export function lvmProviders(
  run: Run,
  lock: Lock,
  { sysRoot = '/sys', kernelRelease = release() }: LvmPlaces = {},
): readonly Provider[] {
  let shell: LvmShell | undefined;
  const tools: LvmTools = {
    lvm: new Lvm(run, lock),
    run,
    sysRoot,
    shell: () => (shell ??= LvmShell.start()),
    endShell: async (limitMs) => (await shell?.end(limitMs)) ?? true,
  };
  const close = async (): Promise<void> => {
    await tools.endShell(CLOSE_LIMIT_MS);
  };
  return (['lvm-thin', 'lvm'] as const).map((name) => new LvmProvider(name, tools, close, { sysRoot, kernelRelease }));
}

class LvmProvider implements Provider {
  readonly name: 'lvm' | 'lvm-thin';
  readonly listsAll = true;
  readonly #tools: LvmTools;
  readonly #lvm: Lvm;
  readonly #places: Required<LvmPlaces>;
  /** May be called again. */
  readonly close: () => Promise<void>;

  constructor(name: 'lvm' | 'lvm-thin', tools: LvmTools, close: () => Promise<void>, places: Required<LvmPlaces>) {
    this.name = name;
    this.#tools = tools;
    this.#lvm = tools.lvm;
    this.#places = places;
    this.close = close;
  }

  async probe(volume: Volume): Promise<Probe> {
    const device = mappedDevice(this.#places.sysRoot, volume.device);
    if (device === undefined || !isLogicalVolume(device)) return no(`${volume.source} is no logical volume`);
    const origin = (await this.#lvm.all()).find(isOn(volume));
    if (origin === undefined) return no(`LVM lists no volume for ${volume.source} (${volume.device})`);
    const isThin = origin.segtype === 'thin';
    if (isThin !== (this.name === 'lvm-thin'))
      return no(`${origin.vg_name}/${origin.lv_name} is ${isThin ? '' : 'not '}thin`);
    if (volume.split !== undefined) return no(volume.split);
    if (NEVER_TWICE.has(volume.type)) return no(`a copy of a ${volume.type} must not be mounted beside it`);
    // A snapshot of a snapshot: LVM has it for thin volumes alone.
    if (!isThin && origin.origin !== '') return no(`it is itself a snapshot of ${origin.vg_name}/${origin.origin}`);
    return { fits: true, underFreeze: cutsUnderFreeze(this.#places.kernelRelease) };
  }

  async plan(run: string, volumes: readonly Volume[], wish: SizeWish): Promise<readonly Snapshot[]> {
    const all = await this.#lvm.all();
    const parts = volumes.map((volume, place): SnapshotParts => {
      const origin = find(all, volume);
      const underFreeze = cutsUnderFreeze(this.#places.kernelRelease);
      return { run, volume, origin, own: `fsb_${run}_${this.name === 'lvm' ? 'c' : 't'}${place}`, underFreeze };
    });
    return this.name === 'lvm' ? this.#planClassic(parts, wish) : this.#planThin(parts, all);
  }

  #planClassic(parts: readonly SnapshotParts[], wish: SizeWish): readonly Snapshot[] {
    const groups = [...new Set(parts.map(({ origin }) => origin.vg_name))];
    return groups.flatMap((group) => {
      const here = parts.filter(({ origin }) => origin.vg_name === group);
      const { vg_free: freeBytes = 0, vg_extent_size: extentBytes = SECTOR_BYTES } = here[0]?.origin ?? {};
      const sizes = cowSizes(
        here.map((part) => this.#measured(part)),
        wish,
        { freeBytes, extentBytes },
      );
      return here.map((part, place) => new ClassicSnapshot(this.#tools, part, sizes[place] ?? 0));
    });
  }

  #planThin(parts: readonly SnapshotParts[], all: readonly LogicalVolume[]): readonly Snapshot[] {
    return parts.map((part) => {
      const { vg_name, pool_lv } = part.origin;
      const pool = all.find((one) => one.vg_name === vg_name && one.lv_name === pool_lv);
      if (pool !== undefined) refuseFullPool(pool);
      return new ThinSnapshot(this.#tools, part);
    });
  }

  /** The average since it was activated, at most since the machine was started. */
  #measured({ origin, volume }: SnapshotParts): Origin {
    const fields = readText(`${this.#places.sysRoot}/dev/block/${volume.device}/stat`)?.trim().split(/\s+/);
    const sectors = Number(fields?.[6]);
    const writtenPerS = Number.isFinite(sectors) ? (sectors * SECTOR_BYTES) / uptimeS() : undefined;
    return { name: `${origin.vg_name}/${origin.lv_name}`, sizeBytes: origin.lv_size, writtenPerS };
  }

  async made(): Promise<readonly Made[]> {
    // Where LVM is not installed it has made nothing.
    if (!hasProgram('lvm')) return [];
    return (await this.#lvm.all()).flatMap((one) => {
      const run = runOf(one);
      const isThin = one.segtype === 'thin';
      if (run === undefined || isThin !== (this.name === 'lvm-thin')) return [];
      return [{ run, name: `${one.vg_name}/${one.lv_name}`, maker: makerOf(one) }];
    });
  }

  async removeLeft({ run, name }: Made): Promise<void> {
    const [group = '', own = ''] = name.split('/');
    await removeVolume(this.#tools, group, own, run);
  }

  async planRevert({ run, name }: Made): Promise<Revert> {
    const [group = '', own = ''] = name.split('/');
    const found = await this.#lvm.volume(group, own);
    if (found === undefined || runOf(found) !== run)
      throw new CutError('E_NO_RUN', `${name} is no snapshot of run ${run}`);
    if (found.origin === '') throw new CutError('E_NO_RUN', `${name} was not cut from anything`);
    if (found.lv_attr[LOST_PLACE] === LOST) throw new CutError('E_CUT', `${name} is lost: its room was used up`);
    return async () => {
      await this.#lvm.doAlone(REVERT_WAITS_MS, 'lvconvert', '-y', '--merge', '--background', name);
      // What merges must not be taken for left. Most of it is hidden by LVM, with its tags; and until the merge has
      // begun they are what gc finds it by.
      const merging = await this.#lvm.volume(group, own);
      if (merging !== undefined)
        await this.#lvm.do('lvchange', ...ourTags(merging).flatMap((tag) => ['--deltag', tag]), name);
      const origin = await this.#lvm.volume(group, found.origin);
      return origin?.lv_attr[5] === 'o' ? 'at-next-activation' : 'begun';
    };
  }
}

function isOn({ device }: Volume): (one: LogicalVolume) => boolean {
  return (one) => `${one.lv_kernel_major}:${one.lv_kernel_minor}` === device;
}

function find(all: readonly LogicalVolume[], volume: Volume): LogicalVolume {
  const { device, source } = volume;
  const found = all.find(isOn(volume));
  if (found === undefined) throw new CutError('E_PROVIDER', `LVM lists no volume for ${source} (${device})`);
  return found;
}

function uptimeS(): number {
  return Math.max(SHORTEST_MEASURE_S, Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]));
}

const no = (reason: string): Probe => ({ fits: false, reason });
