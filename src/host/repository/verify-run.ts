// Verifies a run: each file of its chains against its record, by header, size, order and sums, and by `qemu-img check`.
// What was found is kept beside the run, since the run itself never changes: a run that was found damaged is the base of
// no other.
import { readFile } from 'node:fs/promises';
import { createHash } from 'node:crypto';
import { dirname, join } from 'node:path';
import * as v from 'valibot';
import type { Deadline } from '../../deadline.js';
import { BridgeError, DeadlineError, describeError, isErrno } from '../../errors.js';
import { makeFolder, writeDurably } from '../images/durable-file.js';
import { runQemuImg } from '../images/qemu-img-task.js';
import { isReadOnly } from './repository-lock.js';
import { chainOf, checkLink, type Link } from './chain.js';
import { whyDamaged } from './extents.js';
import type { VmFolder } from './layout.js';
import type { RunManifest } from './run-manifest.js';

const verdictSchema = v.strictObject({
  format: v.literal(1),
  run: v.string(),
  verifiedAt: v.string(),
  /** Sentences; none if it is sound. */
  problems: v.array(v.string()),
});
export type Verdict = v.InferOutput<typeof verdictSchema>;

export interface VerifyOptions {
  readonly deadline: Deadline;
  readonly signal: AbortSignal;
  readonly onProgress: (text: string) => void;
}

/** Looks at files once, however many runs lie on them. */
export class Verifier {
  readonly #folder: VmFolder;
  readonly #runs: readonly RunManifest[];
  readonly #options: VerifyOptions;
  readonly #known = new Map<string, readonly string[]>();

  constructor(folder: VmFolder, runs: readonly RunManifest[], options: VerifyOptions) {
    this.#folder = folder;
    this.#runs = runs;
    this.#options = options;
  }

  /**
   * What was found is recorded, unless the repository is read-only. Throws what keeps it from looking, which says nothing about the run, and leaves its last
   * verdict alone: the signal's reason when aborted, a DeadlineError, a file that cannot be opened, a qemu-img that is not
   * there. Throws what cannot be recorded, too.
   */
  async verify(manifest: RunManifest): Promise<Verdict> {
    const problems = await this.problemsOf(manifest);
    const { run } = manifest;
    const verdict: Verdict = { format: 1, run, verifiedAt: new Date().toISOString(), problems: [...problems] };
    const file = this.#folder.verified(run);
    try {
      await makeFolder(dirname(file));
      await writeDurably(file, `${JSON.stringify(verdict, undefined, 2)}\n`);
    } catch (error) {
      // Whoever reads it was told of that by its lock.
      if (!isReadOnly(error)) throw error;
    }
    return verdict;
  }

  /** Throws as `verify`. */
  async problemsOf(manifest: RunManifest): Promise<readonly string[]> {
    const problems: string[] = [];
    for (const disk of manifest.disks) {
      try {
        const chain = chainOf(this.#folder, this.#runs, manifest, disk);
        for (const link of chain.toReversed()) problems.push(...(await this.#problemsOfLink(link)));
      } catch (error) {
        problems.push(damageIn(error, `${disk.file.name} of run ${manifest.run}`));
      }
    }
    problems.push(...(await this.#problemsOfSaved(manifest)));
    return [...new Set(problems)];
  }

  async #problemsOfLink(link: Link): Promise<readonly string[]> {
    const known = this.#known.get(link.file);
    if (known !== undefined) return known;
    const problems = await this.#look(link);
    this.#known.set(link.file, problems);
    return problems;
  }

  async #look(link: Link): Promise<readonly string[]> {
    const { file, disk, run } = link;
    const { signal, deadline, onProgress } = this.#options;
    const what = `${disk.file.name} of run ${run}`;
    const { limitMs } = deadline;
    try {
      await checkLink(link);
      let read = 0;
      const onRead = (bytes: number): void => {
        read += bytes;
        if (deadline.passed) throw new DeadlineError(`verifying ${what}`, limitMs);
        onProgress(`verifying ${what}: ${Math.floor((100 * read) / Math.max(1, disk.file.size))} %`);
      };
      const damage = await whyDamaged(file, disk.file, { signal, onRead });
      if (damage !== undefined) return [`${what}: ${damage}`];
      const image = `json:${JSON.stringify({ driver: 'qcow2', file: { driver: 'file', filename: file }, backing: null })}`;
      // 3: clusters are leaked, which harms nobody.
      await runQemuImg(['check', '-q', image], { deadline, signal, answers: [3] });
      return [];
    } catch (error) {
      signal.throwIfAborted();
      return [damageIn(error, what)];
    }
  }

  async #problemsOfSaved({ run, saved }: RunManifest): Promise<string[]> {
    const problems: string[] = [];
    for (const { name, sha256 } of saved) {
      const what = `${name} of run ${run}`;
      try {
        const bytes = await readFile(join(this.#folder.run(run), name));
        const sum = createHash('sha256').update(bytes).digest('hex');
        if (sum !== sha256) problems.push(`${what}: it is damaged`);
      } catch (error) {
        problems.push(damageIn(error, what));
      }
    }
    return problems;
  }
}

/** What `qemu-img check` ends with for an image that it cannot open as one, and for one that is corrupt. */
const CHECK_FAILS = [1, 2];
/** Words of an open(2) that failed for want of rights or of room on this host. */
const HOST_WORDS =
  /Permission denied|Operation not permitted|Too many open files|Cannot allocate memory|Stale file handle/;

/** The damage that the error tells of, for people. Throws the error if it tells of none: it says nothing about the run. */
function damageIn(error: unknown, what: string): string {
  if (error instanceof BridgeError) {
    if (error.code === 'E_CHAIN') return error.message;
    const isCheck = error.code === 'E_QEMU_IMG' && CHECK_FAILS.includes(Number(error.facts['exitCode']));
    if (isCheck && !HOST_WORDS.test(error.message)) return `${what}: ${error.message}`;
  }
  // What the storage cannot give back any more.
  if (isErrno(error, 'ENOENT', 'ENOTDIR', 'EISDIR', 'EIO', 'EUCLEAN', 'EBADMSG'))
    return `${what}: ${describeError(error)}`;
  throw error;
}

/** What the last verification found; undefined if there was none. */
export async function lastVerdict(folder: VmFolder, run: string): Promise<Verdict | undefined> {
  try {
    const parsed = v.safeParse(verdictSchema, JSON.parse(await readFile(folder.verified(run), 'utf8')));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}
