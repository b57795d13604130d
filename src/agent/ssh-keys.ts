// Reads and changes ~/.ssh/authorized_keys of a user of the guest. The home belongs to the user, who may put links
// there and change them at any time. So .ssh is opened before anything is written, as a folder and no link, and the
// file is reached through that descriptor.
import { constants } from 'node:fs';
import { chmod, chown, mkdir, open, readFile, rename, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { isErrno } from '../errors.js';
import { refuse } from '../qga/server.js';
import { RemoteError } from '../rpc/errors.js';
import { errnoText } from './errno-text.js';
import { LOOK_LIMIT_MS, type Sources } from './kernel-files.js';

interface User {
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
}

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK } = constants;
const FILE_NAME = 'authorized_keys';

/** Keys as they are in the file, comments and empty lines left out; the last one first, as qemu-ga lists them. */
export async function readKeys(sources: Sources, username: string): Promise<string[]> {
  const { home } = await lookUp(sources, username);
  const path = join(home, '.ssh', FILE_NAME);
  let text: string;
  try {
    text = await readFile(path, { encoding: 'utf8', flag: O_RDONLY | O_NONBLOCK });
  } catch (error) {
    return refuse(`failed to read '${path}': Failed to open file \u201C${path}\u201D: ${errnoText(error)}`);
  }
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .reverse();
}

/** Adds the keys that are not there yet; with `reset`, in the place of all that are there. */
export async function addKeys(
  sources: Sources,
  username: string,
  keys: readonly string[],
  reset: boolean,
): Promise<void> {
  checkKeys(keys);
  const user = await lookUp(sources, username);
  await makeFolder(join(user.home, '.ssh'), user);
  await changeLines(user, (old) => {
    const lines = reset ? [] : (old ?? []);
    return [...lines, ...keys.filter((key, index) => !lines.includes(key) && keys.indexOf(key) === index)];
  });
}

/** Removes every line that is one of the keys. */
export async function removeKeys(sources: Sources, username: string, keys: readonly string[]): Promise<void> {
  checkKeys(keys);
  const user = await lookUp(sources, username);
  await changeLines(user, (old) => old?.filter((line) => !keys.includes(line)));
}

function checkKeys(keys: readonly string[]): void {
  const bad = keys.find((key) => key.startsWith('#') || key.includes('\n'));
  if (bad !== undefined) refuse(`invalid OpenSSH public key: '${bad}'`);
}

async function lookUp({ run }: Sources, username: string): Promise<User> {
  const { exitCode, stdout } = await run('getent', ['passwd', '--', username], { limitMs: LOOK_LIMIT_MS });
  const [name, , uid, gid, , home] = stdout.split('\n', 1)[0]?.split(':') ?? [];
  // getent takes a number for a uid; a user's name is meant.
  if (exitCode !== 0 || name !== username || uid === undefined || gid === undefined || home === undefined) {
    return refuse(`failed to lookup user '${username}': no such user`);
  }
  return { uid: Number(uid), gid: Number(gid), home };
}

async function makeFolder(folder: string, user: User): Promise<void> {
  try {
    await mkdir(folder, { mode: 0o700 });
    await chown(folder, user.uid, user.gid);
    await chmod(folder, 0o700);
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) refuse(`failed to create directory '${folder}': ${errnoText(error)}`);
  }
}

/** @param change the lines to write, from those that are there (undefined: no file); undefined writes nothing */
async function changeLines(
  user: User,
  change: (old: readonly string[] | undefined) => readonly string[] | undefined,
): Promise<void> {
  const path = join(user.home, '.ssh', FILE_NAME);
  let folder: FileHandle;
  try {
    folder = await open(join(user.home, '.ssh'), O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  } catch (error) {
    // There is nothing to be removed.
    if (isErrno(error, 'ENOENT')) return;
    return refuse(`failed to write to '${path}': its folder: ${errnoText(error)}`);
  }
  try {
    const { uid } = await folder.stat();
    if (uid !== user.uid && uid !== 0) refuse(`failed to write to '${path}': its folder is of another user`);
    const place = `/proc/self/fd/${folder.fd}/${FILE_NAME}`;
    const lines = change(await readLines(place, path, user));
    if (lines !== undefined) await writeLines(place, lines, user);
  } catch (error) {
    if (error instanceof RemoteError) throw error;
    refuse(`failed to write to '${path}': ${errnoText(error)}`);
  } finally {
    await folder.close();
  }
}

/** Reads only a file of the user's own: its lines are written to a file that the user can read. */
async function readLines(place: string, path: string, { uid }: User): Promise<readonly string[] | undefined> {
  let file: FileHandle;
  try {
    file = await open(place, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    return refuse(`failed to read '${path}': ${errnoText(error)}`);
  }
  try {
    const stat = await file.stat();
    if (!stat.isFile() || stat.nlink !== 1 || (stat.uid !== uid && stat.uid !== 0)) {
      refuse(`failed to read '${path}': expected a plain file of the user's own`);
    }
    const lines = (await file.readFile('utf8')).split('\n');
    // A file that ends in a newline has no empty last line.
    return lines.at(-1) === '' ? lines.slice(0, -1) : lines;
  } finally {
    await file.close();
  }
}

async function writeLines(place: string, lines: readonly string[], { uid, gid }: User): Promise<void> {
  const fresh = `${place}.${process.pid}.new`;
  try {
    await rm(fresh, { force: true });
    const file = await open(fresh, 'wx', 0o600);
    try {
      await file.writeFile(lines.length === 0 ? '' : `${lines.join('\n')}\n`);
      await file.chown(uid, gid);
      await file.chmod(0o600);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(fresh, place);
  } catch (error) {
    await rm(fresh, { force: true });
    throw error;
  }
}
