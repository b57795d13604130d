// The cache of what is built: images, kernels, probes, saved guests, the answer about the accelerator. Each thing has a
// folder, named by the hash of all that went into it. It is built beside and renamed into place, under a lock that dies with
// its holder.
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { BridgeError } from '../errors.js';
import { say } from './progress.js';

export type CacheKind = 'images' | 'kernels' | 'probes' | 'states';

/** `FSB_CACHE_DIR`, else `$XDG_CACHE_HOME/fsfreeze-bridge`, else `~/.cache/fsfreeze-bridge`. */
export function cacheDirectory(): string {
  const own = process.env['FSB_CACHE_DIR'];
  if (own !== undefined && own !== '') return path.resolve(own);
  const xdg = process.env['XDG_CACHE_HOME'];
  return path.join(xdg !== undefined && path.isAbsolute(xdg) ? xdg : path.join(homedir(), '.cache'), 'fsfreeze-bridge');
}

/** A short name for everything in `parts` together. */
export function keyOf(...parts: readonly (string | Uint8Array)[]): string {
  const hash = createHash('sha256');
  for (const part of parts) {
    hash.update(`${part.length}:`);
    hash.update(part);
  }
  return hash.digest('hex').slice(0, 20);
}

export async function hashOfFile(file: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

export async function exists(file: string): Promise<boolean> {
  return await stat(file).then(
    () => true,
    () => false,
  );
}

/**
 * The folder `kind/name` of the cache; `build` fills it if it is not there. Only one process builds at a time: others
 * wait, at most `limitMs` (BridgeError `E_CACHE_LOCK`). Leftovers of a dead builder are thrown away.
 */
export async function cached(
  kind: CacheKind,
  name: string,
  limitMs: number,
  build: (directory: string) => Promise<void>,
): Promise<string> {
  const parent = path.join(cacheDirectory(), kind);
  const directory = path.join(parent, name);
  if (await touch(directory)) return directory;
  await mkdir(parent, { recursive: true });
  await withLock(path.join(parent, `.lock-${name}`), limitMs, async () => {
    if (await touch(directory)) return;
    const building = path.join(parent, `.building-${name}`);
    await rm(building, { recursive: true, force: true });
    await mkdir(building);
    try {
      await build(building);
      await rename(building, directory);
    } catch (cause) {
      if (process.env['FSB_INSPECT'] === '1') say(`left for inspection: ${building}`);
      else await rm(building, { recursive: true, force: true });
      throw cause;
    }
  });
  return directory;
}

/** Marks a folder as used now (the newest are kept); false if it does not exist. */
export async function touch(directory: string): Promise<boolean> {
  const now = new Date();
  return await utimes(directory, now, now).then(
    () => true,
    () => false,
  );
}

/**
 * Deletes all but the `keep` last used folders of a kind whose names begin with `prefix`, and never one that `inUse`
 * claims.
 */
export async function prune(
  kind: CacheKind,
  prefix: string,
  keep: number,
  inUse: (directory: string) => Promise<boolean>,
): Promise<void> {
  const parent = path.join(cacheDirectory(), kind);
  const found: { directory: string; usedMs: number }[] = [];
  for (const name of await readdir(parent).catch(() => [])) {
    const directory = path.join(parent, name);
    const info = name.startsWith(prefix) ? await stat(directory).catch(() => undefined) : undefined;
    if (info?.isDirectory() === true) found.push({ directory, usedMs: info.mtimeMs });
  }
  found.sort((a, b) => b.usedMs - a.usedMs);
  for (const { directory } of found.slice(keep)) {
    if (await inUse(directory)) continue;
    await rm(directory, { recursive: true, force: true });
    await rm(path.join(parent, `.lock-${path.basename(directory)}`), { force: true });
  }
}

/**
 * Runs `work` under an exclusive lock on a file, held by a child that ends with us: it waits on our pipe. The kernel
 * lets go of it however we die, so there is no stale lock to recognise.
 */
async function withLock(file: string, limitMs: number, work: () => Promise<void>): Promise<void> {
  const seconds = Math.ceil(limitMs / 1000);
  const script = 'echo locked; read -r _ || :';
  const holder = execa(
    'flock',
    ['--no-fork', '--wait', String(seconds), '--conflict-exit-code', '75', file, 'sh', '-c', script],
    {
      stdin: 'pipe',
      stdout: 'pipe',
      stderr: 'pipe',
      reject: false,
    },
  );
  const waiting = setTimeout(() => {
    say('waiting for another process that builds the same');
  }, 2000);
  const locked = new Promise<boolean>((resolve) => {
    holder.stdout.once('data', () => {
      resolve(true);
    });
    void holder.then(() => {
      resolve(false);
    });
  });
  const got = await locked.finally(() => {
    clearTimeout(waiting);
  });
  if (!got) {
    const { exitCode, stderr, shortMessage } = await holder;
    throw new BridgeError(
      'E_CACHE_LOCK',
      exitCode === 75
        ? `${file}: another process has held this lock for ${seconds} s`
        : `cannot lock ${file}: ${stderr === '' ? (shortMessage ?? 'flock failed') : stderr}`,
    );
  }
  try {
    await work();
  } finally {
    holder.stdin.end();
    await holder;
  }
}

/** Tells others that the process `pid` (a guest) has files of `directory` open; undone by what it gives back. */
export async function markUser(directory: string, pid: number): Promise<() => Promise<void>> {
  const mark = path.join(directory, 'users', String(pid));
  await mkdir(path.dirname(mark), { recursive: true });
  await writeFile(mark, '');
  return async () => {
    await rm(mark, { force: true });
  };
}

/** True while a marked guest lives; the marks of dead ones do not count. */
export async function hasUsers(directory: string): Promise<boolean> {
  for (const pid of await readdir(path.join(directory, 'users')).catch(() => [])) {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''); // a zombie's is empty
    if (command.includes('qemu-system') || command.includes('uml_dir=')) return true;
  }
  return false;
}
