// Keeps what the last boot test of a run found, beside the run, with what was seen on its screen and on its serial console.
// The test itself is boot/.
import { readFile, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import * as v from 'valibot';
import { finite } from '../../consistency.js';
import { defined } from '../../defined.js';
import { CutError, describeError } from '../../errors.js';
import { makeFolder, writeDurably } from '../images/durable-file.js';
import type { VmFolder } from './layout.js';
import { isReadOnly } from './repository-lock.js';

export const accelerators = ['kvm', 'tcg'] as const;

const bootVerdictSchema = v.strictObject({
  format: v.literal(1),
  run: v.string(),
  bootedAt: v.string(),
  /** What it ran on when it was judged. */
  accelerator: v.picklist(accelerators),
  /** From its start until its agent answered (milliseconds); absent if it never did. */
  agentMs: v.optional(finite),
  /** The whole test (milliseconds). */
  testMs: finite,
  /** What was looked at once the agent had answered. `detail` is for people. */
  checks: v.array(v.strictObject({ what: v.string(), passed: v.boolean(), detail: v.string() })),
  /** Sentences; none if it passed. */
  problems: v.array(v.string()),
  /** For people: what was not looked at, or not as it should be, and is no fault of the run. */
  notes: v.array(v.string()),
});
export type BootVerdict = v.InferOutput<typeof bootVerdictSchema>;

/** A verdict as it is told of with its run. */
export type ToldBoot = Omit<BootVerdict, 'format' | 'run'>;

export function toldBoot({ bootedAt, accelerator, agentMs, testMs, checks, problems, notes }: BootVerdict): ToldBoot {
  return { bootedAt, accelerator, ...defined({ agentMs }), testMs, checks, problems, notes };
}

/** What was seen of the guest. */
export interface BootSights {
  /** A PNG image; undefined if there was none to be had. */
  readonly screen: Buffer | undefined;
  readonly console: Buffer;
}

/** Files that tell of a boot test, absolute. */
export interface BootFiles {
  readonly screenshot?: string;
  readonly console?: string;
}

/**
 * Records it in place of the one before. Gives the files that were kept: none where the repository is read-only. Throws a
 * CutError (`E_WRITE`) that tells the verdict, if it cannot be written.
 */
export async function recordBoot(folder: VmFolder, verdict: BootVerdict, sights: BootSights): Promise<BootFiles> {
  const { run } = verdict;
  const file = folder.booted(run, 'json');
  const screenshot = folder.booted(run, 'png');
  const console = folder.booted(run, 'log');
  try {
    await makeFolder(dirname(file));
    await writeDurably(console, sights.console);
    // That of an earlier test must not stand beside this one's verdict.
    if (sights.screen === undefined) await rm(screenshot, { force: true });
    else await writeDurably(screenshot, sights.screen);
    await writeDurably(file, `${JSON.stringify(verdict, undefined, 2)}\n`);
  } catch (error) {
    // Whoever reads it was told of that by its lock.
    if (isReadOnly(error)) return {};
    const { problems } = verdict;
    const found = problems.length === 0 ? 'passed its boot test' : `failed its boot test (${problems.join('; ')})`;
    const message = `run ${run} ${found}, which could not be recorded: ${describeError(error)}`;
    throw new CutError('E_WRITE', message, { cause: error });
  }
  return sights.screen === undefined ? { console } : { screenshot, console };
}

/** What the last boot test found; undefined if there was none. */
export async function lastBootVerdict(folder: VmFolder, run: string): Promise<BootVerdict | undefined> {
  try {
    const parsed = v.safeParse(bootVerdictSchema, JSON.parse(await readFile(folder.booted(run, 'json'), 'utf8')));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}
