// What a run of `torture -- backup` is, from the seed and its number alone: a VM with two disks, and what is done to it, to
// its backups and to those who make them.
import { Dice } from '../dice.js';
import { generator } from '../draw.js';
import type { Act, ActKind, DrawnWrite, Strike } from './act.js';

/** `apart`: a qcow2 whose data lies in a raw file beside it. */
export const FORMATS = ['raw', 'qcow2', 'apart'] as const;

export interface BackupDraw {
  /** Of the two disks that the VM begins with. */
  readonly formats: readonly (typeof FORMATS)[number][];
  readonly acts: readonly Act[];
  /** Its runs are encrypted. */
  readonly isEncrypted: boolean;
}

/** What the draw thinks of the VM, so that most acts find what they need. */
interface Guess {
  sets: number;
  runs: number;
  on: boolean;
  plugged: boolean;
}

export function drawBackup(seed: number, index: number): BackupDraw {
  const next = generator(Math.imul(seed, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b) ^ 0xbac0b);
  next();
  const dice = new Dice(next);
  // Dice of their own: what else is drawn of a seed stays what it was before there were such disks.
  const others = new Dice(generator(seed ^ Math.imul(index + 1, 0x27d4eb2f)));
  const format = (): (typeof FORMATS)[number] => {
    if (dice.chance(0.3)) return 'raw';
    return others.chance(0.3) ? 'apart' : 'qcow2';
  };
  const formats = [format(), format()];
  const guess: Guess = { sets: 0, runs: 0, on: true, plugged: false };
  const acts: Act[] = [{ kind: 'write', writes: drawWrites(dice) }];
  const length = dice.whole(10, 16);
  while (acts.length < length) acts.push(drawAct(dice, drawKind(dice, guess), guess));
  return { formats, acts, isEncrypted: dice.chance(0.25) };
}

function drawKind(dice: Dice, { sets, runs, on, plugged }: Guess): ActKind {
  const has = runs > 0 ? 1 : 0;
  const overlaid = sets > 0 ? 1 : 0;
  return dice.of<ActKind>([
    ['write', 24],
    ['backup', has === 0 ? 70 : 40],
    ['snapshot', [7, 3, 0][sets] ?? 0],
    ['commit', 8 * overlaid],
    ['revert', 5 * overlaid],
    ['forget', runs > 1 ? 6 : 0],
    ['keep', runs > 1 ? 5 : 0],
    ['restore', 3 * has],
    ['put back', 4 * has],
    ['verify', 3 * has],
    ['damage', 3 * has],
    ['lose', runs > 1 ? 3 : 0],
    ['resize', sets === 0 ? 4 : 0],
    ['plug', on && !plugged ? 4 : 0],
    ['unplug', on && plugged ? 6 : 0],
    ['bitmap', 2],
    ['stop', on ? 8 : 0],
    ['start', on ? 0 : 20],
    ['recover', 3],
  ]);
}

function drawAct(dice: Dice, kind: ActKind, guess: Guess): Act {
  switch (kind) {
    case 'write':
      return { kind, writes: drawWrites(dice) };
    case 'backup':
      return drawRun(dice, guess);
    case 'forget':
    case 'lose':
      guess.runs--;
      return { kind, run: dice.part() };
    case 'restore':
      return { kind, run: dice.part() };
    case 'put back':
      guess.on = guess.plugged = false;
      return { kind, run: dice.part(), killedAfterMs: dice.chance(0.5) ? dice.whole(300, 1500) : undefined };
    case 'damage':
      return { kind, run: dice.part(), disk: dice.part(), at: dice.part() };
    case 'keep':
      guess.runs = 2;
      return { kind, count: dice.whole(1, 3) };
    case 'resize':
      return { kind, disk: dice.part() };
    case 'stop':
      guess.on = guess.plugged = false;
      return { kind, how: dice.chance(0.5) ? 'kill' : 'quit' };
    case 'start':
      guess.on = true;
      return { kind };
    case 'snapshot':
      guess.sets++;
      guess.on = true;
      return { kind };
    case 'commit':
      guess.sets--;
      guess.on = true;
      return { kind };
    case 'plug':
    case 'unplug':
      guess.plugged = kind === 'plug';
      return { kind };
    case 'verify':
    case 'revert':
    case 'recover':
    case 'bitmap':
      return { kind };
  }
}

function drawRun(dice: Dice, guess: Guess): Act {
  const strike = drawStrike(dice);
  if (strike === undefined) guess.runs++;
  if (strike?.ending === 'QEMU killed') guess.on = guess.plugged = false;
  const off = strike === undefined && guess.runs > 1 && dice.chance(0.15);
  guess.on = !off;
  const words: string[] = ['--keep-checkpoints', String(dice.whole(1, 4)), '--max-chain', String(dice.whole(3, 8))];
  if (dice.chance(0.12)) words.push('--full');
  const compression = dice.of([
    [undefined, 6],
    ['zlib', 1],
    ['zstd', 1],
  ] as const);
  if (compression !== undefined) words.push('--compress', compression);
  // So slow that what is copied is overwritten meanwhile.
  if (dice.chance(0.4)) words.push('--limit', String(dice.whole(2, 8)));
  const writes = dice.chance(0.6) ? Array.from({ length: 20 }, () => drawWrite(dice)) : [];
  return { kind: 'backup', words, disk: dice.chance(0.1) ? dice.part() : undefined, off, writes, strike };
}

function drawStrike(dice: Dice): Strike | undefined {
  const ending = dice.of([
    [undefined, 52],
    ['tool killed', 17],
    ['QEMU killed', 8],
    ['interrupted', 8],
    ['job cancelled', 7],
    ['guest refuses', 4],
    ['no space', 4],
  ] as const);
  if (ending === undefined) return undefined;
  return { ending, at: dice.part(), laterMs: dice.chance(0.4) ? dice.whole(0, 800) : undefined };
}

function drawWrites(dice: Dice): DrawnWrite[] {
  return Array.from({ length: dice.whole(1, 6) }, () => drawWrite(dice));
}

function drawWrite(dice: Dice): DrawnWrite {
  const what = dice.of([
    ['bytes', 8],
    ['zeroes', 2],
    ['discard', 2],
  ] as const);
  return { disk: dice.part(), at: dice.part(), kilobytes: dice.whole(1, dice.chance(0.3) ? 700 : 90), what };
}
