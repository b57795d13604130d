// What a run of `torture -- backup --libvirt` is, from the seed and its number alone: a domain of libvirt with two disks, and
// what is done to it, to its backups, to libvirt's records and to those who make them. Where an act means one of several
// (a disk, a run) it holds a number from 0 to 1 that chooses among those there are.
import type { VirshStep } from '../../support/stopping-virsh.js';
import { Dice } from '../dice.js';
import { generator } from '../draw.js';

export const DOMAIN_ACTS = [
  'backup',
  'write',
  'forget',
  'keep',
  'put back',
  'verify',
  'damage',
  'snapshot',
  'commit',
  'revert',
  'swap',
  'record lost',
  'bitmap lost',
  'foreign checkpoint',
  'stop',
  'start',
  'recover',
] as const;
type DomainActKind = (typeof DOMAIN_ACTS)[number];

/** What happens to a backup at a step. The first ends nothing: the guest writes as soon as its disks are cut. */
export const DOMAIN_ENDINGS = ['guest writes', 'tool killed', 'interrupted', 'QEMU killed', 'job aborted'] as const;

export interface DrawnWrite {
  readonly disk: number;
  readonly at: number;
  readonly kilobytes: number;
}

export interface DomainStrike {
  readonly ending: (typeof DOMAIN_ENDINGS)[number];
  readonly step: VirshStep;
}

export type DomainAct =
  | { readonly kind: 'write'; readonly writes: readonly DrawnWrite[] }
  | {
      readonly kind: 'backup';
      readonly words: readonly string[];
      /** The domain is shut off before. */
      readonly off: boolean;
      readonly strike: DomainStrike | undefined;
    }
  | { readonly kind: 'forget' | 'put back'; readonly run: number }
  | { readonly kind: 'damage'; readonly run: number; readonly disk: number; readonly at: number }
  | { readonly kind: 'keep'; readonly count: number }
  /** Of a checkpoint of ours, or of anybody, which it chooses. */
  | { readonly kind: 'record lost' | 'bitmap lost'; readonly which: number }
  | { readonly kind: 'stop'; readonly how: 'kill' | 'quit' }
  | {
      readonly kind: 'verify' | 'snapshot' | 'commit' | 'revert' | 'swap' | 'foreign checkpoint' | 'start' | 'recover';
    };

/** What the draw thinks of the domain, so that most acts find what they need. */
interface Guess {
  sets: number;
  runs: number;
  on: boolean;
}

export function drawDomain(seed: number, index: number): readonly DomainAct[] {
  const next = generator(Math.imul(seed, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b) ^ 0x11b417);
  next();
  const dice = new Dice(next);
  const guess: Guess = { sets: 0, runs: 0, on: true };
  const acts: DomainAct[] = [{ kind: 'write', writes: drawWrites(dice) }];
  const length = dice.whole(9, 14);
  while (acts.length < length) acts.push(drawAct(dice, drawKind(dice, guess), guess));
  return acts;
}

function drawKind(dice: Dice, { sets, runs, on }: Guess): DomainActKind {
  const has = runs > 0 ? 1 : 0;
  const overlaid = sets > 0 ? 1 : 0;
  return dice.of<DomainActKind>([
    ['write', 24],
    ['backup', has === 0 ? 70 : 40],
    ['snapshot', [7, 3, 0][sets] ?? 0],
    ['commit', 8 * overlaid],
    ['revert', 5 * overlaid],
    ['swap', sets === 0 ? 4 : 0],
    ['forget', runs > 1 ? 6 : 0],
    ['keep', runs > 1 ? 5 : 0],
    ['put back', 4 * has],
    ['verify', 3 * has],
    ['damage', 3 * has],
    ['record lost', 6 * has],
    ['bitmap lost', on ? 5 * has : 0],
    ['foreign checkpoint', on ? 4 : 0],
    ['stop', on ? 8 : 0],
    ['start', on ? 0 : 20],
    ['recover', 3],
  ]);
}

