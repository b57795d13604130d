// Reads what a writer says of itself: the `# fsfreeze-writer: KEY=VALUE` lines in the comment block at the head of a
// script, or a sidecar file NAME.json for programs that have no comments. A file without either is a plain hook. A
// description with a mistake makes the writer a reported problem, never a plain hook. Manual:
// fsfreeze-hook.d/README.md.
import * as v from 'valibot';
import { guarantees, writerPhases, type WriterPhase } from '../../consistency.js';
import { PROCESS_NAME_CHARACTERS } from '../../linux/process-names.js';

export const PLAIN_RANK = 50;

const seconds = v.pipe(v.number(), v.gtValue(0), v.maxValue(3600));

const descriptionSchema = v.pipe(
  v.strictObject({
    phases: v.pipe(v.array(v.picklist(writerPhases)), v.minLength(1)),
    rank: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(99)), PLAIN_RANK),
    /** Limits in seconds, by phase. */
    timeout: v.optional(v.strictObject(v.entriesFromList(writerPhases, v.optional(seconds))), {}),
    required: v.optional(v.boolean(), true),
    /** It is one process from prepare to thaw, which is asked line by line (resident.ts). */
    resident: v.optional(v.boolean()),
    /** Absolute paths that the application keeps its data in; without them every session concerns the writer. */
    covers: v.optional(v.array(v.pipe(v.string(), v.startsWith('/'))), []),
    /** It takes part only where a process of one of these names runs. */
    processes: v.optional(
      v.pipe(v.array(v.pipe(v.string(), v.minLength(1), v.maxLength(PROCESS_NAME_CHARACTERS))), v.minLength(1)),
    ),
    /** The systemd unit that it speaks for; for people. */
    service: v.optional(v.string()),
    guarantee: v.optional(v.picklist([...guarantees, 'none'])),
    /** Seconds for which its hold may outlive its process. */
    lingers: v.optional(seconds),
    /**
     * Where the volumes of a session are cut one after another it has freeze and thaw besides, and guarantees this
     * instead: an application that recovers by itself needs all its files of one instant.
     */
    apart: v.optional(v.literal('held')),
  }),
  v.check(
    ({ phases }) => phases.includes('freeze') || phases.includes('prepare'),
    'phases: expected prepare or freeze among them',
  ),
  v.check(
    ({ phases }) => !phases.includes('freeze') || phases.includes('thaw'),
    'phases: a writer with freeze needs thaw',
  ),
  v.check(
    ({ phases, guarantee }) => guarantee === 'none' || phases.includes('verify') === (guarantee !== undefined),
    'guarantee: expected with verify, and only with it (a guarantee nobody verifies is no proof), or none',
  ),
  v.check(
    ({ phases, resident }) => resident !== true || (phases.includes('prepare') && phases.includes('freeze')),
    'phases: a resident writer needs prepare, freeze and thaw',
  ),
  v.check(
    ({ phases, resident }) => resident !== true || !phases.includes('abort'),
    'phases: a resident writer has no abort, it is told of a failure with thaw, or ended',
  ),
  v.check(
    ({ apart, guarantee, resident, phases }) =>
      apart === undefined || (guarantee === 'recoverable' && resident !== true && !phases.includes('freeze')),
    'apart: expected of a writer that is no resident, guarantees recoverable, and has no freeze of its own',
  ),
  v.check(
    ({ lingers, resident }) => lingers === undefined || resident === true,
    'lingers: expected of a resident writer alone (the end of any other proves nothing)',
  ),
  v.check(
    ({ phases, resident }) => resident !== true || !phases.includes('complete'),
    'phases: a resident writer has no complete, which may come hours after its end',
  ),
);
export type WriterDescription = v.InferOutput<typeof descriptionSchema>;

/** `problem` names what was expected and what was found. */
export type Described =
  | { readonly kind: 'plain' }
  | { readonly kind: 'described'; readonly description: WriterDescription }
  | { readonly kind: 'bad'; readonly problem: string };

/**
 * Reads the head of a script (its first kilobytes are enough). The block ends at the first line that is neither a
 * comment nor empty. Never throws.
 */
export function describeScript(head: string): Described {
  const lines = head.split('\n');
  if (lines[0]?.startsWith('#!') !== true) return { kind: 'plain' };
  const fields = new Map<string, string>();
  for (const [index, line] of lines.entries()) {
    if (!/^\s*(#|$)/.test(line)) break;
    // Close misses count as mistakes: a description that is silently none would turn a proof into a claim.
    if (!/^\s*#+\s*fsfreeze-writer\b/i.test(line)) continue;
    const field = /^# fsfreeze-writer: ([a-z.]+)=(.*)$/.exec(line.trimEnd());
    const [, key, value] = field ?? [];
    const bad = (problem: string): Described => ({ kind: 'bad', problem: `line ${index + 1}: ${problem}` });
    if (key === undefined || value === undefined)
      return bad(`expected "# fsfreeze-writer: KEY=VALUE", found ${JSON.stringify(line)}`);
    if (fields.has(key)) return bad(`${key} is given twice`);
    fields.set(key, value.trim());
  }
  return fields.size === 0 ? { kind: 'plain' } : parsed(fromFields(fields));
}

/** Reads a sidecar. Never throws. */
export function describeSidecar(json: string): Described {
  try {
    return parsed(JSON.parse(json));
  } catch (error) {
    return { kind: 'bad', problem: `not JSON: ${error instanceof Error ? error.message : String(error)}` };
  }
}

function parsed(input: unknown): Described {
  const result = v.safeParse(descriptionSchema, input);
  if (result.success) return { kind: 'described', description: result.output };
  const [issue] = result.issues;
  const path = v.getDotPath(issue);
  return { kind: 'bad', problem: path === null ? issue.message : `${path}: ${issue.message}` };
}

// Turns text into the sidecar's JSON, so that one schema judges both. A value that cannot be turned stays text, for the
// schema to name.
function fromFields(fields: ReadonlyMap<string, string>): unknown {
  const words = (text: string): string[] => text.split(/\s+/).filter((word) => word !== '');
  const number = (text: string): number | string => (/^\d+(\.\d+)?$/.test(text) ? Number(text) : text);
  const timeout: Record<string, number | string> = {};
  const description: Record<string, unknown> = {};
  for (const [key, value] of fields) {
    if (key.startsWith('timeout.')) timeout[key.slice('timeout.'.length)] = number(value);
    else if (key === 'phases' || key === 'covers' || key === 'processes') description[key] = words(value);
    else if (key === 'rank' || key === 'lingers') description[key] = number(value);
    else if (key === 'required' || key === 'resident')
      description[key] = value === 'true' || value === 'false' ? value === 'true' : value;
    else description[key] = value;
  }
  return Object.keys(timeout).length === 0 ? description : { ...description, timeout };
}

/** The limit of each phase, in milliseconds, unless description or settings say otherwise. */
export const phaseLimitsMs: Readonly<Record<WriterPhase, number>> = {
  prepare: 60_000,
  freeze: 10_000,
  verify: 2_000,
  thaw: 10_000,
  abort: 10_000,
  post: 60_000,
  complete: 60_000,
};
