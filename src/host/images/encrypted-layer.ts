// What can be known of an encrypted qcow2 without its key, which only the VM has: qemu-img opens none, not even to say which
// clusters are allocated. Specification: QEMU docs/interop/qcow2.txt (header, L1 table).
import { open, type FileHandle } from 'node:fs/promises';

const QCOW2_MAGIC = 0x514649fb;
const HEADER_BYTES = 48;
/** QEMU's own bound. */
const MAX_L1_BYTES = 32 * 1024 * 1024;
const CHUNK_BYTES = 65_536;

/**
 * Undefined if the file is no encrypted qcow2. It holds data if a table of clusters was ever begun: once written to, also
 * if all was discarded since. Throws what open(2) and read(2) do.
 */
export async function encryptedLayer(file: string): Promise<{ readonly holdsData: boolean } | undefined> {
  const handle = await open(file, 'r');
  try {
    const { bytesRead, buffer: header } = await handle.read(Buffer.alloc(HEADER_BYTES), 0, HEADER_BYTES, 0);
    if (bytesRead < HEADER_BYTES || header.readUInt32BE(0) !== QCOW2_MAGIC || header.readUInt32BE(32) === 0) {
      return undefined;
    }
    const bytes = Math.min(8 * header.readUInt32BE(36), MAX_L1_BYTES);
    return { holdsData: await hasEntry(handle, Number(header.readBigUInt64BE(40)), bytes) };
  } finally {
    await handle.close();
  }
}

async function hasEntry(handle: FileHandle, from: number, bytes: number): Promise<boolean> {
  for (let at = 0; at < bytes; at += CHUNK_BYTES) {
    const chunk = Buffer.alloc(Math.min(CHUNK_BYTES, bytes - at));
    const { bytesRead } = await handle.read(chunk, 0, chunk.length, from + at);
    if (chunk.subarray(0, bytesRead).some((byte) => byte !== 0)) return true;
  }
  return false;
}
