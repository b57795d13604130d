// Lets QEMU reach a file that it is to write to: as the image of the disk, by the same owner and group. A filesystem may
// refuse that (an NFS export that squashes users): then QEMU's opening of the file decides.
import { stat, type FileHandle } from 'node:fs/promises';
import { CutError, describeError } from '../../errors.js';
import { isChownRefusal } from '../repository/run-draft.js';

/** Nobody reads or writes it who cannot do that to the image: others never, its group if it is the image's. */
const OWNER = 0o600;
const GROUP = 0o060;

/**
 * Gives the file to the image's owner and group. Where that is refused: how it is and how it should be, for people; they
 * need it only if QEMU cannot open the file. Throws what stat(2) does, and any other failure of chown(2) or chmod(2).
 */
export async function likeImage(handle: FileHandle, file: string, image: string): Promise<string | undefined> {
  const { uid, gid, mode } = await stat(image);
  const own = await handle.stat();
  const refusal = own.uid === uid && own.gid === gid ? undefined : await chownRefusal(handle, uid, gid);
  // An owner without rights may still give it to a group that he is in.
  if (refusal !== undefined) await chownRefusal(handle, own.uid, gid);
  const now = await handle.stat();
  await handle.chmod(OWNER | (now.gid === gid ? mode & GROUP : 0));
  if (refusal === undefined) return undefined;
  const expected = `expected owner and group ${uid}:${gid}, as ${image} has them, found ${now.uid}:${now.gid}`;
  return `${file}: ${expected}, since chown was refused (${refusal}): let QEMU's user write there, or export the repository without squashing users`;
}

async function chownRefusal(handle: FileHandle, uid: number, gid: number): Promise<string | undefined> {
  try {
    await handle.chown(uid, gid);
    return undefined;
  } catch (error) {
    if (isChownRefusal(error)) return String(error.code);
    throw error;
  }
}

/** The error, with what likeImage told if that may be why. */
export function withOwners(error: unknown, refused: readonly string[]): unknown {
  if (!(error instanceof CutError) || refused.length === 0) return error;
  const said = describeError(error);
  if (!/Permission denied|Operation not permitted/.test(said)) return error;
  const { code, cause, facts, outcome } = error;
  return new CutError(code, [said, ...refused].join('; '), { cause, facts, outcome });
}
