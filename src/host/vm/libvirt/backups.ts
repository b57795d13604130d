// Backups of a libvirt domain: `backup-begin` pushes each disk to its target, while the guest writes on, and begins a
// checkpoint with the same cut. All is libvirt's: its job, its list of checkpoints, its bitmaps in the images. Specification:
// virsh(1), libvirt's "Efficient live full and incremental backups". Seen on 9.0: targets that are there already are taken
// with --reuse-external, whatever their headers name below them, and that of an increment is opened with the disk below it,
// of which nothing is read as clusters are written whole; a job that is ended keeps its checkpoint; the job ends a moment before
// its targets are closed.
import { setTimeout as sleep } from 'node:timers/promises';
import { BridgeError, CutError, describeError, UsageError } from '../../../errors.js';
import { keepsBitmaps, readNode } from '../../../qmp/bitmaps.js';
import type { VmDisk } from '../../../qmp/block-graph.js';
import { runQmp } from '../../../qmp/commands.js';
import type { Reverter } from '../../../reverter.js';
import { imageInfo } from '../../images/image-file.js';
import { diskName } from '../disk-choice.js';
import type {
  BackupHost,
  BackupTarget,
  BegunTarget,
  Checkpoint,
  CheckpointLife,
  EndedBackup,
  TransferOptions,
} from '../hypervisor.js';
import { BackupJob } from './backup-job.js';
import { backupXml, checkpointXml } from './backup-xml.js';
import {
  bitmapsOf,
  foundCheckpoints,
  isShutOff,
  listedCheckpoints,
  redefineCheckpoint,
  removeCheckpoint,
  without,
} from './checkpoints.js';
import { endedBackup, runningJob, whyAnother, type EndedJob, type RunningJob } from './domain-job.js';
import { domainDisks } from './domain-xml.js';
import { EarlySync } from './early-sync.js';
import type { LibvirtMonitor } from './monitor.js';
import type { Virsh } from './virsh.js';
import { xmlFiles } from './xml-files.js';

const ASK_MS = 30_000;
const CLOSE_MS = 120_000;
/** A write that fails again fails at once. */
const CONTINUED_MS = 300;

export class LibvirtBackups implements BackupHost {
  readonly checkpointsAreShared = true;
  readonly leavesZeroesOut = false;
  readonly changesRates = false;
  readonly whyNoCompression = 'libvirt cannot compress what it copies';
  // The target of backup-begin is qcow2 or raw, with LUKS inside at most, by secrets that libvirt keeps.
  readonly whyNoEncryption =
    'libvirt cannot write an image into a LUKS file: shut the domain off for it, or put the repository on an encrypted filesystem';
  readonly #virsh: Virsh;
  readonly #monitor: LibvirtMonitor;
  readonly #job: BackupJob;
  /** The words of `backup-begin` for what was opened last. */
  #words: readonly string[] = [];
  /** What is done right after it, beside the thaw. */
  #begun: Promise<void> = Promise.resolve();
  #dropXml = (): Promise<void> => Promise.resolve();
  /** Bytes of each increment, as they were right before the hold. */
  readonly #expected = new Map<string, number>();
  /** By a write of the guest that failed, before we did anything. Undefined: nothing was opened. */
  #pausedBefore: boolean | undefined;

  constructor(virsh: Virsh, monitor: LibvirtMonitor) {
    this.#virsh = virsh;
    this.#monitor = monitor;
    this.#job = new BackupJob(virsh, monitor);
  }

  whyNoBackup({ encryption }: VmDisk): string | undefined {
    return encryption === undefined ? undefined : 'it is encrypted: its backup would hold clear text';
  }

