// Verifies a run: each file of its chains against its record, by header, size, order and sums, and by `qemu-img check`.
// What was found is kept beside the run, since the run itself never changes: a run that was found damaged is the base of
// no other.
import { readFile } from 'node:fs/promises';
import { createHash } from 'node:crypto';
import { dirname, join } from 'node:path';
import * as v from 'valibot';
import type { Deadline } from '../../deadline.js';
import { BridgeError, DeadlineError, describeError, isErrno, UsageError } from '../../errors.js';
import { makeFolder, writeDurably } from '../images/durable-file.js';
import type { LuksKey } from '../images/luks-key.js';
import { runQemuImg } from '../images/qemu-img-task.js';
import { isReadOnly } from './repository-lock.js';
import { chainOf, checkLink, type Link } from './chain.js';
import { chainName } from './chain-name.js';
import { whyDamaged } from './extents.js';
import type { VmFolder } from './layout.js';
import type { RunManifest } from './run-manifest.js';

const verdictSchema = v.strictObject({
  format: v.literal(1),
  run: v.string(),
  verifiedAt: v.string(),
  /** Sentences; none if it is sound. */
  problems: v.array(v.string()),
  /** Sentences: what was not looked into, for want of its key. Absent in verdicts of older versions. */
  unchecked: v.optional(v.array(v.string()), []),
});
export type Verdict = v.InferOutput<typeof verdictSchema>;

/** What is known of files of a run. */
export type Findings = Pick<Verdict, 'problems' | 'unchecked'>;

export interface VerifyOptions {
  readonly deadline: Deadline;
  readonly signal: AbortSignal;
  /** Without it, or by another one, what is encrypted is looked at from outside alone. */
  readonly key: LuksKey | undefined;
  readonly onProgress: (text: string) => void;
}

/** Looks at files once, however many runs lie on them. */
export class Verifier {
  readonly #folder: VmFolder;
  readonly #runs: readonly RunManifest[];
  readonly #options: VerifyOptions;
  readonly #known = new Map<string, Findings>();

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
    const { problems: seen, unchecked } = await this.findingsOf(manifest);
    const { run } = manifest;
    // Who saw less now than somebody before knows nothing of damage that only shows from inside.
    const before = unchecked.length === 0 ? [] : ((await lastVerdict(this.#folder, run))?.problems ?? []);
    const problems = [...new Set([...seen, ...before])];
    const verdict: Verdict = { format: 1, run, verifiedAt: new Date().toISOString(), problems, unchecked };
    const file = this.#folder.verified(run);
    try {
      await makeFolder(dirname(file));
      // Older versions know no other entries.
      const told = { ...verdict, unchecked: unchecked.length === 0 ? undefined : unchecked };
      await writeDurably(file, `${JSON.stringify(told, undefined, 2)}\n`);
    } catch (error) {
      // Whoever reads it was told of that by its lock.
      if (!isReadOnly(error)) throw error;
    }
    return verdict;
  }

  /** Throws as `verify`. */
  async findingsOf(manifest: RunManifest): Promise<Findings> {
    const problems: string[] = [];
    const unchecked: string[] = [];
    for (const disk of manifest.disks) {
      try {
        const chain = chainOf(this.#folder, this.#runs, manifest, disk);
        for (const link of chain.toReversed()) {
          const found = await this.#findingsOfLink(link);
          problems.push(...found.problems);
          unchecked.push(...found.unchecked);
        }
      } catch (error) {
        problems.push(damageIn(error, `${disk.file.name} of run ${manifest.run}`));
      }
    }
    problems.push(...(await this.#problemsOfSaved(manifest)));
    return { problems: [...new Set(problems)], unchecked: [...new Set(unchecked)] };
  }

  async #findingsOfLink(link: Link): Promise<Findings> {
    const known = this.#known.get(link.file);
    if (known !== undefined) return known;
    const found = await this.#look(link);
    this.#known.set(link.file, found);
    return found;
  }

  async #look(link: Link): Promise<Findings> {
    const { file, disk, run } = link;
    const { signal, deadline, key, onProgress } = this.#options;
    const what = `${disk.file.name} of run ${run}`;
    const { limitMs } = deadline;
    try {
      await checkLink(link, { signal, key: undefined });
      let read = 0;
      const onRead = (bytes: number): void => {
        read += bytes;
        if (deadline.passed) throw new DeadlineError(`verifying ${what}`, limitMs);
        onProgress(`verifying ${what}: ${Math.floor((100 * read) / Math.max(1, disk.file.size))} %`);
      };
      const damage = await whyDamaged(file, disk.file, { signal, onRead });
      if (damage !== undefined) return { problems: [`${what}: ${damage}`], unchecked: [] };
      if (link.encryption !== undefined) {
        const without = `${what} is encrypted, and only its sums were compared`;
        if (key === undefined) return { problems: [], unchecked: [`${without}: no key was given`] };
        await checkLink(link, { signal, key });
      }
      // 3: clusters are leaked, which harms nobody.
      await runQemuImg(['check', '-q', chainName([link])], { deadline, signal, key, answers: [3] });
      return { problems: [], unchecked: [] };
    } catch (error) {
      signal.throwIfAborted();
      // Its header is what it was, as its sums say.
      if (error instanceof UsageError && error.code === 'E_KEY') return { problems: [], unchecked: [error.message] };
      return { problems: [damageIn(error, what)], unchecked: [] };
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
