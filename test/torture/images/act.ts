// The acts there are. Where one means one of several (a set, a disk, an instant) it holds a number from 0 to 1 that
// chooses among those there are.

/** A SIGKILL while a command of the tool works: at a line of its talk with the monitor, or at a time. */
export interface Strike {
  readonly who: 'tool' | 'QEMU';
  readonly by: 'line' | 'time';
  readonly at: number;
}

export interface DrawnWrite {
  readonly disk: number;
  readonly at: number;
  readonly blocks: number;
}

interface OfTool {
  readonly vm: number;
  readonly strike: Strike | undefined;
}
interface OfSet extends OfTool {
  readonly set: number;
}
export type Act =
  | ({ readonly kind: 'write'; readonly vm: number } & DrawnWrite)
  | ({
      readonly kind: 'cut';
      readonly name: number;
      /** The VM is called by a second name. */
      readonly alias: boolean;
      /** Of several disks only this one. */
      readonly disk: number | undefined;
      readonly writes: readonly DrawnWrite[];
    } & OfTool)
  /** `off`: with the VM shut off, if the tool can do that. */
  | ({ readonly kind: 'commit'; readonly off: boolean; readonly writes: readonly DrawnWrite[] } & OfSet)
  | ({ readonly kind: 'revert' | 'delete'; readonly off: boolean } & OfSet)
  | ({ readonly kind: 'copy' } & OfSet)
  | ({ readonly kind: 'prune'; readonly keep: number } & OfTool)
  | ({ readonly kind: 'recover' } & OfTool)
  | { readonly kind: 'stop'; readonly vm: number; readonly how: 'kill' | 'quit' }
  | { readonly kind: 'start'; readonly vm: number; readonly from: 'told' | 'base' | 'last' }
  | {
      readonly kind: 'foreign';
      readonly vm: number;
      readonly set: number;
      readonly on: 'base' | 'overlay';
      readonly runs: boolean;
    }
  | { readonly kind: 'unplug'; readonly vm: number; readonly disk: number }
  | { readonly kind: 'migrate'; readonly vm: number; readonly to: 'file' | 'QEMU' }
  | { readonly kind: 'end migration'; readonly vm: number; readonly how: 'complete' | 'cancel' };
export type ActKind = Act['kind'];

export const ACT_KINDS: readonly ActKind[] = [
  'cut',
  'write',
  'commit',
  'revert',
  'delete',
  'copy',
  'prune',
  'recover',
  'stop',
  'start',
  'foreign',
  'unplug',
  'migrate',
  'end migration',
];

/** For people: what is needed to do it by hand. */
export function describeAct(act: Act): string {
  const { kind, vm, ...rest } = act;
  const words = Object.entries(rest).map(([key, value]) => {
    if (key === 'strike') return value === undefined ? '' : describeStrike(value as Strike);
    if (key === 'writes') return (value as readonly unknown[]).length > 0 ? 'while the guest writes' : '';
    if (value === undefined || value === false) return '';
    return value === true ? key : `${key} ${typeof value === 'number' ? Number(value.toFixed(2)) : String(value)}`;
  });
  return [kind, `(VM ${'ab'[vm] ?? '?'})`, ...words.filter((word) => word !== '')].join(' ');
}

function describeStrike({ who, by, at }: Strike): string {
  return `SIGKILL of ${who} at ${at.toFixed(3)} of its ${by === 'line' ? 'lines' : 'time'}`;
}
