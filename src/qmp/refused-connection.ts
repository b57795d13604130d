// Says why no connection to a monitor socket came about, and whether a monitor may be there all the same.
import { UnreachableError } from '../errors.js';

/** The error for what connect(2) gave: `E_MONITOR` if no socket listens there, `E_MONITOR_UNKNOWN` for all else. */
export function refusedConnection(path: string, cause: NodeJS.ErrnoException): UnreachableError {
  const errno = cause.code ?? '';
  const code = nobodyThere.includes(errno) ? 'E_MONITOR' : 'E_MONITOR_UNKNOWN';
  const reason = refusals[errno] ?? cause.message;
  return new UnreachableError(code, `monitor ${path}: ${reason}`, { cause, facts: { errno } });
}

/** The errors of connect(2) for a name at which no socket listens; unix(7) has no third. */
const nobodyThere: readonly string[] = ['ENOENT', 'ECONNREFUSED'];

const refusals: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such socket (is the VM running?)',
  ECONNREFUSED: 'nobody listens there (the VM is shut off, or this is no socket)',
  EACCES: 'no permission to connect',
  EAGAIN: 'it is in use by another program, and others wait for it already',
  ENOTDIR: 'its path leads through what is no folder',
  EPROTOTYPE: 'this is a socket of another type',
};
