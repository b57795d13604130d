// The cut by backup jobs: from one instant on each disk's state goes to its target, while the guest writes on, and a new
// checkpoint of each disk records what it writes. Nothing of the VM's own images changes. That the VM still used the
// disks that were planned is looked at before the hold (checkDisks), and told of after the thaw.
import { CutError, describeError } from '../../errors.js';
import type { VmDisk } from '../../qmp/block-graph.js';
import { diskName } from '../vm/disk-choice.js';
import type { BackupHost, BackupTarget, CutHost } from '../vm/hypervisor.js';
import type { Cut, CutFinding } from './cut.js';

export function backupCut(host: CutHost, backups: BackupHost, targets: readonly BackupTarget[]): Cut {
  return {
    what: `the cut of ${targets.length} disks`,
    async send(timeoutMs) {
      await host.cut(
        targets.map((target) => ({ type: 'backup' as const, target })),
        timeoutMs,
      );
    },
    async became(timeoutMs) {
      await host.cutIsOver(timeoutMs);
      const begun = await backups.begun(targets);
      if (begun.length === 0) return 'not cut';
      if (begun.length === targets.length) return 'cut';
      const message = `${begun.length} of ${targets.length} jobs were begun`;
      throw new CutError('E_CUT', message, { outcome: 'unknown' });
    },
    async verify() {
      try {
        const disks = await host.disks();
        return targets.map(({ disk }) => findingOf(disk, disks));
      } catch (error) {
        const doubt = `whether the VM still used the disk could not be asked: ${describeError(error)}`;
        return targets.map(() => ({ doubt, isLost: false }));
      }
    },
  };
}

/** Throws a CutError if the VM's disks are not those that are to be cut. */
export async function checkDisks(host: CutHost, targets: readonly BackupTarget[]): Promise<void> {
  const disks = await host.disks();
  for (const { disk } of targets) {
    const why = whyOther(disk, disks);
    if (why === undefined) continue;
    throw new CutError('E_CHANGED', `disk ${diskName(disk)} was changed by somebody else meanwhile: ${why}; try again`);
  }
}

function findingOf(disk: VmDisk, disks: readonly VmDisk[]): CutFinding {
  const why = whyOther(disk, disks);
  if (why === undefined) return { doubt: undefined, isLost: false };
  // The job copies the node it was given. If the VM writes to another one now, it may have done so at the cut already.
  const now = deviceNow(disk, disks);
  return { doubt: `somebody else changed the disk: ${why}`, isLost: now !== undefined && now.node !== disk.node };
}

function whyOther(disk: VmDisk, disks: readonly VmDisk[]): string | undefined {
  const now = deviceNow(disk, disks);
  if (now === undefined) return 'the VM has no such disk any more';
  if (now.node !== disk.node) return `the VM writes to ${now.file} (${now.node}), expected ${disk.file} (${disk.node})`;
  if (now.virtualSize === disk.virtualSize) return undefined;
  return `it has ${now.virtualSize} bytes, expected ${disk.virtualSize}`;
}

function deviceNow({ qdev, device }: VmDisk, disks: readonly VmDisk[]): VmDisk | undefined {
  return disks.find((other) => (qdev === undefined ? other.device === device : other.qdev === qdev));
}
