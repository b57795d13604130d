// Makes and removes the folder of one running guest, where its sockets, overlays and logs lie.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { UsageError } from '../errors.js';
import { say } from './progress.js';

const LONGEST_SOCKET_PATH = 107; // sizeof(sockaddr_un.sun_path) - 1

/** The places of a guest's sockets and files in its folder. */
export interface GuestPaths {
  readonly dir: string;
  readonly qmpPath: string;
  readonly qgaPath: string;
  readonly fixtureQmpPath: string;
  readonly execPath: string;
  /** The management console of a user-mode kernel. */
  readonly managementPath: string;
  readonly consolePath: string;
  readonly logPath: string;
}

export function guestPaths(dir: string): GuestPaths {
  return {
    dir,
    qmpPath: path.join(dir, 'qmp.sock'),
    qgaPath: path.join(dir, 'qga.sock'),
    fixtureQmpPath: path.join(dir, 'fixture.sock'),
    execPath: path.join(dir, 'exec.sock'),
    managementPath: path.join(dir, 'uml/guest/mconsole'),
    consolePath: path.join(dir, 'console.log'),
    logPath: path.join(dir, 'qemu.log'),
  };
}

/** Makes a folder for a guest. Throws UsageError `E_PATH_LENGTH` if the sockets in it would have too long a path. */
export async function guestDirectory(): Promise<string> {
  const dir = await mkdtemp(path.join(tmpdir(), 'fsb-'));
  const longest = `${guestPaths(dir).managementPath}.12345678`;
  if (Buffer.byteLength(longest) > LONGEST_SOCKET_PATH) {
    throw new UsageError(
      'E_PATH_LENGTH',
      `${longest}: too long for a unix socket (${LONGEST_SOCKET_PATH} bytes); set TMPDIR`,
    );
  }
  return dir;
}

/** Removes a guest's folder; with FSB_INSPECT=1 says where it is instead. */
export async function removeFolder(dir: string): Promise<void> {
  if (process.env['FSB_INSPECT'] === '1') say(`guest's folder left for inspection: ${dir}`);
  else await rm(dir, { recursive: true, force: true });
}

/** The end of a log, for error messages. */
export async function lastLines(file: string): Promise<string> {
  const text = await readFile(file, 'utf8').catch(() => '');
  return text === '' ? '(nothing)' : text.slice(-1500);
}
