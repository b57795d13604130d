// Whether a run may be encrypted, or not, after those that are there: what its owner asked for once is never dropped in
// silence, and a key that was mistaken is not what a new chain begins with.
import { join } from 'node:path';
import { throwIfInterrupted } from '../../confirm.js';
import { BridgeError, describeError, UsageError } from '../../errors.js';
import type { VmDisk } from '../../qmp/block-graph.js';
import type { LuksKey } from '../images/luks-key.js';
import { checkLink } from '../repository/chain.js';
import type { VmFolder } from '../repository/layout.js';
import type { LinkReading } from '../repository/luks-link.js';
import { isEncrypted, type RunDisk, type RunManifest } from '../repository/run-manifest.js';
import type { Runs } from '../repository/runs.js';
import { diskName } from '../vm/disk-choice.js';
import type { BackupHost } from '../vm/hypervisor.js';

export interface EncryptionAsked {
  /** Encrypts all of it; false: none, whatever earlier runs are; undefined: not said. */
  readonly encrypt: LuksKey | false | undefined;
  /** The key may be another than that of earlier runs: every disk is copied in full. */
  readonly isNewKey?: boolean;
  readonly signal: AbortSignal;
}

/**
 * Runs that are forgotten count as long as they are there. Throws a UsageError: `E_USAGE` if it cannot be encrypted, `E_KEY`
 * if nothing is said though the newest run, of the VM or of one of the disks, is encrypted or cannot be read, or if the key
 * does not open the newest encrypted file of each disk, and is not said to be a new one.
 */
export async function checkEncryption(
  { whyNoEncryption }: Pick<BackupHost, 'whyNoEncryption'>,
  folder: VmFolder,
  runs: Runs,
  disks: readonly VmDisk[],
  { encrypt, isNewKey, signal }: EncryptionAsked,
): Promise<void> {
  if (encrypt === undefined) refuseSilence(runs, disks);
  if (encrypt === undefined || encrypt === false) return;
  if (whyNoEncryption !== undefined) throw new UsageError('E_USAGE', `--encrypt: ${whyNoEncryption}`);
  if (isNewKey === true) return;
  for (const disk of disks) await tryKey(folder, runs, disk, { signal, key: encrypt });
}

function refuseSilence({ all, unreadable }: Runs, disks: readonly VmDisk[]): void {
  const newest = all.at(-1);
  const ofDisks = disks.map((disk) => filesOf(all, disk)[0]);
  const encrypted =
    newest !== undefined && isEncrypted(newest) ? newest : ofDisks.find((each) => each?.file.encryption)?.manifest;
  const say = 'give --encrypt and its key, or --no-encrypt for a run that is not';
  if (encrypted !== undefined) throw new UsageError('E_KEY', `run ${encrypted.run} is encrypted: ${say}`);
  const unread = unreadable.find(({ run }) => ofDisks.some((each) => run > (each?.manifest.run ?? '')));
  if (unread === undefined) return;
  throw new UsageError('E_KEY', `run ${unread.run} may be encrypted, it cannot be read (${unread.reason}): ${say}`);
}

/** One file that can be opened tells: if the newest is lost, that is the one before it. */
async function tryKey(folder: VmFolder, { all }: Runs, disk: VmDisk, reading: LinkReading): Promise<void> {
  let whyNot: string | undefined;
  for (const { manifest, disk: of, file } of filesOf(all, disk)) {
    const { name, encryption } = file;
    if (encryption === undefined) continue;
    try {
      const { run } = manifest;
      await checkLink({ run, disk: of, file: join(folder.run(run), name), encryption }, reading);
      return;
    } catch (error) {
      throwIfInterrupted(reading.signal, 'nothing was backed up');
      if (!(error instanceof BridgeError) && !(error instanceof Error && 'code' in error)) throw error;
      if (error.code === 'E_KEY') {
        const message = `${describeError(error)}: another key begins with full copies, by --new-key`;
        throw new UsageError('E_KEY', message, { cause: error });
      }
      whyNot ??= describeError(error);
    }
  }
  if (whyNot === undefined) return;
  const message = `the key cannot be tried for disk ${diskName(disk)}: ${whyNot}: to begin with full copies, give --new-key`;
  throw new UsageError('E_KEY', message);
}

/** The files of the disk, the newest first; those of all disks if none is known to be its own. */
function filesOf(all: readonly RunManifest[], disk: VmDisk) {
  const files = all
    .toReversed()
    .flatMap((manifest) => manifest.disks.map((each) => ({ manifest, disk: each, file: each.file })));
  const own = files.filter((each) => isOf(disk, each.disk));
  return own.length > 0 ? own : files;
}

/** While it is shut off a VM has no ids: then the images tell, one of which lies on the other. */
function isOf({ id, serial, file, backingFiles }: VmDisk, then: RunDisk): boolean {
  if (then.id === id || (serial !== undefined && then.serial === serial)) return true;
  const { source } = then;
  return [file, ...backingFiles].includes(source.file) || (source.below ?? []).includes(file);
}

/** Why a run that is encrypted, or not, cannot lie on that file; undefined if it can. */
export function whyNotAlike({ file }: RunDisk, run: string, isToBeEncrypted: boolean): string | undefined {
  const isSo = file.encryption !== undefined;
  if (isSo === isToBeEncrypted) return undefined;
  return isSo ? `run ${run} is encrypted, and this one is not` : `run ${run} is not encrypted, and this one is`;
}
