// The acts of `torture -- backup`. Where one means one of several (a disk, a run, an instant) it holds a number from 0 to 1
// that chooses among those there are.

export interface DrawnWrite {
  readonly disk: number;
  readonly at: number;
  readonly kilobytes: number;
  /** A discard is of whole clusters, and only where no overlay lies over them; else it is a write of zeroes. */
  readonly what: 'bytes' | 'zeroes' | 'discard';
}

/** What ends a backup before its time. */
export const ENDINGS = [
  'tool killed',
  'QEMU killed',
  'interrupted',
  'job cancelled',
  'guest refuses',
  'no space',
] as const;
export type Ending = (typeof ENDINGS)[number];

export interface Strike {
  readonly ending: Ending;
  /** The line of the tool's talk with the monitor at which it strikes. */
  readonly at: number;
  /** So long after that line, while the talk goes on; without it the talk stands still at the line. */
  readonly laterMs: number | undefined;
}

export type Act =
  | { readonly kind: 'write'; readonly writes: readonly DrawnWrite[] }
  | {
      readonly kind: 'backup';
      readonly words: readonly string[];
      /** Of several disks only this one. */
      readonly disk: number | undefined;
      /** The VM is shut off before. */
      readonly off: boolean;
      /** What the guest writes while its disks are copied. */
      readonly writes: readonly DrawnWrite[];
      readonly strike: Strike | undefined;
    }
  | { readonly kind: 'forget' | 'restore' | 'lose'; readonly run: number }
  /** In place; the tool is killed so long after its start, and called again. */
  | { readonly kind: 'put back'; readonly run: number; readonly killedAfterMs: number | undefined }
  | { readonly kind: 'damage'; readonly run: number; readonly disk: number; readonly at: number }
  | { readonly kind: 'keep'; readonly count: number }
  | { readonly kind: 'resize'; readonly disk: number }
  | { readonly kind: 'stop'; readonly how: 'kill' | 'quit' }
  | { readonly kind: 'verify' | 'snapshot' | 'commit' | 'revert' | 'recover' | 'start' | 'plug' | 'unplug' | 'bitmap' };
export type ActKind = Act['kind'];

export const ACT_KINDS: readonly ActKind[] = [
  'backup',
  'write',
  'forget',
  'keep',
  'restore',
  'put back',
  'verify',
  'damage',
  'lose',
  'snapshot',
  'commit',
  'revert',
  'resize',
  'plug',
  'unplug',
  'bitmap',
  'stop',
  'start',
  'recover',
];

/** For people: what is needed to do it by hand. */
export function describeAct(act: Act): string {
  const { kind, ...rest } = act;
  const words = Object.entries(rest).map(([key, value]) => {
    if (key === 'strike') return value === undefined ? '' : describeStrike(value as Strike);
    if (key === 'writes')
      return kind === 'backup' && (value as readonly unknown[]).length > 0 ? 'while the guest writes' : '';
    if (key === 'words') return (value as readonly string[]).join(' ');
    if (value === undefined || value === false) return '';
    return value === true ? key : `${key} ${typeof value === 'number' ? Number(value.toFixed(2)) : String(value)}`;
  });
  return [kind, ...words.filter((word) => word !== '')].join(' ');
}

function describeStrike({ ending, at, laterMs }: Strike): string {
  const when = laterMs === undefined ? '' : `, ${laterMs} ms later`;
  return `(${ending} at ${at.toFixed(2)} of its lines${when})`;
}
