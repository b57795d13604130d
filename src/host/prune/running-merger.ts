// Merges a layer by the plain QEMU that has it open: block-commit of an intermediate layer, which stops in `pending`
// when all is copied. QEMU writes no cache back before it changes the layer above: a QEMU killed between would leave an
// image over a base that lacks clusters. So the base is flushed first; QMP has no command for it, HMP's qemu-io has.
// Specification: QEMU qapi/block-core.json (block-commit), job.json (job-finalize).
import { defined } from '../../defined.js';
import { BridgeError, CutError, UsageError } from '../../errors.js';
import { imageFile, nodesOfFile, readDisks, readNodes } from '../../qmp/block-graph.js';
import type { QmpClient } from '../../qmp/client.js';
import { runQmp } from '../../qmp/commands.js';
import { dismissJob, findJob, waitForJob } from '../../qmp/jobs.js';
import type { Monitor } from '../../qmp/monitor.js';
import { fileKey } from '../images/same-file.js';
import { keyOrName } from '../images/socket-owner.js';
import { refuseMigration } from '../vm/migration.js';
import { giveUpJob } from '../vm/plain-merge.js';
import type { MergeLimits, Merger, MergeStep } from './merger.js';
import { diskOfStep, isInChain, refuseUnknown } from './step-disk.js';

const FLUSH_MS = 120_000;

interface Nodes {
  /** The top of the disk in whose chain the three lie on each other. */
  readonly root: string | undefined;
  readonly base: string | undefined;
  readonly layer: string | undefined;
}

export class RunningMerger implements Merger {
  readonly monitors: readonly Monitor[];
  readonly #client: QmpClient;

  /** Ends the connection when it is disposed. */
  constructor(client: QmpClient) {
    this.#client = client;
    this.monitors = [client];
  }

  async check(step: MergeStep): Promise<void> {
    await refuseMigration(this.#client, 'nothing was pruned');
    if (step.disk.encryption !== undefined && !step.baseName.startsWith('json:')) {
      const message = `nothing was pruned: which secret opens ${step.base.file} is not recorded, and without it the VM would not start`;
      throw new UsageError('E_ENCRYPTED', `${message}: commit the sets instead, the newest first`);
    }
    await refuseUnknown(this.#client, await readDisks(this.#client));
    if ((await findJob(this.#client, step.jobId)) !== undefined) return;
    const { root, base, layer } = await this.#nodes(step);
    if (root !== undefined && base !== undefined && layer !== undefined) return;
    const chain = `${step.above} over ${step.layer} over ${step.base.file} (${step.base.format})`;
    throw new UsageError('E_NOT_ACTIVE', `the VM does not run on ${chain}: start it from its newest overlays`);
  }

  async copy(step: MergeStep, limits: MergeLimits): Promise<void> {
    const client = this.#client;
    const { jobId } = step;
    const { limitMs, signal, onProgress } = limits;
    try {
      await this.#begin(step, limits);
      await waitForJob(client, jobId, ['pending'], {
        limitMs,
        signal,
        onProgress: ({ current, total }) => {
          onProgress(total === 0 ? 100 : (100 * current) / total);
        },
      });
      await this.#flush(step);
      await refuseMigration(client, `${step.layer} is not merged`);
    } catch (error) {
      await giveUpJob(client, jobId);
      throw error;
    }
  }

  async change({ jobId }: MergeStep, { limitMs }: MergeLimits): Promise<void> {
    await runQmp(this.#client, 'job-finalize', { id: jobId });
    await waitForJob(this.#client, jobId, ['concluded'], { limitMs });
  }

  async forget(step: MergeStep): Promise<void> {
    const client = this.#client;
    const job = await findJob(client, step.jobId);
    if (job?.status === 'concluded') await dismissJob(client, step.jobId);
    const disks = await readDisks(client);
    if (await isInChain(client, disks, step.layer)) {
      throw new BridgeError('E_BLOCK_GRAPH', `the VM still runs on ${step.layer}`);
    }
    const { layer } = await this.#nodes(step);
    if (layer === undefined) return;
    try {
      await runQmp(client, 'blockdev-del', { 'node-name': layer });
    } catch (error) {
      // A VM started from the overlay made the node by itself: it may go with the job, a moment later.
      if ((await this.#nodes(step)).layer !== undefined) throw error;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#client.close();
    return Promise.resolve();
  }

  /** Takes up a job that an earlier prune began. */
  async #begin(step: MergeStep, { speed }: MergeLimits): Promise<void> {
    const client = this.#client;
    const { jobId } = step;
    const job = await findJob(client, jobId);
    // A concluded job has changed nothing: it failed, or it was cancelled.
    if (job?.status === 'concluded') await dismissJob(client, jobId);
    else if (job !== undefined) return;
    const { root, base, layer } = await this.#nodes(step);
    if (root === undefined || base === undefined || layer === undefined) {
      throw new BridgeError('E_BLOCK_GRAPH', 'its layers are not all in the block graph');
    }
    await runQmp(client, 'block-commit', {
      'job-id': jobId,
      device: root,
      'top-node': layer,
      'base-node': base,
      // Without it, QEMU writes a `json:` name also where the path says all.
      'backing-file': step.baseName,
      'auto-finalize': false,
      'auto-dismiss': false,
      ...defined({ speed }),
    });
  }

  async #flush(step: MergeStep): Promise<void> {
    const { base } = await this.#nodes(step);
    if (base === undefined) throw new BridgeError('E_BLOCK_GRAPH', `${step.base.file} is not in the block graph`);
    const line = { 'command-line': `qemu-io ${base} "flush"` };
    const answer = await runQmp(this.#client, 'human-monitor-command', line, { timeoutMs: FLUSH_MS });
    if (answer.trim() !== '') throw new CutError('E_FLUSH', `${step.base.file} could not be flushed: ${answer.trim()}`);
  }

  async #nodes(step: MergeStep): Promise<Nodes> {
    const client = this.#client;
    const nodes = [...(await readNodes(client)).values()];
    const keys = new Map<string, string>();
    for (const { image } of nodes) {
      const name = imageFile(image.filename);
      keys.set(name, await keyOrName(client.path, name));
    }
    const [base, layer] = [await fileKey(step.base.file), await fileKey(step.layer)];
    // QEMU would write the driver of the base as its format: a file without a format node gives a wrong one.
    const ofBase = only(nodesOfFile(nodes, (name) => keys.get(name) === base, step.base.format));
    const isFormat = nodes.some((node) => node['node-name'] === ofBase && node.drv === step.base.format);
    return {
      root: (await diskOfStep(client, await readDisks(client), step))?.disk.rootNode,
      base: isFormat ? ofBase : undefined,
      layer: only(nodesOfFile(nodes, (name) => keys.get(name) === layer, 'qcow2')),
    };
  }
}

function only(names: readonly string[]): string | undefined {
  return names.length === 1 ? names[0] : undefined;
}
