// Looks, before a VM is started from a run, at the files of the run and at the room for what will be copied.
import { statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Deadline } from '../../deadline.js';
import { CutError, UsageError } from '../../errors.js';
import { chainOf, checkLink } from '../repository/chain.js';
import { chainName, needsKey } from '../repository/chain-name.js';
import type { FoundRun } from '../repository/find-run.js';
import { knownProblem } from '../repository/run-faults.js';
import type { RunDisk } from '../repository/run-manifest.js';
import { Verifier } from '../repository/verify-run.js';
import { neededFor } from '../restore/growth.js';

interface Limits {
  readonly limitMs: number;
  readonly signal: AbortSignal;
}

interface FileChecks extends Limits {
  /** Sum what is read; undefined: only see that no damage is known. */
  readonly verify: boolean | undefined;
  readonly onProgress: (text: string) => void;
}

/**
 * The VM would have to be given the key each time that it starts, and the images would hold what is encrypted in the clear.
 * Throws a UsageError `E_ENCRYPTED`.
 */
export function refuseEncrypted({ manifest, runs, vm }: FoundRun, disks: readonly RunDisk[]): void {
  if (!disks.some((disk) => needsKey(chainOf(vm.folder, runs.all, manifest, disk)))) return;
  const message = `run ${manifest.run} is encrypted: --start would need its key as long as the VM runs; restore it to a folder`;
  throw new UsageError('E_ENCRYPTED', message);
}

/** Throws a CutError `E_VERIFY`. */
export async function checkFiles(
  { vm, runs, manifest }: FoundRun,
  disks: readonly RunDisk[],
  { verify, limitMs, signal, onProgress }: FileChecks,
): Promise<void> {
  if (verify === undefined) {
    const known = await knownProblem(vm.folder, runs.all, manifest);
    if (known !== undefined) throw new CutError('E_VERIFY', `${known}: --no-verify starts it all the same`);
    return;
  }
  if (!verify) return;
  const verifier = new Verifier(vm.folder, runs.all, {
    ...{ deadline: new Deadline(limitMs), signal, onProgress, key: undefined },
  });
  const { problems } = await verifier.findingsOf({ ...manifest, disks: [...disks] });
  if (problems.length > 0) throw new CutError('E_VERIFY', `run ${manifest.run} is damaged: ${problems.join('; ')}`);
}

/** What an image takes that has all of its disk that the run holds (bytes), all together. Throws a CutError `E_CHAIN`. */
export async function bytesToCopy(
  { vm, runs, manifest }: FoundRun,
  disks: readonly RunDisk[],
  { limitMs, signal }: Limits,
): Promise<number> {
  let bytes = 0;
  for (const disk of disks) {
    const links = chainOf(vm.folder, runs.all, manifest, disk);
    for (const link of links) await checkLink(link, { signal, key: undefined });
    bytes += await neededFor(chainName(links), 'qcow2', { deadline: new Deadline(limitMs), signal });
  }
  return bytes;
}

/** Throws a CutError `E_NO_SPACE` if that cannot be copied into the folder, which is not there yet. */
export async function checkRoomFor(target: string, bytes: number): Promise<void> {
  const parent = dirname(target);
  const { bavail, bsize } = await statfs(parent);
  if (bavail * bsize >= bytes) return;
  const message = `no space in ${parent}: ${bavail * bsize} bytes free, expected ${bytes} for the disks; nothing was started`;
  throw new CutError('E_NO_SPACE', message);
}
