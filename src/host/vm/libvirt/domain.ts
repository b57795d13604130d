// A running libvirt domain. Its disks are changed by libvirt's own commands, so that libvirt's view of the chain, and
// the domain's definition, stay true. Node names are QEMU's and libvirt's, and are asked for anew each time.
// Specification: virsh(1), snapshot-create-as and blockcommit.
import { withLimit } from '../../../deadline.js';
import { BridgeError, UsageError } from '../../../errors.js';
import type { VmDisk } from '../../../qmp/block-graph.js';
import type { QmpExecuteOptions, QmpVersion } from '../../../qmp/client.js';
import { diskName } from '../disk-choice.js';
import { parseImageName } from '../../../qmp/image-name.js';
import { backingNameOf } from '../backing-name.js';
import type { CutAction, Hypervisor, MergeLayer, MergeOptions, OpenOptions, VmDescription } from '../hypervisor.js';
import type { Overlay } from '../overlay.js';
import type { LibvirtAddress } from './address.js';
import { LibvirtBackups } from './backups.js';
import { disksOfDomain } from './disks.js';
import { refuseOtherHost } from './other-host.js';
import { describeDomain } from './describe-domain.js';
import { domainDisks } from './domain-xml.js';
import { mergeByLibvirt } from './merge.js';
import { LibvirtMonitor } from './monitor.js';
import { Virsh } from './virsh.js';

/** How long virsh waits for a cut which libvirt does not end. */
const LONGEST_CUT_MS = 300_000;
const ASK_MS = 30_000;

export class LibvirtDomain implements Hypervisor {
  readonly keepsNodeNames = false;
  // `snapshot-create-as` names the disk, and lays the overlay on whatever the disk uses by then.
  readonly cutProvesBase = false;
  readonly backups: LibvirtBackups;
  readonly #virsh: Virsh;
  readonly #monitor: LibvirtMonitor;
  /** The words for `snapshot-create-as` about the disks that are not cut. */
  #others: readonly string[] = [];
  #cutting: Promise<unknown> = Promise.resolve();

  private constructor(virsh: Virsh, monitor: LibvirtMonitor) {
    this.#virsh = virsh;
    this.#monitor = monitor;
    this.backups = new LibvirtBackups(virsh, monitor);
  }

  /** Throws what Virsh.run does, and a UsageError if the domain's images are on another host. */
  static async open(address: LibvirtAddress, options: OpenOptions): Promise<LibvirtDomain> {
    const virsh = new Virsh(address);
    try {
      if (options.onlyAsked !== true) await refuseOtherHost(virsh);
      return new LibvirtDomain(virsh, await LibvirtMonitor.open(virsh, options));
    } catch (error) {
      await virsh[Symbol.asyncDispose]();
      throw error;
    }
  }

  get path(): string {
    return this.#monitor.path;
  }

  get version(): QmpVersion {
    return this.#monitor.version;
  }

  async execute(command: string, args?: object, options?: QmpExecuteOptions): Promise<unknown> {
    return await this.#monitor.execute(command, args, options);
  }

  async disks(): Promise<readonly VmDisk[]> {
    return await disksOfDomain(this.#virsh, this.#monitor);
  }

  async describe(): Promise<VmDescription> {
    return await describeDomain(this.#virsh);
  }

  async whyNoOverlay(disk: VmDisk): Promise<string | undefined> {
    const known = domainDisks(await this.#virsh.run('dumpxml', [], ASK_MS));
    if (known.some(({ target, isTransient }) => isTransient === true && target === disk.device)) {
      return 'it is transient: libvirt throws its writes away, and makes no snapshot of it';
    }
    // `snapshot-create-as` has no word for a secret.
    if (disk.encryption !== undefined) return 'it is encrypted, and libvirt would lay an overlay in clear text on it';
    const { name = '' } = await backingNameOf(disk);
    const lost = parseImageName(name).options.filter((option) => !['offset', 'size'].includes(option));
    if (lost.length === 0) return undefined;
    return `libvirt could not start the domain from an overlay that names its ${lost.join(', ')}`;
  }

  /** libvirt opens the overlays itself, in the cut, and copies the bitmaps of its checkpoints. */
  async prepare(overlays: readonly Overlay[]): Promise<readonly string[]> {
    const known = domainDisks(await this.#virsh.run('dumpxml', [], ASK_MS));
    const lost = overlays.find(({ disk }) => !known.some(({ target }) => target === disk.device));
    if (lost !== undefined) {
      const message = `libvirt does not know disk ${diskName(lost.disk)} of ${this.path}: leave it out (--disk)`;
      throw new UsageError('E_DISK', message);
    }
    this.#others = known
      .filter(({ target }) => !overlays.some(({ disk }) => disk.device === target))
      .flatMap(({ target }) => ['--diskspec', `${target},snapshot=no`]);
    return [];
  }

  async cut(actions: readonly CutAction[], timeoutMs: number): Promise<void> {
    const targets = actions.flatMap((action) => (action.type === 'backup' ? [action.target] : []));
    if (targets.length > 0) {
      await this.#cutBy('backup-begin', timeoutMs, () => this.backups.begin(targets, LONGEST_CUT_MS));
      return;
    }
    const cut = actions.flatMap((action) => {
      if (action.type !== 'overlay') return [];
      const { disk, file } = action.overlay;
      return ['--diskspec', `${disk.device},snapshot=external,driver=qcow2,file=${file.replaceAll(',', ',,')}`];
    });
    const words = ['--disk-only', '--atomic', '--no-metadata', '--reuse-external', ...cut, ...this.#others];
    await this.#cutBy('snapshot-create-as', timeoutMs, async () => {
      await this.#virsh.run('snapshot-create-as', words, LONGEST_CUT_MS);
    });
  }

  async #cutBy(command: string, timeoutMs: number, run: () => Promise<void>): Promise<void> {
    // Not ended at the limit: libvirt would go on, and nobody would learn what came of it.
    const work = this.#monitor.logged(command, run);
    this.#cutting = work;
    work.catch(() => undefined);
    await withLimit(`${this.path}: virsh ${command}`, timeoutMs, work, 'unknown');
  }

  async cutIsOver(timeoutMs: number): Promise<void> {
    try {
      await withLimit(`${this.path}: the cut by virsh`, timeoutMs, this.#cutting, 'unknown');
    } catch (error) {
      // libvirt said no: then it is over, and QEMU tells what it came to.
      if (!(error instanceof BridgeError) || error.outcome !== 'none') throw error;
    }
  }

  /** libvirt itself ends a command to an agent that has closed its port. */
  watchAgentPort(): undefined {
    return undefined;
  }

  async merge(layer: MergeLayer, options: MergeOptions): Promise<void> {
    await mergeByLibvirt(this.#virsh, layer, options);
  }

  /** libvirt has closed it. */
  forget(): Promise<void> {
    return Promise.resolve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#virsh[Symbol.asyncDispose]();
  }
}