  async checkpoints(disk: VmDisk): Promise<readonly Checkpoint[]> {
    return await bitmapsOf(this.#monitor, disk);
  }

  async checkpointLife({ node, dataFiles }: VmDisk): Promise<CheckpointLife> {
    // What is written past such an image, into its raw file, would be in no bitmap that it keeps.
    if (dataFiles.length > 0) return 'none';
    return keepsBitmaps(await readNode(this.#monitor, node)) ? 'image' : 'none';
  }

  /** libvirt would let the cut wait for its end, with the guest held. */
  async refuseOtherJob(): Promise<void> {
    if ((await runningJob(this.#virsh)) === undefined) return;
    throw new UsageError('E_BACKUP', `${this.#virsh.where}: a job of it is under way (virsh domjobinfo)`);
  }

  /** libvirt opens the targets itself, in the cut: only its XML is made here, and what it needs to know of the bases. */
  async openTargets(targets: readonly BackupTarget[], reverter: Reverter): Promise<void> {
    await this.refuseOtherJob();
    const known = await this.#targets();
    const lost = targets.find(({ disk }) => !known.includes(disk.device));
    if (lost !== undefined) {
      const message = `libvirt does not know disk ${diskName(lost.disk)} of ${this.#virsh.where}: leave it out (--disk)`;
      throw new UsageError('E_DISK', message);
    }
    this.#pausedBefore = await this.#isPaused();
    await this.#listBases(targets, known);
    const disks = targets.map(({ disk, file, since }) => ({ target: disk.device, file, since }));
    const texts = [
      backupXml(
        disks,
        without(
          known,
          disks.map(({ target }) => target),
        ),
      ),
    ];
    const tracked = targets.filter(({ checkpoint }) => checkpoint !== undefined);
    const name = tracked[0]?.checkpoint;
    const on = tracked.map(({ disk }) => disk.device);
    if (name !== undefined) texts.push(checkpointXml({ name, targets: on, others: without(known, on) }));
    const xml = await xmlFiles(...texts);
    const drop = async (): Promise<void> => {
      await xml[Symbol.asyncDispose]();
    };
    reverter.push('the XML of the backup', drop);
    this.#dropXml = drop;
    const [backup = '', checkpoint] = xml.files;
    const words = ['--backupxml', backup, ...(checkpoint === undefined ? [] : ['--checkpointxml', checkpoint])];
    this.#words = [...words, '--reuse-external'];
  }

  async #targets(): Promise<string[]> {
    return domainDisks(await this.#virsh.run('dumpxml', [], ASK_MS)).map(({ target }) => target);
  }

  /** An increment is made of what libvirt lists alone: what it lost of a checkpoint whose bitmaps are there, it gets back. */
  async #listBases(targets: readonly BackupTarget[], known: readonly string[]): Promise<void> {
    const listed = await listedCheckpoints(this.#virsh);
    const found = await foundCheckpoints(this.#virsh, this.#monitor, known);
    for (const { disk, file, since, sinceTime } of targets) {
      if (since === undefined) continue;
      const bitmaps = await this.checkpoints(disk);
      this.#expected.set(file, bitmaps.find(({ name }) => name === since)?.dirtyBytes ?? 0);
      const base = found.get(since);
      if (listed.includes(since) || base === undefined) continue;
      await redefineCheckpoint(this.#virsh, { ...base, since: sinceTime });
    }
  }

  /** `backup-begin` for the targets that were opened. Throws what Virsh.run does. */
  async begin(targets: readonly BackupTarget[], timeoutMs: number): Promise<void> {
    await this.#virsh.run('backup-begin', this.#words, timeoutMs);
    this.#begun = this.#afterBegin(targets);
    // Whoever waits for the end hears of it.
    this.#begun.catch(() => undefined);
  }

  async #afterBegin(targets: readonly BackupTarget[]): Promise<void> {
    for (const target of targets) await this.#job.limit(target);
    // A file that is left over is no reason to have no backup.
    await this.#dropXml().catch(() => undefined);
  }

  async begun(targets: readonly BackupTarget[]): Promise<readonly BackupTarget[]> {
    if (await this.#job.isRunning(targets)) return targets;
    // It may be over. The checkpoint begins with the job, or not at all.
    const name = targets.find(({ checkpoint }) => checkpoint !== undefined)?.checkpoint;
    if (name !== undefined) return (await listedCheckpoints(this.#virsh)).includes(name) ? targets : [];
    throw new CutError('E_CUT', 'whether the backup was begun is not known', { outcome: 'unknown' });
  }

  async transfer(targets: readonly BackupTarget[], options: TransferOptions): Promise<readonly number[]> {
    await this.#begun;
    const early = new EarlySync(options.beforeFlush);
    const seen = await this.#job.untilEnded(targets, options, async () => {
      await this.#checkRuns();
      early.tick();
    });
    const ended = await this.#endOf(targets, seen);
    await this.#checkRuns();
    await this.#job.untilClosed(targets, options.finalizeMs);
    await early.end();
    await options.beforeFlush();
    for (const target of targets) await checkTables(target);
    return this.#copied(targets, ended);
  }

  async #endOf(targets: readonly BackupTarget[], seen: RunningJob | undefined): Promise<EndedJob> {
    const ended = await endedBackup(this.#virsh);
    if (ended?.why !== undefined) {
      throw new BridgeError('E_JOB', `${this.#virsh.where}: the backup job failed: ${ended.why}`);
    }
    // Where a record lies in several layers, what is in two of them was counted twice.
    const sums = targets.map(({ disk, file, since }) => {
      if (since === undefined) return disk.virtualSize;
      return disk.below.length > 0 ? 0 : (this.#expected.get(file) ?? 0);
    });
    const least = sums.reduce((sum, bytes) => sum + bytes, 0);
    const why = ended === undefined ? 'it was no backup' : whyAnother(ended, seen, least);
    if (ended !== undefined && why === undefined) return ended;
    const message = `${this.#virsh.where}: how the backup ended is not known: another job was there since (${why ?? ''})`;
    throw new BridgeError('E_JOB', message);
  }

  // libvirt tells the sum of all disks. That of one increment follows from it; of several, what was known before the hold is
  // as near as can be had.
  #copied(targets: readonly BackupTarget[], { total }: EndedJob): readonly number[] {
    const known = targets.map(({ disk, file, since }) => {
      return since === undefined ? disk.virtualSize : (this.#expected.get(file) ?? 0);
    });
    const increments = targets.filter(({ since }) => since !== undefined);
    if (increments.length !== 1) return known;
    const full = targets.reduce((sum, { disk, since }) => sum + (since === undefined ? disk.virtualSize : 0), 0);
    return targets.map(({ since }, index) => (since === undefined ? (known[index] ?? 0) : Math.max(0, total - full)));
  }

  async end(targets: readonly BegunTarget[], pausedBefore?: boolean): Promise<EndedBackup> {
    try {
      const wasRunning = await this.#job.isRunning(targets);
      if (wasRunning) await this.#job.abort(targets);
      await this.#job.untilClosed(targets, CLOSE_MS);
      const before = this.#pausedBefore ?? pausedBefore;
      // A job that failed is gone by itself, and nothing tells any more that it was there.
      const mayBeOurs = before === false || (before === undefined && wasRunning);
      return mayBeOurs ? await this.#continue() : undefined;
    } catch (error) {
      if (isShutOff(error)) return undefined;
      throw error;
    }
  }

  // A job goes on beside a write of the guest that failed, and may come to a good end: the guest comes first.
  async #checkRuns(): Promise<void> {
    if (this.#pausedBefore === true || !(await this.#isPaused())) return;
    const message = 'QEMU paused the VM, since a write of its guest failed (io-error); the backup was given up';
    throw new CutError('E_BACKUP', message);
  }

  async #continue(): Promise<EndedBackup> {
    if (!(await this.#isPaused())) return undefined;
    await this.#virsh.run('resume', [], ASK_MS);
    await sleep(CONTINUED_MS);
    return (await this.#isPaused()) ? 'still-paused' : 'continued';
  }

  async #isPaused(): Promise<boolean> {
    return (await runQmp(this.#monitor, 'query-status', {})).status === 'io-error';
  }

  async dropCheckpoints(
    wanted: (name: string) => boolean,
    ours: (name: string) => boolean = () => false,
  ): Promise<void> {
    try {
      const listed = await listedCheckpoints(this.#virsh);
      const known = await this.#targets();
      const found = await foundCheckpoints(this.#virsh, this.#monitor, known);
      const failures: unknown[] = [];
      for (const name of new Set([...listed, ...found.keys()])) {
        const checkpoint = found.get(name);
        const isLost = checkpoint === undefined && ours(name);
        if (!wanted(name) && !isLost) continue;
        const all = checkpoint ?? { name, targets: [], others: known, layered: [] };
        await removeCheckpoint(this.#virsh, all).catch((error: unknown) => {
          if (isShutOff(error)) throw error;
          failures.push(error);
        });
      }
      if (failures.length > 0) throw new BridgeError('E_BACKUP', failures.map(describeError).join('; '));
    } catch (error) {
      // With nothing of it in QEMU, the next backup does it.
      if (!isShutOff(error)) throw error;
    }
  }
}

// QEMU writes what tables it has in memory when it closes a target, and libvirt tells of no error then. But the image says
// that it is dirty until all of them are written.
async function checkTables({ disk, file }: BackupTarget): Promise<void> {
  const { 'dirty-flag': isDirty } = await imageInfo(file);
  if (!isDirty) return;
  throw new CutError('E_BACKUP', `the backup of disk ${diskName(disk)}: QEMU could not write all tables of ${file}`);
}
