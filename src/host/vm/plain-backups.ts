// Backups of a plain QEMU: jobs that push each disk to its target while the guest writes on, and dirty bitmaps as
// checkpoints. A checkpoint goes on recording whatever becomes of the jobs over it, so that any of those kept is the
// start of an increment. Specification: QEMU docs/interop/bitmaps.rst, qapi/block-core.json (blockdev-backup).
import { setTimeout as sleep } from 'node:timers/promises';
import { defined } from '../../defined.js';
import { BridgeError, CutError, describeError } from '../../errors.js';
import { bitmapsIn, keepsBitmaps, readNode, removeBitmaps, whyNotTrusted } from '../../qmp/bitmaps.js';
import { readNodes, type VmDisk } from '../../qmp/block-graph.js';
import type { QmpClient } from '../../qmp/client.js';
import { runQmp, type CacheOptions, type LayerFile, type TransactionAction } from '../../qmp/commands.js';
import { hasObject } from '../../qmp/qdev.js';
import { cancelGroup, finalizeGroup, groupJobs, progressOf, waitForGroup } from '../../qmp/job-group.js';
import { hasArgument } from '../../qmp/schema.js';
import type { Reverter } from '../../reverter.js';
import { diskName } from './disk-choice.js';
import { JobRates } from './job-rates.js';
import { sendsBitmaps, wentOnAfterMigration } from './migration.js';
import type {
  BackupHost,
  BackupTarget,
  BegunTarget,
  Checkpoint,
  CheckpointLife,
  EndedBackup,
  TransferOptions,
} from './hypervisor.js';

/** The granule of our bitmaps: a cluster of a target is copied whole, or not at all. */
const GRANULARITY_BYTES = 65_536;
/** QEMU stretches a key in its main loop. */
const OPEN_LIMIT_MS = 60_000;
/** A write that fails again fails at once. */
const CONTINUED_MS = 300;
/** After a snapshot libvirt's bitmap of the overlay has only what was written since: the rest is on the layers below. */
const IN_PART = 'its record lies in several layers, which libvirt puts together only while the domain runs';

/**
 * Past the host's page cache: else what a guest makes durable waits until what was copied is on the disk, and what the host
 * has use for is driven out of memory.
 */
const DIRECT: CacheOptions = { direct: true, 'no-flush': false };
const CACHED: CacheOptions = { direct: false, 'no-flush': false };
/** QEMU's words where a filesystem (tmpfs before Linux 6.6, some of FUSE) cannot do that. */
const NO_DIRECT = /O_DIRECT/;

/**
 * Pieces that a job copies at a time: a write of the guest waits for all that is under way before it. It copies as fast with
 * these few (`bench -- backup-writes`).
 */
const PIECES = { 'max-workers': 4 } as const;

const HAS_LEFT =
  'QEMU sent the VM elsewhere, or to a file, and went on with it: what was written meanwhile is in no record';

export class PlainBackups implements BackupHost {
  readonly checkpointsAreShared: boolean;
  readonly leavesZeroesOut = true;
  readonly changesRates = true;
  readonly whyNoCompression = undefined;
  readonly whyNoEncryption = undefined;
  readonly #client: QmpClient;

  /** `forLibvirt`: it names and reads checkpoints as libvirt does. */
  constructor(client: QmpClient, forLibvirt = false) {
    this.#client = client;
    this.checkpointsAreShared = forLibvirt;
  }

  whyNoBackup({ encryption }: VmDisk): string | undefined {
    return encryption === undefined ? undefined : 'it is encrypted: its backup would hold clear text';
  }

