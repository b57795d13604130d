// The cut by overlays: from one instant on the VM writes to them, and what they lie on holds the state of that instant.
// What lies there is compared with the plan twice: right before the hold, so that nothing is cut that somebody else has
// changed since, and after the thaw, since a hypervisor that others command may have been changed in between.
import { CutError } from '../../errors.js';
import type { VmDisk } from '../../qmp/block-graph.js';
import type { ImageLayer } from '../../qmp/image-info.js';
import { diskName } from '../vm/disk-choice.js';
import type { CutHost } from '../vm/hypervisor.js';
import type { Overlay } from '../vm/overlay.js';
import type { Cut, CutFinding } from './cut.js';

export interface OverlayFinding extends CutFinding {
  /** What lies below the overlay, nearest first: the base, and the layers below it. */
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
      const inUse = new Set((await host.disks()).flatMap(({ file, backingFiles }) => [file, ...backingFiles]));
      const cut = overlays.map(({ file }) => file).filter((file) => inUse.has(file));
      if (cut.length === 0) return 'not cut';
      if (cut.length === overlays.length) return 'cut';
      throw new CutError('E_CUT', `the VM writes to ${cut.length} of ${overlays.length} overlays: ${cut.join(', ')}`, {
        outcome: 'unknown',
      });
    },
    async verify() {
      const disks = await host.disks();
      return overlays.map((overlay) => findingOf(overlay, disks));
    },
  };
}

/** Throws a CutError if the disks are not what the overlays were made for. */
export async function checkUnchanged(host: CutHost, overlays: readonly Overlay[]): Promise<void> {
  const disks = await host.disks();
  for (const { disk } of overlays) {
    const now = disks.find((other) => isSameDevice(disk, other));
    const found = now === undefined ? 'it is gone' : `it is ${chainText(layersOf(now))}`;
    if (now?.node === disk.node && chainText(layersOf(now)) === chainText(layersOf(disk))) continue;
    const message = `disk ${diskName(disk)} was changed by somebody else meanwhile: ${found}; nothing was cut`;
    throw new CutError('E_CHANGED', `${message}, try again`);
  }
}

function findingOf({ disk, file, baseName }: Overlay, disks: readonly VmDisk[]): OverlayFinding {
  const planned = layersOf(disk);
  const now = disks.find((other) => isSameDevice(disk, other));
  if (now === undefined) {
    // Unplugged since: what lies below the overlay can no longer be asked.
    return { doubt: 'the VM has no such disk any more', isLost: false, chain: planned };
  }
  const [top, ...below] = layersOf(now);
  if (top?.file !== file) {
    const doubt = `the VM writes to ${top?.file ?? 'nothing'}, expected ${file}: somebody else changed the disk meanwhile`;
    return { doubt, isLost: true, chain: planned };
  }
  if (chainText(below) === chainText(planned)) return { doubt: undefined, isLost: false, chain: planned };
  const doubt = `somebody else changed the disk before the cut: the overlay lies on ${chainText(below)}, but its header names ${baseName}: commit the set before the VM is shut off, or it starts without what lies between`;
  return { doubt, isLost: false, chain: below };
}

function isSameDevice(one: VmDisk, other: VmDisk): boolean {
  return one.qdev === undefined ? one.device === other.device : one.qdev === other.qdev;
}

function layersOf({ file, format, below }: VmDisk): ImageLayer[] {
  return [{ file, format }, ...below];
}

function chainText(layers: readonly ImageLayer[]): string {
  return layers.map(({ file, format }) => `${file} (${format})`).join(' over ') || 'nothing';
}
