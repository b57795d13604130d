// Finds who listens at a socket's name, by the kernel's table of unix sockets (/proc/net/unix, of this network
// namespace). A refused connection does not prove that nobody listens. A QEMU's relative names are found through it,
// too: they lie in the folder that the listening process was started in.
import { readFile, readdir, readlink } from 'node:fs/promises';
import { basename, isAbsolute, join } from 'node:path';
import { fileKey, resolvedPath } from './same-file.js';

interface BoundSocket {
  readonly name: string;
  readonly inode: string;
}

/** Sockets that were bound and are connected to nobody: they listen, did so, or are about to. */
async function boundSockets(): Promise<BoundSocket[]> {
  const table = await readFile('/proc/net/unix', 'utf8').catch(() => '');
  const found: BoundSocket[] = [];
  for (const line of table.split('\n').slice(1)) {
    // `Num RefCount Protocol Flags Type St Inode Path`; the path may hold blanks.
    const match = /^\S+ \S+ \S+ \S+ \S+ (\S+)\s+(\d+) (.+)$/.exec(line);
    const [, state, inode, name] = match ?? [];
    if (state === '01' && inode !== undefined && name !== undefined) found.push({ name, inode });
  }
  return found;
}

async function socketsAt(path: string): Promise<BoundSocket[]> {
  const own = await resolvedPath(path);
  const found: BoundSocket[] = [];
  for (const socket of await boundSockets()) {
    // Bound by a relative name: which folder it was is not told.
    const isIt = isAbsolute(socket.name)
      ? (await resolvedPath(socket.name)) === own
      : basename(socket.name) === basename(own);
    if (isIt) found.push(socket);
  }
  return found;
}

/** True if a process has a socket that was bound to this name: it is not free, though it may refuse. */
export async function isBound(path: string): Promise<boolean> {
  return (await socketsAt(path)).length > 0;
}

interface Listener {
  /** Where its relative names lie. */
  readonly folder: string;
  readonly files: readonly OpenFile[];
}

/**
 * The processes that have the socket: QEMU, or a relay in its place. None if it is no path, or they are not ours to
 * see.
 */
async function listenersAt(path: string): Promise<Listener[]> {
  if (!isAbsolute(path)) return [];
  const inodes = new Set((await socketsAt(path)).map(({ inode }) => `socket:[${inode}]`));
  const found: Listener[] = [];
  for (const pid of (await readdir('/proc')).filter((entry) => /^\d+$/.test(entry))) {
    const files = await openFiles(pid);
    if (!files.some(({ target }) => inodes.has(target))) continue;
    const folder = await readlink(`/proc/${pid}/cwd`).catch(() => undefined);
    if (folder !== undefined) found.push({ folder, files });
  }
  return found;
}

/**
 * The file that the QEMU behind the monitor calls by this name: a relative one lies in the working folder of the process
 * that listens there and has it open. Undefined if that is not known.
 */
export async function imageOf(monitorPath: string, name: string): Promise<string | undefined> {
  if (isAbsolute(name)) return name;
  for (const { folder, files } of await listenersAt(monitorPath)) {
    if (await hasOpen(files, join(folder, name))) return join(folder, name);
  }
  return undefined;
}

/** The key (same-file.ts) of the file that `imageOf` finds; undefined if that is not known. */
export async function imageKey(monitorPath: string, name: string): Promise<string | undefined> {
  const file = await imageOf(monitorPath, name);
  return file === undefined ? undefined : await fileKey(file);
}

/** `imageKey`, to tell files apart; the name alone of a file that is not known. */
export async function keyOrName(monitorPath: string, name: string): Promise<string> {
  return (await imageKey(monitorPath, name)) ?? name;
}

/** The paths that a socket may have which the QEMU behind the monitor calls by this name. */
export async function socketsOf(monitorPath: string, name: string): Promise<string[]> {
  if (isAbsolute(name)) return [name];
  return (await listenersAt(monitorPath)).map(({ folder }) => join(folder, name));
}

interface OpenFile {
  readonly link: string;
  readonly target: string;
}

async function openFiles(pid: string): Promise<OpenFile[]> {
  const fds = await readdir(`/proc/${pid}/fd`).catch(() => []);
  const found: OpenFile[] = [];
  for (const fd of fds) {
    const link = `/proc/${pid}/fd/${fd}`;
    const target = await readlink(link).catch(() => undefined);
    if (target !== undefined) found.push({ link, target });
  }
  return found;
}

async function hasOpen(files: readonly OpenFile[], file: string): Promise<boolean> {
  const own = await fileKey(file);
  for (const { link, target } of files) if (target.startsWith('/') && (await fileKey(link)) === own) return true;
  return false;
}