function drawAct(dice: Dice, kind: DomainActKind, guess: Guess): DomainAct {
  switch (kind) {
    case 'write':
      return { kind, writes: drawWrites(dice) };
    case 'backup':
      return drawBackup(dice, guess);
    case 'forget':
      guess.runs--;
      return { kind, run: dice.part() };
    case 'put back':
      guess.on = false;
      return { kind, run: dice.part() };
    case 'damage':
      return { kind, run: dice.part(), disk: dice.part(), at: dice.part() };
    case 'keep':
      guess.runs = 2;
      return { kind, count: dice.whole(1, 3) };
    case 'record lost':
    case 'bitmap lost':
      return { kind, which: dice.part() };
    case 'stop':
      guess.on = false;
      return { kind, how: dice.chance(0.5) ? 'kill' : 'quit' };
    case 'start':
    case 'snapshot':
    case 'commit':
    case 'foreign checkpoint':
      guess.on = true;
      guess.sets += kind === 'snapshot' ? 1 : kind === 'commit' ? -1 : 0;
      return { kind };
    case 'revert':
    case 'swap':
      guess.on = false;
      return { kind };
    case 'verify':
    case 'recover':
      return { kind };
  }
}

function drawBackup(dice: Dice, guess: Guess): DomainAct {
  const strike = drawStrike(dice);
  if (strike === undefined) guess.runs++;
  if (strike?.ending === 'QEMU killed') guess.on = false;
  const off = strike === undefined && guess.runs > 1 && dice.chance(0.2);
  guess.on = !off;
  const words: string[] = ['--keep-checkpoints', String(dice.whole(1, 4)), '--max-chain', String(dice.whole(3, 8))];
  if (dice.chance(0.12)) words.push('--full');
  return { kind: 'backup', words, off, strike };
}

function drawStrike(dice: Dice): DomainStrike | undefined {
  const ending = dice.of([
    [undefined, 40],
    ['guest writes', 15],
    ['tool killed', 20],
    ['interrupted', 10],
    ['QEMU killed', 8],
    ['job aborted', 7],
  ] as const);
  if (ending === undefined) return undefined;
  if (ending === 'guest writes') return { ending, step: { words: "'backup-begin'", when: 'after' } };
  const words = dice.of([
    ["'backup-begin'", 4],
    ["'domjobinfo'", 3],
    ["'--completed'", 3],
    ["'checkpoint-create'", 1],
    ["'checkpoint-delete'", 2],
    ["'checkpoint-list'", 2],
    ["'qemu-monitor-command'", 3],
    ["'dumpxml'", 2],
  ] as const);
  return { ending, step: { words, when: dice.chance(0.5) ? 'before' : 'after', passes: dice.whole(0, 4) } };
}

function drawWrites(dice: Dice): DrawnWrite[] {
  return Array.from({ length: dice.whole(1, 6) }, () => {
    return { disk: dice.part(), at: dice.part(), kilobytes: dice.whole(1, dice.chance(0.3) ? 700 : 90) };
  });
}

/** For people: what is needed to do it by hand. */
export function describeDomainAct(act: DomainAct): string {
  switch (act.kind) {
    case 'backup': {
      const { words, off, strike } = act;
      return [
        'backup',
        ...words,
        ...(off ? ['off'] : []),
        ...(strike === undefined ? [] : [describeStrike(strike)]),
      ].join(' ');
    }
    case 'keep':
      return `keep ${act.count}`;
    case 'stop':
      return `stop ${act.how}`;
    case 'forget':
    case 'put back':
    case 'damage':
      return `${act.kind} run ${act.run.toFixed(2)}`;
    case 'record lost':
    case 'bitmap lost':
      return `${act.kind} ${act.which.toFixed(2)}`;
    case 'write':
    case 'verify':
    case 'snapshot':
    case 'commit':
    case 'revert':
    case 'swap':
    case 'foreign checkpoint':
    case 'start':
    case 'recover':
      return act.kind;
  }
}

function describeStrike({ ending, step: { words, when, passes = 0 } }: DomainStrike): string {
  return `(${ending} ${when} ${words}${passes === 0 ? '' : `, the ${passes + 1}th`})`;
}
