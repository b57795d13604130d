// What every sequence must show, as complaints. Pure: works on what was read and on what the model expects.
import { admits, difference, type Contents, type World } from './contents.js';
import { errorOf, type Call } from './tool.js';

/** The gravest first. */
export const COMPLAINTS = [
  'lost write',
  'clone broken',
  'false claim',
  'file left',
  'not at rest',
  'internal error',
  'hang',
  'stale level',
  'harness',
] as const;

export interface Complaint {
  readonly kind: (typeof COMPLAINTS)[number];
  readonly text: string;
}

/** What a VM has, or would have if it were started from what the tool names. */
export function judgeVm(vm: string, where: string, world: World, found: Contents): Complaint[] {
  if (admits(world, found)) return [];
  return [{ kind: 'lost write', text: `VM ${vm}, ${where}: ${difference(world.options, found)}` }];
}

/** A set that claims to hold its cut. `cuts`: the instants that it may have been. */
export function judgeClaim(
  set: string,
  says: string,
  cuts: readonly Contents[],
  found: Contents,
  kind: 'false claim' | 'stale level' = 'false claim',
): Complaint[] {
  if (found.size === 0 || admits({ options: cuts, mixed: false }, found)) return [];
  return [{ kind, text: `set ${set} says ${says}: ${difference(cuts, found)}` }];
}

/** The tool's own account: refusals are fine, bugs and hangs are not. */
export function judgeCall(call: Call, limitMs: number): Complaint[] {
  const { words, code, stderr, tookMs, struck } = call;
  const what = words.filter((word) => !word.startsWith('/')).join(' ');
  if (tookMs >= limitMs) return [{ kind: 'hang', text: `${what}: no end within ${limitMs} ms` }];
  if (code === 1 || errorOf(call)?.code === 'E_INTERNAL')
    return [{ kind: 'internal error', text: `${what}: ${errorOf(call)?.message ?? stderr.trim().slice(-400)}` }];
  if (code === undefined && !struck)
    return [
      { kind: 'internal error', text: `${what}: ended by a signal that nobody sent; ${stderr.trim().slice(-400)}` },
    ];
  return [];
}

/** Files of the image folders and of the state folder that nobody speaks for. */
export function judgeFiles(files: readonly string[], spokenFor: ReadonlySet<string>, findings: string): Complaint[] {
  return files
    .filter((file) => !spokenFor.has(file) && !findings.includes(file))
    .map((file) => ({ kind: 'file left', text: `${file} is named by no set, and by nothing that recover found` }));
}
