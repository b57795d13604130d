// The text of a mount table as the freeze path sees it.
import { mountTable, type MountTable } from '../../src/linux/mounts.js';
import { parseMountinfo, type Mount } from '../../src/linux/mountinfo.js';
import { atOnce } from '../../src/linux/turns.js';

/** `text`: as people write it; the kernel's are bytes. */
export function mountsOf(text: string | Buffer): readonly Mount[] {
  return atOnce(parseMountinfo(Buffer.from(text).toString('latin1')));
}

export function tableOf(text: string | Buffer): MountTable {
  return atOnce(mountTable(mountsOf(text)));
}
