// Tells whether a qcow2 layer has anything allocated, by its own tables. They are read without QEMU, which wants the
// key of an encrypted layer for it, and without the layers below. Specification: QEMU docs/interop/qcow2.txt, "Cluster
// mapping".
import { open, type FileHandle } from 'node:fs/promises';
import { CutError } from '../../errors.js';

const QCOW2_MAGIC = 0x514649fb;
const HEADER_BYTES = 72;
/** QEMU's own bounds. */
const CLUSTER_BITS = { min: 9, max: 21 };
const MAX_L1_BYTES = 32 * 1024 * 1024;
/** Bits 9 to 55 of an entry. */
const TABLE_OFFSET = 0x00ff_ffff_ffff_fe00n;

/**
 * True if any cluster is allocated in the layer, as data or as zeros. While a VM has it open, clusters written last may be
 * missed. Throws a CutError for what is no qcow2 or is cut short, and what open(2) and read(2) do.
 */
export async function hasClusters(file: string): Promise<boolean> {
  const handle = await open(file, 'r');
  try {
    const header = await bytesAt(handle, file, 0, HEADER_BYTES);
    const clusterBits = header.readUInt32BE(20);
    if (header.readUInt32BE(0) !== QCOW2_MAGIC || clusterBits < CLUSTER_BITS.min || clusterBits > CLUSTER_BITS.max) {
      throw new CutError('E_FORMAT', `${file} is no qcow2 image`);
    }
    const l1Bytes = header.readUInt32BE(36) * 8;
    if (l1Bytes > MAX_L1_BYTES) throw new CutError('E_FORMAT', `${file}: its table of ${l1Bytes} bytes is too large`);
    const l1 = await bytesAt(handle, file, Number(header.readBigUInt64BE(40)), l1Bytes);
    for (let at = 0; at < l1.length; at += 8) {
      const l2Offset = Number(l1.readBigUInt64BE(at) & TABLE_OFFSET);
      if (l2Offset === 0) continue;
      const l2 = await bytesAt(handle, file, l2Offset, 2 ** clusterBits);
      if (l2.some((byte) => byte !== 0)) return true;
    }
    return false;
  } finally {
    await handle.close();
  }
}

async function bytesAt(handle: FileHandle, file: string, offset: number, length: number): Promise<Buffer> {
  const { bytesRead, buffer } = await handle.read(Buffer.alloc(length), 0, length, offset);
  if (bytesRead === length) return buffer;
  throw new CutError('E_FORMAT', `${file} is no whole qcow2 image: ${length} bytes expected at ${offset}`);
}
