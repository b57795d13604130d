// A VM of plain QEMU, whose monitor is ours. The cut is one QMP transaction: QEMU drains all I/O first, and rolls
// everything back on any error. Specification: QEMU qapi/transaction.json, block-core.json.
import { readDisks, type VmDisk } from '../../qmp/block-graph.js';
import { QmpClient, type QmpConnectOptions, type QmpExecuteOptions } from '../../qmp/client.js';
import { runQmp, type TransactionAction } from '../../qmp/commands.js';
import { dismissJob, findJob } from '../../qmp/jobs.js';
import type { Reverter } from '../../reverter.js';
import { watchAgentPort, type PortWatch } from './agent-port.js';
import type { CutAction, Hypervisor, MergeLayer, MergeOptions, VmDescription } from './hypervisor.js';
import type { Overlay } from './overlay.js';
import { PlainBackups } from './plain-backups.js';
import { bitmapsToOverlay } from './plain-bitmaps.js';
import { addNode, checkAdded, nodeIsThere, whyNoEncryption } from './plain-nodes.js';
import { mergeByJob } from './plain-merge.js';

export class PlainQemu implements Hypervisor {
  readonly keepsNodeNames = true;
  // The transaction names the base's node, which stays the same file for as long as a disk uses it, and QEMU refuses to
  // lay a second overlay on it.
  readonly cutProvesBase = true;
  readonly backups: PlainBackups;
  readonly #client: QmpClient;
  /** Actions that are sent along with the cut. */
  #bitmaps: readonly TransactionAction[] = [];

  private constructor(client: QmpClient, forLibvirt: boolean) {
    this.#client = client;
    this.backups = new PlainBackups(client, forLibvirt);
  }

  /** `forLibvirt`: it has the images of a libvirt domain. Throws what QmpClient.connect does. */
  static async connect(path: string, options: QmpConnectOptions, forLibvirt = false): Promise<PlainQemu> {
    return new PlainQemu(await QmpClient.connect(path, options), forLibvirt);
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
    return await readDisks(this.#client);
  }

  /** Nothing: the command line is known to whoever started the VM. */
  describe(): Promise<VmDescription> {
    return Promise.resolve({ texts: [], folders: [] });
  }

  async whyNoOverlay(disk: VmDisk): Promise<string | undefined> {
    return await whyNoEncryption(this.#client, disk);
  }

  async prepare(overlays: readonly Overlay[], reverter: Reverter, signal: AbortSignal): Promise<void> {
    for (const overlay of overlays) {
      signal.throwIfAborted();
      await addNode(this.#client, overlay, reverter);
    }
    await checkAdded(this.#client, overlays);
    const bitmaps: TransactionAction[] = [];
    for (const { disk, node } of overlays) bitmaps.push(...(await bitmapsToOverlay(this.#client, disk.node, node)));
    this.#bitmaps = bitmaps;
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
