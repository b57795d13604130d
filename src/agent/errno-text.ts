// Tells errors in glibc's words, which qemu-ga's messages have; Node's own words are libuv's. The table has the errors
// that a file or a program meets. The freezer's errors: src/linux/errno.ts.
import { constants } from 'node:os';

const texts: Readonly<Record<string, string>> = {
  E2BIG: 'Argument list too long',
  EACCES: 'Permission denied',
  EAGAIN: 'Resource temporarily unavailable',
  EBADF: 'Bad file descriptor',
  EBUSY: 'Device or resource busy',
  EDQUOT: 'Disk quota exceeded',
  EEXIST: 'File exists',
  EFBIG: 'File too large',
  EINVAL: 'Invalid argument',
  EIO: 'Input/output error',
  EISDIR: 'Is a directory',
  ELOOP: 'Too many levels of symbolic links',
  EMFILE: 'Too many open files',
  ENAMETOOLONG: 'File name too long',
  ENFILE: 'Too many open files in system',
  ENODEV: 'No such device',
  ENOENT: 'No such file or directory',
  ENOEXEC: 'Exec format error',
  ENOMEM: 'Cannot allocate memory',
  ENOSPC: 'No space left on device',
  ENOSYS: 'Function not implemented',
  ENOTDIR: 'Not a directory',
  ENOTEMPTY: 'Directory not empty',
  ENOTTY: 'Inappropriate ioctl for device',
  ENXIO: 'No such device or address',
  EOPNOTSUPP: 'Operation not supported',
  ENOTSUP: 'Operation not supported',
  EOVERFLOW: 'Value too large for defined data type',
  EPERM: 'Operation not permitted',
  EPIPE: 'Broken pipe',
  EROFS: 'Read-only file system',
  ESPIPE: 'Illegal seek',
  ESTALE: 'Stale file handle',
  ETIMEDOUT: 'Connection timed out',
  ETXTBSY: 'Text file busy',
  EXDEV: 'Invalid cross-device link',
};

/** The name, `ENOENT`; undefined if it is no system error. */
export function errnoName(error: unknown): string | undefined {
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
  // Node itself refuses a path with a NUL in it, before the kernel could.
  if (code === 'ERR_INVALID_ARG_VALUE') return 'EINVAL';
  return code !== undefined && /^E[A-Z0-9]+$/.test(code) ? code : undefined;
}

/** The text of strerror(3); the error's own message if it is no error of the kernel's. */
export function errnoText(error: unknown): string {
  const name = errnoName(error);
  if (name !== undefined) return texts[name] ?? name;
  return error instanceof Error ? error.message : String(error);
}

/** The number; 0 if it is no error of the kernel's. */
export function errnoNumber(error: unknown): number {
  const name = errnoName(error);
  const numbers: Readonly<Record<string, number>> = constants.errno;
  return name === undefined ? 0 : (numbers[name] ?? 0);
}
