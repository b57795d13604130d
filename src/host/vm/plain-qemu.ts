// A VM of plain QEMU, whose monitor is ours. The cut is one QMP transaction: QEMU drains all I/O first, and rolls
// everything back on any error. Specification: QEMU qapi/transaction.json, block-core.json.
import { readDisks, type VmDisk } from '../../qmp/block-graph.js';
import { QmpClient, type QmpConnectOptions, type QmpExecuteOptions } from '../../qmp/client.js';
import { runQmp, type TransactionAction } from '../../qmp/commands.js';
import { dismissJob, findJob } from '../../qmp/jobs.js';
import type { Reverter } from '../../reverter.js';
import { watchAgentPort, type PortWatch } from './agent-port.js';
import { diskName } from './disk-choice.js';
import type { CutAction, Hypervisor, MergeLayer, MergeOptions, VmDescription } from './hypervisor.js';
import type { Overlay } from './overlay.js';
import { PlainBackups } from './plain-backups.js';
import { bitmapsToOverlay } from './plain-bitmaps.js';
import { addNode, checkAdded, nodeIsThere, whyNoEncryption } from './plain-nodes.js';
import { mergeByJob } from './plain-merge.js';

/** What a QEMU is asked for that has the images of a VM which is shut off. */
export interface StandsIn {
  /** They are those of a libvirt domain: its checkpoints are in them. */
  readonly forLibvirt: boolean;
  /** It has them open for reading alone, where the VM would write to them. */
  readonly readOnly: boolean;
}

const itself: StandsIn = { forLibvirt: false, readOnly: false };

export class PlainQemu implements Hypervisor {
  readonly keepsNodeNames = true;
  // The transaction names the base's node, which stays the same file for as long as a disk uses it, and QEMU refuses to
  // lay a second overlay on it.
  readonly cutProvesBase = true;
  readonly backups: PlainBackups;
  readonly #client: QmpClient;
  /** Actions that are sent along with the cut. */
  #bitmaps: readonly TransactionAction[] = [];

  readonly #readOnly: boolean;

  private constructor(client: QmpClient, { forLibvirt, readOnly }: StandsIn) {
    this.#client = client;
    this.#readOnly = readOnly;
    this.backups = new PlainBackups(client, forLibvirt);
  }

  /** `standsIn`: for a VM that is shut off. Throws what QmpClient.connect does. */
  static async connect(path: string, options: QmpConnectOptions, standsIn = itself): Promise<PlainQemu> {
    return new PlainQemu(await QmpClient.connect(path, options), standsIn);
  }

  get path(): string {
    return this.#client.path;
  }

  get version(): QmpClient['version'] {
    return this.#client.version;
  }

  async execute(command: string, args?: object, options?: QmpExecuteOptions): Promise<unknown> {
    return await this.#client.execute(command, args, options);
  }

  async disks(): Promise<readonly VmDisk[]> {
    const disks = await readDisks(this.#client);
    return this.#readOnly ? disks.map((disk) => ({ ...disk, readOnly: false })) : disks;
  }

  /** Nothing: the command line is known to whoever started the VM. */
  describe(): Promise<VmDescription> {
    return Promise.resolve({ texts: [], folders: [] });
  }

  async whyNoOverlay(disk: VmDisk): Promise<string | undefined> {
    return await whyNoEncryption(this.#client, disk);
  }

  async prepare(overlays: readonly Overlay[], reverter: Reverter, signal: AbortSignal): Promise<readonly string[]> {
    for (const overlay of overlays) {
      signal.throwIfAborted();
      await addNode(this.#client, overlay, reverter);
    }
    await checkAdded(this.#client, overlays);
    const bitmaps: TransactionAction[] = [];
    const notes: string[] = [];
    for (const { disk, node } of overlays) {
      const { actions, busy } = await bitmapsToOverlay(this.#client, disk.node, node);
      bitmaps.push(...actions);
      notes.push(...busy.map((name) => leftBelow(disk, name)));
    }
    this.#bitmaps = bitmaps;
    return notes;
  }

  async cut(actions: readonly CutAction[], timeoutMs: number): Promise<void> {
    const transaction = actions.flatMap((action): TransactionAction[] => {
      if (action.type === 'backup') return this.backups.actions(action.target);
      const { disk, node } = action.overlay;
      return [{ type: 'blockdev-snapshot', data: { node: disk.node, overlay: node } }];
    });
    await runQmp(this.#client, 'transaction', { actions: [...transaction, ...this.#bitmaps] }, { timeoutMs });
  }

  async cutIsOver(timeoutMs: number): Promise<void> {
    // Answered only after the transaction: the monitor runs one command after the other.
    await runQmp(this.#client, 'query-status', {}, { timeoutMs });
  }

  watchAgentPort(agentAddress: string): PortWatch {
    return watchAgentPort(this.#client, agentAddress);
  }

  async merge(layer: MergeLayer, options: MergeOptions): Promise<void> {
    await mergeByJob(this.#client, layer, options);
  }

  async forget(overlayNode: string | undefined, jobId: string | undefined): Promise<void> {
    const client = this.#client;
    if (jobId !== undefined && (await findJob(client, jobId)) !== undefined) await dismissJob(client, jobId);
    if (overlayNode === undefined) return;
    try {
      await runQmp(client, 'blockdev-del', { 'node-name': overlayNode });
    } catch (error) {
      // A VM started from the overlay made the node by itself: it went with the job.
      if (await nodeIsThere(client, overlayNode)) throw error;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#client.close();
    return Promise.resolve();
  }
}

function leftBelow(disk: VmDisk, name: string): string {
  const where = `dirty bitmap ${name} of disk ${diskName(disk)} is in use by a job or an export, and could not be copied`;
  return `${where}: its program does not find it on the overlay, but on the base again once the set is committed`;
}
