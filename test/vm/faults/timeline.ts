// What fault-lab noted in the guest, as data, and what it shows: in which step the guest was at an instant. Pure.

/** The freezer's marker: how many filesystems are in each state. Undefined: there is none, nothing is frozen. */
export type MarkerState =
  { readonly intended: number; readonly frozen: number; readonly refused: number; readonly thawed: number } | undefined;

interface Phase {
  readonly writer: string;
  readonly phase: string;
  readonly pid: number;
  readonly beginNs: number;
  /** It came to its end by itself. */
  readonly endNs: number | undefined;
  /** Its process is gone. */
  readonly goneNs: number | undefined;
}

export interface Timeline {
  readonly markers: readonly { readonly ns: number; readonly state: MarkerState }[];
  readonly phases: readonly Phase[];
  /** Times without a write of the probe, longer than 50 ms; one that is under way ends at `nowNs`. */
  readonly gaps: readonly {
    readonly directory: string;
    readonly startNs: number;
    readonly endNs: number;
    readonly open: boolean;
  }[];
  /** Shorter ones, from one write to the next, of which the latter waited for more than 5 ms while something was marked. */
  readonly shortGaps: readonly { readonly directory: string; readonly startNs: number; readonly endNs: number }[];
  readonly shots: readonly { readonly ns: number; readonly state: MarkerState }[];
  /** Holds of the writers, by process. */
  readonly holds: readonly { readonly writer: string; readonly pid: number; readonly goneNs: number | undefined }[];
  /** The other lines, as they are: `act`, `process`, `foreign` ... */
  readonly notes: readonly (readonly string[])[];
  readonly probeErrors: readonly { readonly directory: string; readonly errno: number; readonly ns: number }[];
  /** Time in which the guest was not let run by the machine under it, added up to that instant. */
  readonly lost: readonly { readonly ns: number; readonly totalNs: number }[];
  readonly nowNs: number;
}

const OPEN_GAP_NS = 250e6;

function markerOf(words: readonly string[]): MarkerState {
  if (words[0] === 'none') return undefined;
  const [intended = 0, frozen = 0, refused = 0, thawed = 0] = words.map(Number);
  return { intended, frozen, refused, thawed };
}

/** Reads the lines of the timeline and of `fault-lab look`. */
export function parseTimeline(text: string): Timeline {
  const lines = text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.split(' '));
  const of = (kind: string) => lines.filter(([first]) => first === kind).map(([, ...rest]) => rest);
  const goneOf = new Map(of('gone').map(([pid, ns]) => [Number(pid), Number(ns)]));
  const ends = of('end');
  const nowNs = Number(of('now')[0]?.[0] ?? Number.NaN);
  const phases = of('begin').map(([writer = '', phase = '', pidText, beginText]) => {
    const pid = Number(pidText);
    const end = ends.find(([, , endPid, ns]) => Number(endPid) === pid && Number(ns) >= Number(beginText));
    return {
      writer,
      phase,
      pid,
      beginNs: Number(beginText),
      endNs: end === undefined ? undefined : Number(end[3]),
      goneNs: goneOf.get(pid),
    };
  });
  const gapsOf = (kind: string) =>
    of(kind).map(([directory = '', start, end]) => ({ directory, startNs: Number(start), endNs: Number(end) }));
  const gaps = gapsOf('gap').map((gap) => ({ ...gap, open: false }));
  for (const [directory = '', last] of of('last'))
    if (nowNs - Number(last) > OPEN_GAP_NS) gaps.push({ directory, startNs: Number(last), endNs: nowNs, open: true });
  const known = new Set([
    'begin',
    'end',
    'gap',
    'gone',
    'hold',
    'last',
    'lost',
    'marker',
    'now',
    'probe-error',
    'shot',
    'short',
  ]);
  return {
    markers: of('marker').map(([ns, ...words]) => ({ ns: Number(ns), state: markerOf(words) })),
    phases,
    gaps,
    shortGaps: gapsOf('short'),
    shots: of('shot').map(([ns, ...words]) => ({ ns: Number(ns), state: markerOf(words) })),
    holds: of('hold').map(([writer = '', , pid]) => ({ writer, pid: Number(pid), goneNs: goneOf.get(Number(pid)) })),
    notes: lines.filter(([kind = '']) => !known.has(kind)),
    probeErrors: of('probe-error').map(([directory = '', errno, ns]) => ({
      directory,
      errno: Number(errno),
      ns: Number(ns),
    })),
    lost: added(of('lost')),
    nowNs,
  };
}

function added(lines: readonly (readonly string[])[]): Timeline['lost'] {
  let totalNs = 0;
  return lines.map(([ns, more]) => ({ ns: Number(ns), totalNs: (totalNs += Number(more)) }));
}

/** Running time of the guest between two instants, in milliseconds. */
export function runningMs({ lost }: Timeline, fromNs: number, toNs: number): number {
  const until = (ns: number): number => lost.findLast((each) => each.ns <= ns)?.totalNs ?? 0;
  const total = toNs - fromNs;
  return Math.round((total - Math.min(Math.max(0, until(toNs) - until(fromNs)), Math.max(0, total))) / 1e5) / 10;
}

/** What the marker said at an instant, by the watch's own looks. */
export function markerAt({ markers }: Timeline, ns: number): MarkerState {
  return markers.findLast((each) => each.ns <= ns)?.state;
}

export const STEPS = ['prepare', 'hold', 'freeze', 'frozen', 'thaw', 'release'] as const;
export type Step = (typeof STEPS)[number];

/**
 * The step the guest was in at a shot: by the marker as it was read at that instant, and by the writers' phases that had
 * begun then. Undefined: no session was under way, or it was between two steps that the guest does not tell apart.
 */
export function stepAt(timeline: Timeline, shot: Timeline['shots'][number]): Step | undefined {
  const { state, ns } = shot;
  if (state !== undefined) {
    if (state.thawed > 0) return 'thaw';
    return state.intended > 0 ? 'freeze' : 'frozen';
  }
  const begun = timeline.phases.filter(({ beginNs }) => beginNs <= ns);
  const has = (phase: string): boolean => begun.some((each) => each.phase === phase);
  if (has('thaw')) {
    const running = begun.some(({ phase, endNs, goneNs }) => phase === 'thaw' && (endNs ?? goneNs ?? Infinity) > ns);
    const later = timeline.phases.some(({ phase, beginNs }) => phase === 'thaw' && beginNs > ns);
    return running || later ? 'release' : undefined;
  }
  const wasFrozen = timeline.markers.some(({ ns: at, state: seen }) => seen !== undefined && at <= ns);
  if (wasFrozen) return 'release';
  if (has('freeze')) return 'hold';
  return has('prepare') ? 'prepare' : undefined;
}

/** For people, without what is there in any case: the probe's short waits, the machine's. */
export function readable(text: string): string {
  const short = (line: string): boolean => {
    const [kind, , start, end] = line.split(' ');
    return kind === 'lost' || (kind === 'gap' && Number(end) - Number(start) < 400e6);
  };
  return text
    .split('\n')
    .filter((line) => !short(line))
    .map((line) => `         ${line}`)
    .join('\n');
}