  async checkpoints({ node, below }: VmDisk): Promise<readonly Checkpoint[]> {
    const { 'dirty-bitmaps': bitmaps } = await readNode(this.#client, node);
    const inPart = this.checkpointsAreShared ? bitmapsIn(await readNodes(this.#client), below) : [];
    const hasLeft = bitmaps.length > 0 && (await wentOnAfterMigration(this.#client));
    // Else one in an image is stored there when the VM leaves, and read again.
    const allStay = hasLeft && (await sendsBitmaps(this.#client));
    return bitmaps.flatMap((bitmap) => {
      const { name, count, persistent } = bitmap;
      if (name === undefined) return [];
      const ofProcess = !persistent;
      const why = inPart.includes(name) ? IN_PART : whyNotTrusted(bitmap);
      return [
        { name, dirtyBytes: count, why: why ?? ((ofProcess && hasLeft) || allStay ? HAS_LEFT : undefined), ofProcess },
      ];
    });
  }

  async checkpointLife({ node, dataFiles }: VmDisk): Promise<CheckpointLife> {
    // What is written past such an image, into its raw file, would be in no bitmap that it keeps.
    if (dataFiles.length > 0) return 'process';
    return keepsBitmaps(await readNode(this.#client, node)) ? 'image' : 'process';
  }

  /** Each job is of one disk: whether a disk has one is asked with the disks. */
  refuseOtherJob(): Promise<void> {
    return Promise.resolve();
  }

  async openTargets(targets: readonly BackupTarget[], reverter: Reverter): Promise<void> {
    this.#pausedBefore = await this.#isPaused();
    this.#takesPieces = await hasArgument(this.#client, 'blockdev-backup', 'x-perf');
    for (const target of targets) {
      reverter.push(`block node ${target.node}`, async () => {
        await this.#close([target]);
      });
      await this.#open(target);
      // Only the transaction needs to know, and asks nobody then.
      this.#persistent.set(target.node, (await this.checkpointLife(target.disk)) === 'image');
    }
  }

  readonly #persistent = new Map<string, boolean>();
  /** By a write of the guest that failed, before we did anything. */
  #pausedBefore = false;
  #takesPieces = false;

  async #open(target: BackupTarget): Promise<void> {
    const { disk, node, file, key } = target;
    const name = { 'node-name': fileNode(node) };
    const inFile = { driver: 'file', filename: file } as const;
    try {
      if (key === undefined) {
        await this.#add(target, { ...inFile, ...name });
        return;
      }
      const id = keyObject(node);
      await runQmp(this.#client, 'object-add', { 'qom-type': 'secret', id, data: key.text });
      await this.#add(target, { driver: 'luks', 'key-secret': id, ...name, file: inFile });
      // It is asked for no more. What fails before leaves it to #close.
      await runQmp(this.#client, 'object-del', { id });
    } catch (cause) {
      const message = `the backup of disk ${diskName(disk)}: QEMU cannot open ${file}: ${describeError(cause)}`;
      throw new CutError('E_BACKUP', message, { cause });
    }
  }

  /** What is below a layer takes the layer's word for the host's page cache. */
  async #add({ disk, node, compress }: BackupTarget, below: LayerFile): Promise<void> {
    const add = async (cache: CacheOptions): Promise<void> => {
      const layer = { ...layerOf(disk, node, cache), file: below };
      await runQmp(this.#client, 'blockdev-add', layer, { timeoutMs: OPEN_LIMIT_MS });
      this.#caches.set(node, cache);
    };
    // Compressed clusters are as long as they come to be: each end would be read again to be written.
    if (compress) {
      await add(CACHED);
      return;
    }
    try {
      await add(DIRECT);
    } catch (error) {
      if (!NO_DIRECT.test(describeError(error))) throw error;
      await add(CACHED);
    }
  }

  readonly #caches = new Map<string, CacheOptions>();

  /** What the transaction holds for one disk. */
  actions({ disk, node, jobId, checkpoint, since, speed, compress }: BackupTarget): TransactionAction[] {
    const persistent = this.#persistent.get(node) === true;
    const over =
      since === undefined
        ? ({ sync: 'full' } as const)
        : ({ sync: 'bitmap', bitmap: since, 'bitmap-mode': 'never' } as const);
    const bitmap = { node: disk.node, granularity: GRANULARITY_BYTES, persistent };
    return [
      ...(checkpoint === undefined
        ? []
        : [{ type: 'block-dirty-bitmap-add' as const, data: { ...bitmap, name: checkpoint } }]),
      {
        type: 'blockdev-backup',
        data: {
          'job-id': jobId,
          device: disk.node,
          target: node,
          ...over,
          ...defined({ speed }),
          ...(compress ? { compress } : {}),
          ...(this.#takesPieces ? { 'x-perf': PIECES } : {}),
          // Not `on-cbw-error: break-snapshot` (QEMU 10.1): after one copy that failed, the guest's writes go on unsaved, and
          // the job, which reads the disk itself, takes what they wrote for the old data and ends without an error.
          'auto-finalize': false,
          'auto-dismiss': false,
        },
      },
    ];
  }

  async begun(targets: readonly BackupTarget[]): Promise<readonly BackupTarget[]> {
    const ids = targets.map(({ jobId }) => jobId);
    const jobs = await groupJobs(this.#client, ids);
    return targets.filter(({ jobId }) => jobs.some(({ id }) => id === jobId));
  }

  async transfer(targets: readonly BackupTarget[], options: TransferOptions): Promise<readonly number[]> {
    const ids = targets.map(({ jobId }) => jobId);
    const rates = new JobRates(this.#client, targets);
    const jobs = await waitForGroup(this.#client, ids, options, async (now) => {
      await this.#checkRuns();
      if (options.pace !== undefined) await rates.set(now, await options.pace(progressOf(now).current));
    });
    await finalizeGroup(this.#client, ids, options.finalizeMs);
    await this.#checkRuns();
    await options.beforeFlush();
    for (const target of targets) await this.#flush(target, options.finalizeMs);
    await this.#close(targets);
    return ids.map((id) => jobs.find((job) => job.id === id)?.['total-progress'] ?? 0);
  }

  // Closing a node flushes it, too, but drops the error; a qcow2 layer keeps tables in memory until then. HMP's qemu-io says
  // nothing of a flush that fails.
  async #flush({ disk, node, file }: BackupTarget, timeoutMs: number): Promise<void> {
    const layer = layerOf(disk, node, this.#caches.get(node) ?? CACHED);
    const options = [{ ...layer, file: fileNode(node), 'read-only': true as const }];
    try {
      await runQmp(this.#client, 'blockdev-reopen', { options }, { timeoutMs });
    } catch (cause) {
      const message = `the backup of disk ${diskName(disk)}: QEMU cannot flush ${file}: ${describeError(cause)}`;
      throw new CutError('E_BACKUP', message, { cause });
    }
  }

  async end(targets: readonly BegunTarget[], pausedBefore = false): Promise<EndedBackup> {
    await cancelGroup(
      this.#client,
      targets.map(({ jobId }) => jobId),
    );
    const wasOpen = await this.#close(targets);
    return wasOpen && !this.#pausedBefore && !pausedBefore ? await this.#continue() : undefined;
  }

  // A job goes on beside a write of the guest that failed, and may come to a good end: the guest comes first.
  async #checkRuns(): Promise<void> {
    if (this.#pausedBefore || !(await this.#isPaused())) return;
    const message = 'QEMU paused the VM, since a write of its guest failed (io-error); the backup was given up';
    throw new CutError('E_BACKUP', message);
  }

  // As `werror` says (by default for a full filesystem), QEMU pauses a VM whose guest's write failed, and tries it again when
  // the VM is continued: without the jobs it needs no copy any more.
  async #continue(): Promise<EndedBackup> {
    if (!(await this.#isPaused())) return undefined;
    await runQmp(this.#client, 'cont', {});
    await sleep(CONTINUED_MS);
    return (await this.#isPaused()) ? 'still-paused' : 'continued';
  }

  async #isPaused(): Promise<boolean> {
    return (await runQmp(this.#client, 'query-status', {})).status === 'io-error';
  }

  /** True if any of them was there. */
  async #close(targets: readonly Pick<BackupTarget, 'node'>[]): Promise<boolean> {
    // First, since a node may not be closed. Of a tool that was killed, or a file that could not be opened.
    for (const { node } of targets) {
      const id = keyObject(node);
      if (await hasObject(this.#client, id)) await runQmp(this.#client, 'object-del', { id });
    }
    const nodes = await readNodes(this.#client);
    const open = targets.filter(({ node }) => nodes.has(node));
    for (const { node } of open) await runQmp(this.#client, 'blockdev-del', { 'node-name': node });
    return open.length > 0;
  }

  async dropCheckpoints(wanted: (name: string) => boolean): Promise<void> {
    const inUse = await removeBitmaps(this.#client, wanted);
    if (inUse.length > 0) throw new BridgeError('E_BACKUP', `dirty bitmaps are in use: ${inUse.join(', ')}`);
  }
}

const fileNode = (node: string): string => `${node}-file`;
const keyObject = (node: string): string => `${node}-key`;

/** A target; what is below it apart. */
function layerOf({ dataFiles }: VmDisk, node: string, cache: CacheOptions) {
  return {
    driver: 'qcow2',
    'node-name': node,
    // Clusters are written whole: what its header names below is not read.
    backing: null,
    discard: 'unmap',
    // An image whose data lies in a raw file does not say where that has holes, and all of it would be written.
    'detect-zeroes': dataFiles.length > 0 ? 'on' : 'off',
    cache,
  } as const;
}
