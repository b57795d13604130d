// Finds the listening socket that the service manager has opened for this process (socket activation,
// sd_listen_fds(3)): descriptor 3. It overrides -m and -p, as in qemu-ga. It is the only way to a vsock: Node has no
// AF_VSOCK of its own.
import { fstatSync, readFileSync, readlinkSync } from 'node:fs';
import { UsageError } from '../errors.js';

export interface ActivatedSocket {
  readonly method: 'unix-listen' | 'vsock-listen';
  readonly fd: number;
  /** For messages. */
  readonly path: string;
}

const FIRST_FD = 3;

/**
 * Undefined if there is no socket for this process. Deletes the variables from `env`, so that no child takes them for
 * its own. Throws a UsageError with qemu-ga's text for more than one socket, and for a descriptor that is no such
 * socket.
 */
export function activatedSocket(env: Record<string, string | undefined>): ActivatedSocket | undefined {
  const { LISTEN_PID: pid, LISTEN_FDS: count } = env;
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) Reflect.deleteProperty(env, name);
  // `daemon`: handed on by the process that has started this one (src/cli/agent/daemonize.ts).
  if ((pid !== String(process.pid) && pid !== 'daemon') || count === undefined || !/^[1-9]\d*$/.test(count))
    return undefined;
  if (count !== '1') {
    throw new UsageError('E_LISTEN', `qemu-ga only supports listening on one socket, found LISTEN_FDS=${count}`);
  }
  return { method: methodOf(FIRST_FD), fd: FIRST_FD, path: `descriptor ${FIRST_FD}` };
}

function methodOf(fd: number): ActivatedSocket['method'] {
  let inode: string;
  try {
    fstatSync(fd);
    inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/self/fd/${fd}`))?.[1] ?? '';
  } catch (cause) {
    const { code = 'EBADF' } = cause as NodeJS.ErrnoException;
    throw new UsageError('E_LISTEN', `Socket activation failed: invalid file descriptor fd = ${fd}: ${code}`, {
      cause,
    });
  }
  if (inode !== '') {
    if (isListed('unix', inode)) return 'unix-listen';
    // The kernel lists the sockets of every family but vsocks.
    if (!['tcp', 'tcp6', 'udp', 'udp6', 'netlink', 'packet', 'raw', 'raw6'].some((kind) => isListed(kind, inode))) {
      return 'vsock-listen';
    }
  }
  throw new UsageError('E_LISTEN', `unsupported listen fd type: expected a unix or vsock socket as descriptor ${fd}`);
}

function isListed(kind: string, inode: string): boolean {
  try {
    const rows = readFileSync(`/proc/self/net/${kind}`, 'utf8').split('\n');
    return rows.some((row) => row.split(/\s+/).includes(inode));
  } catch {
    return false;
  }
}
