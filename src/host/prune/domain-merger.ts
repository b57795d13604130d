// Merges a layer of a running libvirt domain by libvirt: `blockcommit` of an intermediate layer, which copies and
// changes the layer above in one go, and keeps libvirt's view of the chain true. Between the two QEMU writes no cache
// back, and through libvirt nobody can make it. A QEMU that is killed in just these milliseconds, over a qcow2 base, is
// the danger of every blockcommit. Specification: virsh(1), blockcommit; QEMU qapi/block-core.json (block-commit).
import { setTimeout as sleep } from 'node:timers/promises';
import { Deadline } from '../../deadline.js';
import { BridgeError, DeadlineError, UsageError } from '../../errors.js';
import type { Monitor } from '../../qmp/monitor.js';
import type { Hypervisor } from '../vm/hypervisor.js';
import type { LibvirtAddress } from '../vm/libvirt/address.js';
import { LibvirtDomain } from '../vm/libvirt/domain.js';
import { Virsh } from '../vm/libvirt/virsh.js';
import { refuseMigration } from '../vm/migration.js';
import type { MergeLimits, Merger, MergeStep } from './merger.js';
import { diskOfStep, isInChain, refuseUnknown, type StepDisk } from './step-disk.js';

const ASK_MS = 30_000;
const ABORT_MS = 120_000;
const POLL_MS = 250;

export class DomainMerger implements Merger {
  readonly monitors: readonly Monitor[];
  readonly #domain: Hypervisor;
  readonly #virsh: Virsh;

  private constructor(domain: Hypervisor, virsh: Virsh) {
    this.#domain = domain;
    this.#virsh = virsh;
    this.monitors = [domain];
  }

  /** Throws an UnreachableError, `E_MONITOR` if it is shut off. */
  static async open(address: LibvirtAddress, timeoutMs: number): Promise<DomainMerger> {
    return new DomainMerger(await LibvirtDomain.open(address, { timeoutMs }), new Virsh(address));
  }

  async check(step: MergeStep): Promise<void> {
    await refuseMigration(this.#domain, 'nothing was pruned');
    await refuseUnknown(this.#domain, await this.#domain.disks());
    if ((await this.#disk(step)) !== undefined) return;
    const chain = `${step.above} over ${step.layer} over ${step.base.file}`;
    throw new UsageError('E_NOT_ACTIVE', `the VM does not run on ${chain}: start it from its newest overlays`);
  }

  /** Not apart from the change. */
  copy(): Promise<void> {
    return Promise.resolve();
  }

  async change(step: MergeStep, { limitMs, speed, signal, onProgress }: MergeLimits): Promise<void> {
    await refuseMigration(this.#domain, `${step.layer} is not merged`);
    const found = await this.#disk(step);
    if (found === undefined) throw new BridgeError('E_BLOCK_GRAPH', 'its layers are not all in the block graph');
    const target = found.disk.device;
    const deadline = new Deadline(limitMs);
    // A commit that an earlier prune began goes on in libvirt.
    if ((await this.#progress(target)) === undefined) {
      const rate = speed === undefined ? [] : ['--bytes', '--bandwidth', String(speed)];
      await this.#virsh.run('blockcommit', [target, '--top', found.layer, '--base', found.base, ...rate], ASK_MS);
    }
    for (;;) {
      const progress = await this.#progress(target);
      if (progress === undefined) break;
      onProgress(progress);
      if (signal.aborted || deadline.passed) {
        await this.#virsh.run('blockjob', [target, '--abort'], ABORT_MS).catch(() => undefined);
        signal.throwIfAborted();
        throw new DeadlineError(`the commit of ${step.layer}`, limitMs);
      }
      await sleep(POLL_MS);
    }
    if (await this.#isUsed(step)) {
      throw new BridgeError('E_JOB', `the commit of ${step.layer} ended, but the VM still uses it`);
    }
  }

  /** libvirt has closed it. */
  async forget(step: MergeStep): Promise<void> {
    if (await this.#isUsed(step)) throw new BridgeError('E_BLOCK_GRAPH', `the VM still runs on ${step.layer}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#virsh[Symbol.asyncDispose]();
    await this.#domain[Symbol.asyncDispose]();
  }

  async #disk(step: MergeStep): Promise<StepDisk | undefined> {
    return await diskOfStep(this.#domain, await this.#domain.disks(), step);
  }

  async #isUsed({ layer }: MergeStep): Promise<boolean> {
    return await isInChain(this.#domain, await this.#domain.disks(), layer);
  }

  /** Percents of the job that libvirt runs on the disk; undefined if there is none. */
  async #progress(target: string): Promise<number | undefined> {
    const text = await this.#virsh.run('blockjob', [target, '--raw'], ASK_MS);
    const number = (name: string): number => Number(new RegExp(`^\\s*${name}=(\\d+)$`, 'm').exec(text)?.[1] ?? NaN);
    const [current, end] = [number('cur'), number('end')];
    if (Number.isNaN(current)) return undefined;
    return end > 0 ? (100 * current) / end : 0;
  }
}
