// Names what lies in the folder of a VM that is started from a run, beside its images.
import { join } from 'node:path';
import { UsageError } from '../../errors.js';

export class StartFolder {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** For whoever looks after the VM. */
  get qmp(): string {
    return join(this.path, 'qmp.sock');
  }

  get agent(): string {
    return join(this.path, 'agent.sock');
  }

  /** The serial console. */
  get console(): string {
    return join(this.path, 'console.sock');
  }

  /** A monitor of our own: each serves one client at a time. */
  get control(): string {
    return join(this.path, 'start.sock');
  }

  /** What is known of the start, until the images are whole. */
  get record(): string {
    return join(this.path, 'start.json');
  }

  /** Who is at it. */
  get lock(): string {
    return join(this.path, 'start.lock');
  }

  /** What QEMU says. */
  get log(): string {
    return join(this.path, 'qemu.log');
  }
}

/** sun_path holds 108 bytes with its closing NUL. */
const SOCKET_BYTES = 107;

/** Throws a UsageError `E_SOCKET_PATH` if the names of the sockets would be too long. */
export function checkSocketNames({ agent, console, control, qmp }: StartFolder): void {
  const longest = Math.max(...[agent, console, control, qmp].map((path) => Buffer.byteLength(path)));
  if (longest <= SOCKET_BYTES) return;
  const message = `sockets are made in the folder, and a path of ${longest} bytes is too long for one (${SOCKET_BYTES}): name one with a shorter path`;
  throw new UsageError('E_SOCKET_PATH', message);
}
