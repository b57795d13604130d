// The cut by overlays: from one instant on the VM writes to them, and the layers below hold the state of that instant.
// Those layers are compared with the plan twice: right before the hold, so that nothing is cut that somebody else has
// changed since, and after the thaw, since a hypervisor that others command may have been changed in between.
import { CutError, describeError } from '../../errors.js';
import type { VmDisk } from '../../qmp/block-graph.js';
import type { ImageLayer } from '../../qmp/image-info.js';
import { keyOrName } from '../images/socket-owner.js';
import { diskName } from '../vm/disk-choice.js';
import type { CutHost } from '../vm/hypervisor.js';
import type { Overlay } from '../vm/overlay.js';
import type { Cut, CutFinding } from './cut.js';

export interface OverlayFinding extends CutFinding {
  /** The layers below the overlay, nearest first: the base, and those below it. */
  readonly chain: readonly ImageLayer[];
}

export function overlayCut(host: CutHost, overlays: readonly Overlay[]): Cut<OverlayFinding> {
  return {
    what: `the cut of ${overlays.length} disks`,
    async send(timeoutMs) {
      await host.cut(
        overlays.map((overlay) => ({ type: 'overlay' as const, overlay })),
        timeoutMs,
      );
    },
    async became(timeoutMs) {
      await host.cutIsOver(timeoutMs);
      const names = (await host.disks()).flatMap(({ file, backingFiles }) => [file, ...backingFiles]);
      const inUse = new Set(await Promise.all(names.map((name) => keyOrName(host.path, name))));
      const cut: string[] = [];
      for (const { file } of overlays) if (inUse.has(await keyOrName(host.path, file))) cut.push(file);
      if (cut.length === 0) return 'not cut';
      if (cut.length === overlays.length) return 'cut';
      throw new CutError('E_CUT', `the VM writes to ${cut.length} of ${overlays.length} overlays: ${cut.join(', ')}`, {
        outcome: 'unknown',
      });
    },
    async verify() {
      try {
        const disks = await host.disks();
        return await Promise.all(overlays.map(async (overlay) => await findingOf(host, overlay, disks)));
      } catch (error) {
        const doubt = `whether somebody else changed the disk before the cut could not be asked: ${describeError(error)}`;
        return overlays.map(({ disk }) => ({
          doubt: host.cutProvesBase ? undefined : doubt,
          isLost: false,
          chain: layersOf(disk),
        }));
      }
    },
  };
}

/** Throws a CutError if the disks are not what the overlays were made for. */
export async function checkUnchanged(host: CutHost, overlays: readonly Overlay[]): Promise<void> {
  const disks = await host.disks();
  for (const { disk } of overlays) {
    const now = disks.find((other) => isSameDevice(disk, other));
    const found = now === undefined ? 'it is gone' : `it is ${chainText(layersOf(now))}`;
    if (now?.node === disk.node && (await isChain(host, layersOf(now), layersOf(disk)))) continue;
    const message = `disk ${diskName(disk)} was changed by somebody else meanwhile: ${found}; nothing was cut`;
    throw new CutError('E_CHANGED', `${message}, try again`);
  }
}

async function findingOf(
  host: CutHost,
  { disk, file, baseName }: Overlay,
  disks: readonly VmDisk[],
): Promise<OverlayFinding> {
  const planned = layersOf(disk);
  const now = disks.find((other) => isSameDevice(disk, other));
  if (now === undefined) {
    // Unplugged since: what lies below the overlay can no longer be asked.
    return { doubt: 'the VM has no such disk any more', isLost: false, chain: planned };
  }
  const [top, ...below] = layersOf(now);
  if (top === undefined || !(await isFile(host, top.file, file))) {
    const doubt = `the VM writes to ${top?.file ?? 'nothing'}, expected ${file}: somebody else changed the disk meanwhile`;
    return { doubt, isLost: true, chain: planned };
  }
  if (await isChain(host, below, planned)) return { doubt: undefined, isLost: false, chain: planned };
  const doubt = `somebody else changed the disk before the cut: the overlay lies on ${chainText(below)}, but its header names ${baseName}: commit the set before the VM is shut off, or it starts without what lies between`;
  return { doubt, isLost: false, chain: below };
}

function isSameDevice(one: VmDisk, other: VmDisk): boolean {
  return one.qdev === undefined ? one.device === other.device : one.qdev === other.qdev;
}

function layersOf({ file, format, below }: VmDisk): ImageLayer[] {
  return [{ file, format }, ...below];
}

// Files are compared by what they are: a hypervisor may spell them in its own way.
async function isFile({ path }: CutHost, one: string, other: string): Promise<boolean> {
  return one === other || (await keyOrName(path, one)) === (await keyOrName(path, other));
}

async function isChain(host: CutHost, one: readonly ImageLayer[], other: readonly ImageLayer[]): Promise<boolean> {
  if (one.length !== other.length) return false;
  for (const [index, { file, format }] of one.entries()) {
    const layer = other[index];
    if (layer?.format !== format || !(await isFile(host, file, layer.file))) return false;
  }
  return true;
}

function chainText(layers: readonly ImageLayer[]): string {
  return layers.map(({ file, format }) => `${file} (${format})`).join(' over ') || 'nothing';
}
