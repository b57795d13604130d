// Finds the name that an overlay's header must give its base, so that the VM reads the same bytes when it is started
// from the overlay: the base's path if that says everything, else QEMU's own name with every option. A path loses the
// options that a base may be opened with: an offset and a size, a key, a backing file other than its header's.
import type { VmDisk } from '../../qmp/block-graph.js';
import { parseImageName, type ImageName } from '../../qmp/image-name.js';
import { backingOf } from '../images/references.js';

/** QEMU's bound for a name in a qcow2 header. */
const MAX_NAME_BYTES = 1023;

interface BackingName {
  readonly name?: string;
  /** Why no header could say it; there if there is no name. */
  readonly why?: string;
}

export async function backingNameOf({ file, name }: VmDisk): Promise<BackingName> {
  const parsed = parseImageName(name);
  if (parsed.file === undefined) return { why: `its image is ${file}, expected a local file` };
  if (await saysPathAll(parsed.file, parsed)) return { name: file };
  const bytes = Buffer.byteLength(name);
  if (bytes <= MAX_NAME_BYTES) return { name };
  return { why: `its options take ${bytes} bytes, and an overlay can name its base with ${MAX_NAME_BYTES} at most` };
}

// libvirt names every layer to QEMU, and QEMU then tells of a backing file even if it is the one the header names.
async function saysPathAll(file: string, { options, backing }: ImageName): Promise<boolean> {
  if (options.length === 0) return true;
  if (options.length > 1 || backing === undefined) return false;
  const header = await backingOf(file).catch(() => undefined);
  if (backing === null) return header === undefined;
  const below = parseImageName(backing);
  return header !== undefined && below.file === header && (await saysPathAll(header, below));
}
