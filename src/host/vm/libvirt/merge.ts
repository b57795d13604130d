// Merges one overlay of a libvirt domain into its base: `blockcommit --active`, until libvirt says that it is ready,
// then `blockjob --pivot`. libvirt closes the overlay, and names the base in the domain and in its definition. A commit
// that an earlier call began is taken up.
import { setTimeout as sleep } from 'node:timers/promises';
import { Deadline } from '../../../deadline.js';
import { BridgeError, CutError, DeadlineError } from '../../../errors.js';
import { sameFile } from '../../images/same-file.js';
import type { MergeLayer, MergeOptions } from '../hypervisor.js';
import { domainDisks, type DomainDisk } from './domain-xml.js';
import { VirshError, type Virsh } from './virsh.js';

const ASK_MS = 30_000;
/** The guest's last writes are copied, and the job is over. */
const PIVOT_MS = 120_000;
const POLL_MS = 500;

export async function mergeByLibvirt(virsh: Virsh, { disk, vmDisk }: MergeLayer, options: MergeOptions): Promise<void> {
  // A filter above the overlay (copy-on-read) has the overlay itself as the first layer below it.
  const below = await firstOther(vmDisk?.backingFiles ?? [], disk.overlay.file);
  // Compared by what the files are: the domain may have been defined anew with other names of them.
  if (vmDisk === undefined || below === undefined || !(await sameFile(below, disk.base.file))) {
    const found = below ?? 'nothing';
    throw new CutError('E_MERGE_REFUSED', `${disk.overlay.file} lies on ${found}, expected ${disk.base.file}`);
  }
  const { target, mirror } = await domainDisk(virsh, vmDisk.id);
  if (mirror !== undefined && mirror.job !== 'active-commit') {
    throw new CutError('E_MERGE_REFUSED', `disk ${target} is being copied (${mirror.job}): wait until that is over`);
  }
  if (mirror === undefined) {
    const speed = options.speed === undefined ? [] : ['--bytes', '--bandwidth', String(options.speed)];
    const words = [target, '--active', '--shallow', ...speed];
    await begin(virsh, words);
  }
  try {
    await untilReady(virsh, vmDisk.id, target, options);
    await options.beforePivot();
    await virsh.run('blockjob', [target, '--pivot'], PIVOT_MS);
  } catch (error) {
    await giveUp(virsh, vmDisk.id);
    throw error;
  }
}

async function firstOther(files: readonly string[], than: string): Promise<string | undefined> {
  for (const file of files) if (!(await sameFile(file, than))) return file;
  return undefined;
}

async function begin(virsh: Virsh, words: readonly string[]): Promise<void> {
  try {
    await virsh.run('blockcommit', words, ASK_MS);
  } catch (cause) {
    // libvirt said no: then nothing was begun, and the base is as it was.
    if (!(cause instanceof VirshError) || cause.outcome !== 'none') throw cause;
    throw new CutError('E_MERGE_REFUSED', cause.message, { cause });
  }
}

/** The disk behind QEMU's device. Throws a BridgeError if libvirt does not know it. */
async function domainDisk(virsh: Virsh, alias: string): Promise<DomainDisk> {
  const disks = domainDisks(await virsh.run('dumpxml', [], ASK_MS));
  const disk = disks.find((each) => each.alias === alias);
  if (disk !== undefined) return disk;
  throw new BridgeError('E_BLOCK_GRAPH', `${virsh.where} has no disk ${alias}`);
}

async function untilReady(
  virsh: Virsh,
  alias: string,
  target: string,
  { jobId, limitMs, signal, onProgress }: MergeOptions,
): Promise<void> {
  const deadline = new Deadline(limitMs);
  for (;;) {
    const { mirror } = await domainDisk(virsh, alias);
    if (mirror === undefined) throw new BridgeError('E_JOB', `the commit of ${target} ended before it was ready`);
    onProgress({ id: jobId, status: mirror.ready ? 'ready' : 'running', ...(await progressOf(virsh, target)) });
    if (mirror.ready) return;
    signal.throwIfAborted();
    if (deadline.passed) throw new DeadlineError(`the commit of ${target} to be ready`, limitMs);
    await sleep(Math.min(POLL_MS, deadline.remainingMs));
  }
}

/** ` cur=65536\n end=131072\n`, in bytes. */
async function progressOf(virsh: Virsh, target: string): Promise<{ current: number; total: number }> {
  const text = await virsh.run('blockjob', [target, '--raw'], ASK_MS);
  const number = (name: string): number => Number(new RegExp(`^\\s*${name}=(\\d+)$`, 'm').exec(text)?.[1] ?? 0);
  return { current: number('cur'), total: number('end') };
}

// Aborted, the commit leaves the VM on the overlay, as it was; what was copied already does no harm.
async function giveUp(virsh: Virsh, alias: string): Promise<void> {
  const { target, mirror } = await domainDisk(virsh, alias);
  if (mirror?.job !== 'active-commit') return;
  try {
    await virsh.run('blockjob', [target, '--abort'], PIVOT_MS);
  } catch (error) {
    // The commit ended meanwhile.
    if (!(error instanceof VirshError) || (await domainDisk(virsh, alias)).mirror !== undefined) throw error;
  }
}
