// Opens a repository of backups, or makes one. Its format has a version: a newer one is refused, and never guessed at.
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { isErrno, UsageError } from '../../errors.js';
import { syncPath } from '../images/durable-file.js';
import { REPOSITORY_FILE } from '../images/run-file.js';
import { LOCKS, VmFolder } from './layout.js';
import { takePlace } from './take-place.js';

const REPOSITORY_FORMAT = 1;

const repositorySchema = v.strictObject({
  format: v.literal(REPOSITORY_FORMAT),
  /** Eight hexadecimal digits; checkpoints in VMs are called by it. */
  id: v.pipe(v.string(), v.regex(/^[0-9a-f]{8}$/)),
  createdAt: v.string(),
});

export interface Repository {
  readonly path: string;
  readonly id: string;
}

/** Throws a UsageError `E_REPOSITORY` if there is none, or one of a format that this version does not know. */
export async function openRepository(path: string): Promise<Repository> {
  const file = join(path, REPOSITORY_FILE);
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    const hint = isErrno(cause, 'ENOENT', 'ENOTDIR') ? ': "backup run --to" makes one in an empty folder' : '';
    throw new UsageError('E_REPOSITORY', `${path} is no repository of backups${hint}`, { cause });
  }
  const json = parsed(text);
  const format = v.safeParse(v.object({ format: v.number() }), json);
  if (format.success && format.output.format !== REPOSITORY_FORMAT) {
    const message = `${file} has format ${format.output.format}, this version knows ${REPOSITORY_FORMAT}: use a newer one`;
    throw new UsageError('E_REPOSITORY', message);
  }
  const known = v.safeParse(repositorySchema, json);
  if (known.success) return { path, id: known.output.id };
  const [issue] = known.issues;
  throw new UsageError('E_REPOSITORY', `${file}: ${v.getDotPath(issue) ?? 'the whole'}: ${issue.message}`);
}

/**
 * The repository, if it is there; undefined where one can be made: the folder is empty, or not there. Throws a UsageError
 * for any other folder.
 */
export async function openIfThere(path: string): Promise<Repository | undefined> {
  const entries = await entriesOf(path);
  if (entries.includes(REPOSITORY_FILE)) return await openRepository(path);
  const strange = entries.filter((name) => name !== 'lost+found' && !name.startsWith(`${REPOSITORY_FILE}.`));
  if (strange.length === 0) return undefined;
  const message = `${path} is no repository, and not empty (${strange.slice(0, 3).join(', ')}): expected an empty folder`;
  throw new UsageError('E_REPOSITORY', message);
}

/**
 * Makes one where openIfThere found that it can be, unless another tool has made it since: what is there counts. Throws a
 * UsageError if the folder cannot be written to, or cannot hold one.
 */
export async function makeRepository(path: string): Promise<Repository> {
  const repository = {
    format: REPOSITORY_FORMAT,
    id: randomBytes(4).toString('hex'),
    createdAt: new Date().toISOString(),
  };
  try {
    // QEMU, which may run as another user, goes through the folders to the files that it is given.
    await mkdir(path, { mode: 0o711 }).catch((error: unknown) => {
      if (!isErrno(error, 'EEXIST')) throw error;
    });
    // Never over one that is there: whoever works with its id already records in VMs by it.
    await takePlace(join(path, REPOSITORY_FILE), `${JSON.stringify(repository, undefined, 2)}\n`);
    await mkdir(join(path, LOCKS), { recursive: true, mode: 0o750 });
    await syncPath(path);
  } catch (cause) {
    throw new UsageError('E_REPOSITORY', `cannot make a repository in ${path}`, { cause });
  }
  return await openRepository(path);
}

/** The folders of VMs. Throws a UsageError if the repository cannot be listed. */
export async function vmFolders({ path }: Repository): Promise<VmFolder[]> {
  const entries = await readdir(path, { withFileTypes: true }).catch((cause: unknown) => {
    throw new UsageError('E_REPOSITORY', `cannot list ${path}`, { cause });
  });
  return entries
    .filter((entry) => entry.isDirectory() && entry.name !== LOCKS && !/^[.]|^lost\+found$/.test(entry.name))
    .map(({ name }) => new VmFolder(path, name))
    .sort((a, b) => a.key.localeCompare(b.key));
}

async function entriesOf(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (cause) {
    if (isErrno(cause, 'ENOENT')) return [];
    throw new UsageError('E_REPOSITORY', `cannot use ${path} as a repository`, { cause });
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
