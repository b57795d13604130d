// Merges a layer by qemu-img, with the VM shut off. `commit -d` leaves the layer as it is, so that the merge may be
// ended at any instant and done again. QEMU's locks keep a VM from starting on what is written to, and us from writing
// to what it has.
import { Deadline } from '../../deadline.js';
import { UnreachableError, UsageError } from '../../errors.js';
import { syncPath } from '../images/durable-file.js';
import { describeHolders, holdersOf } from '../images/image-file.js';
import { backingOf } from '../images/references.js';
import { runQemuImg } from '../images/qemu-img-task.js';
import { sameFile } from '../images/same-file.js';
import { openNames, whySecret } from '../sets/disk-layers.js';
import { definitionAt } from '../vm/definition.js';
import type { DomainPlace } from '../vm/place.js';
import { Virsh } from '../vm/libvirt/virsh.js';
import type { MergeLimits, Merger, MergeStep } from './merger.js';

const ASK_MS = 30_000;

export class ShutOffMerger implements Merger {
  readonly monitors = [];
  readonly #domains: readonly DomainPlace[];
  readonly #overlays: readonly string[];

  /** `domains`: the VM as libvirt knows it; `overlays`: of all its sets. */
  constructor(domains: readonly DomainPlace[], overlays: readonly string[]) {
    this.#domains = domains;
    this.#overlays = overlays;
  }

  async check({ base, layer, above, disk }: MergeStep): Promise<void> {
    const secret = await whySecret(disk);
    if (secret !== undefined) {
      const message = `nothing was pruned: ${secret}, and only QEMU has its secret: prune while the VM runs`;
      throw new UsageError('E_ENCRYPTED', message);
    }
    await openNames(disk);
    for (const file of [base.file, layer, above]) {
      const holders = await holdersOf(file);
      if (holders.length === 0) continue;
      const message = `no monitor of the VM answers, but ${file} is in use by ${describeHolders(holders)}`;
      throw new UsageError('E_IN_USE', `${message}: nothing was pruned; if the VM runs, say with --qmp where it is`);
    }
    for (const domain of this.#domains) await freeDefinition(domain, layer, this.#overlays);
    const found = await backingOf(layer);
    if (found !== undefined && (await sameFile(found, base.file))) return;
    throw new UsageError('E_NO_IMAGE', `${layer} lies on ${found ?? 'nothing'}, expected ${base.file}`);
  }

  async copy({ base, disk }: MergeStep, { limitMs, speed, signal, onProgress }: MergeLimits): Promise<void> {
    const rate = speed === undefined ? [] : ['-r', String(speed)];
    const args = ['commit', '-p', '-d', ...rate, (await openNames(disk)).overlay];
    await runQemuImg(args, { deadline: new Deadline(limitMs), signal, onProgress });
    await syncPath(base.file);
  }

  async change({ base, baseName, above }: MergeStep, { limitMs, signal }: MergeLimits): Promise<void> {
    // -u: what is read through it stays the same, since the base holds all of the layer by now.
    const args = ['rebase', '-u', '-f', 'qcow2', '-b', baseName, '-F', base.format, above];
    await runQemuImg(args, { deadline: new Deadline(limitMs), signal });
    await syncPath(above);
  }

  forget(): Promise<void> {
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}

/**
 * libvirt writes the chain into the definition; taken out of it, libvirt asks the headers. Throws a UsageError if the
 * definition still names the layer then, or if a state was saved with it.
 */
async function freeDefinition(domain: DomainPlace, layer: string, overlays: readonly string[]): Promise<void> {
  await using virsh = new Virsh(domain);
  const ask = async (command: string, ...words: string[]): Promise<string> => {
    try {
      return await virsh.run(command, words, ASK_MS);
    } catch (error) {
      // The domain was undefined since, or it was never more than a running one.
      if (error instanceof UnreachableError && error.code === 'E_MONITOR') return '';
      throw error;
    }
  };
  if (/^Managed save:\s+yes$/m.test(await ask('dominfo'))) {
    throw new UsageError('E_VM_STATE', `nothing was pruned: ${virsh.where} is saved (managed save): start it first`);
  }
  const isNamed = async (): Promise<boolean> => (await ask('dumpxml', '--inactive')).includes(layer);
  if (!(await isNamed())) return;
  // Each is put back as the same image, without what lies below it.
  const changes = overlays.map((file) => ({ from: file, to: file, format: 'qcow2' }));
  await definitionAt(domain).redefine(changes);
  if (!(await isNamed())) return;
  throw new UsageError('E_IN_USE', `nothing was pruned: the definition of ${virsh.where} names ${layer}`);
}
