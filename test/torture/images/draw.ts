// What a run of `torture -- images` is, from the seed and its number alone: how two VMs and their folders lie, and what is
// done to them one after the other. Where an act means one of several (a set, a disk, an instant) it holds a number from
// 0 to 1 that chooses among those there are.
import { Dice } from '../dice.js';
import { generator } from '../draw.js';
import type { Act, ActKind, DrawnWrite, Strike } from './act.js';

export const SPELLINGS = ['plain', 'linked folder', 'linked file', 'relative'] as const;

interface DrawnDisk {
  readonly format: 'raw' | 'qcow2';
  /** A linked clone: it lies on an image that all VMs share, and that nobody writes to. */
  readonly golden: boolean;
}

export interface DrawnVm {
  readonly disks: readonly DrawnDisk[];
  readonly spelling: (typeof SPELLINGS)[number];
  readonly uuid: boolean;
  readonly paused: boolean;
}

export interface Layout {
  /** Both VMs have their images in one folder; else each in its own, under the same names. */
  readonly sharedImages: boolean;
  /** Both put their overlays into one folder; else beside the image. */
  readonly sharedOverlays: boolean;
  /** Both name their sets alike. */
  readonly sameNames: boolean;
  readonly vms: readonly [DrawnVm, DrawnVm];
}

export interface ImagesDraw {
  readonly layout: Layout;
  readonly acts: readonly Act[];
}

/** What the draw thinks of a VM, so that most acts find what they need. */
interface Guess {
  sets: number;
  names: number;
  runs: boolean;
  migrates: boolean;
  unplugged: boolean;
}

/** `lacks`: commands that the tool does not know yet; they are not drawn. */
export function drawImages(seed: number, index: number, lacks: ReadonlySet<ActKind>): ImagesDraw {
  const next = generator(Math.imul(seed, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b) ^ 0x1a5e5);
  next();
  const dice = new Dice(next);
  const layout = drawLayout(dice);
  const guesses = [0, 1].map((): Guess => ({ sets: 0, names: 0, runs: true, migrates: false, unplugged: false }));
  const acts: Act[] = [];
  const length = dice.whole(7, 10);
  // Most of the run is one VM's, so that its sets lie on each other.
  const main = dice.whole(0, 1);
  while (acts.length < length) {
    const vm = dice.chance(0.8) ? main : 1 - main;
    const guess = guesses[vm];
    if (guess === undefined) throw new Error(`no VM ${vm}`);
    const kind = acts.length === 0 ? 'write' : drawKind(dice, guess, layout.vms[vm]?.disks.length ?? 1, lacks);
    acts.push(drawAct(dice, kind, vm, guess));
  }
  return { layout, acts };
}

function drawLayout(dice: Dice): Layout {
  const vm = (): DrawnVm => ({
    disks: Array.from({ length: dice.chance(0.6) ? 2 : 1 }, () => {
      const golden = dice.chance(0.25);
      return { format: golden || dice.chance(0.5) ? 'qcow2' : 'raw', golden };
    }),
    spelling: dice.of([
      ['plain', 6],
      ['linked folder', 2],
      ['linked file', 1],
      ['relative', 0.4],
    ]),
    uuid: dice.chance(0.5),
    paused: dice.chance(0.3),
  });
  return {
    sharedImages: dice.chance(0.5),
    sharedOverlays: dice.chance(0.5),
    sameNames: dice.chance(0.6),
    vms: [vm(), vm()],
  };
}

function drawKind(dice: Dice, guess: Guess, disks: number, lacks: ReadonlySet<ActKind>): ActKind {
  const has = guess.sets > 0 ? 1 : 0;
  const runs = guess.runs ? 1 : 0;
  const weights: (readonly [ActKind, number])[] = [
    ['write', 14],
    ['cut', guess.migrates ? 3 : ([45, 12, 8][guess.sets] ?? 1)],
    ['commit', (guess.migrates ? 40 : 16) * has],
    ['revert', 9 * has],
    ['delete', 9 * has],
    ['copy', 8 * has],
    ['prune', guess.sets > 1 ? 10 : 2 * has],
    ['recover', 2],
    ['stop', 9 * runs],
    ['start', guess.runs ? 0 : 50],
    ['foreign', 8 * has],
    ['unplug', runs > 0 && disks > 1 && !guess.unplugged ? 5 : 0],
    ['migrate', guess.migrates ? 0 : (2 + 5 * has) * runs],
    ['end migration', guess.migrates ? 25 : 0],
  ];
  return dice.of(weights.filter(([kind]) => !lacks.has(kind)));
}

function drawAct(dice: Dice, kind: ActKind, vm: number, guess: Guess): Act {
  const write = (): DrawnWrite => ({ disk: dice.part(), at: dice.part(), blocks: dice.whole(1, 4) });
  const writes = (): DrawnWrite[] => (dice.chance(0.5) ? Array.from({ length: 12 }, write) : []);
  const strike = (qemuToo: boolean): Strike | undefined => {
    if (!dice.chance(0.28)) return undefined;
    const who = qemuToo && dice.chance(0.4) ? 'QEMU' : 'tool';
    if (who === 'QEMU') guess.runs = false;
    return { who, by: qemuToo && dice.chance(0.7) ? 'line' : 'time', at: dice.part() };
  };
  // The newest most of the time: it alone can be committed, reverted to or deleted.
  const set = (): number => (dice.chance(0.75) ? 1 : dice.part());
  switch (kind) {
    case 'write':
      return { kind, vm, ...write() };
    case 'cut': {
      const isNew = guess.names === 0 || !dice.chance(0.08);
      const name = isNew ? guess.names : dice.whole(0, guess.names - 1);
      if (isNew) guess.names++;
      guess.sets++;
      guess.runs = true;
      const disk = dice.chance(0.15) ? dice.part() : undefined;
      return { kind, vm, name, alias: dice.chance(0.15), disk, writes: writes(), strike: strike(true) };
    }
    case 'commit':
      guess.sets--;
      guess.runs = true;
      return { kind, vm, set: set(), off: dice.chance(0.2), writes: writes(), strike: strike(true) };
    case 'revert':
    case 'delete': {
      const off = dice.chance(0.85);
      if (kind === 'delete') guess.sets--;
      if (off) guess.runs = false;
      return { kind, vm, set: set(), off, strike: strike(false) };
    }
    case 'copy':
      return { kind, vm, set: set(), strike: strike(false) };
    case 'prune':
      guess.sets = Math.min(guess.sets, 1);
      return { kind, vm, keep: dice.whole(1, 2), strike: strike(false) };
    case 'recover':
      return { kind, vm, strike: strike(true) };
    case 'stop':
      guess.runs = guess.migrates = guess.unplugged = false;
      return { kind, vm, how: dice.chance(0.7) ? 'kill' : 'quit' };
    case 'start': {
      guess.runs = true;
      const from = dice.of([
        ['told', 4],
        ['base', 4],
        ['last', 2],
      ] as const);
      return { kind, vm, from };
    }
    case 'foreign':
      return { kind, vm, set: set(), on: dice.chance(0.6) ? 'base' : 'overlay', runs: dice.chance(0.25) };
    case 'unplug':
      guess.unplugged = true;
      return { kind, vm, disk: dice.part() };
    case 'migrate':
      guess.migrates = true;
      return { kind, vm, to: dice.chance(0.5) ? 'file' : 'QEMU' };
    case 'end migration':
      guess.migrates = false;
      return { kind, vm, how: dice.chance(0.6) ? 'complete' : 'cancel' };
  }
}
