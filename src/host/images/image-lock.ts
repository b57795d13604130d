// Asks for QEMU's own lock of an image by QEMU's own tool. The tool knows the locks of every format, and those of a
// QEMU on another machine that shares the file, which /proc here does not show. Specification: QEMU docs/system/images,
// "Image locking".
import { stat } from 'node:fs/promises';
import { BridgeError, UsageError } from '../../errors.js';

const LIMIT_MS = 30_000;

/**
 * True if some QEMU, on whatever machine, has the image open so that nobody else may write to it: as a disk, or as a
 * layer below one. Nothing is written: it is opened for writing, as bytes, and closed. Throws a BridgeError if that
 * cannot be found out.
 */
export async function isLockedByQemu(file: string): Promise<boolean> {
  const { execa } = await import('execa');
  const driver = (await stat(file)).isBlockDevice() ? 'host_device' : 'file';
  const image = `driver=raw,file.driver=${driver},file.filename=${file.replaceAll(',', ',,')}`;
  const result = await execa('qemu-io', ['--image-opts', image, '-c', 'quit'], {
    timeout: LIMIT_MS,
    reject: false,
    stdin: 'ignore',
  });
  if (!result.failed) return false;
  if (result.code === 'ENOENT') throw new UsageError('E_QEMU_IO', 'qemu-io is not installed (Debian: qemu-utils)');
  if (/Failed to get .*lock/.test(result.stderr)) return true;
  const reason = result.timedOut ? `no end within ${LIMIT_MS} ms` : result.stderr.trim().split('\n').join('; ');
  throw new BridgeError('E_QEMU_IO', `whether a QEMU has locked ${file}: ${reason}`);
}
