// A peer that is late, in the rounds of the bench virsh.
import { afterEach, expect, test, vi } from 'vitest';
import { DeadlineError } from '../../../src/errors.js';
import { measureRounds, type Side } from '../../bench/virsh-rounds.js';

vi.spyOn(console, 'error').mockImplementation(() => undefined);
const done: string[] = [];
afterEach(() => {
  done.length = 0;
});

/** A side whose probe saw `stallMs`; `late` names the steps that are not done in time. */
function side(name: string, stallMs: number, late: readonly string[] = []): Side {
  const step = (what: string): Promise<void> => {
    done.push(`${name} ${what}`);
    return late.includes(what) ? Promise.reject(new DeadlineError(what, 1)) : Promise.resolve();
  };
  const nothing = (): Promise<void> => Promise.resolve();
  const gaps = () =>
    Promise.resolve([
      { directory: '/', longestMs: stallMs, writes: 1 },
      { directory: 'locks:/run/locks', longestMs: 2 * stallMs, writes: 1 },
    ]);
  return {
    probe: { goOn: nothing, reset: nothing, rest: nothing, gaps },
    cut: (set) => step(`cut ${set}`),
    putBack: (set) => step(`put back ${set}`),
    [Symbol.asyncDispose]: () => step('ended'),
  };
}

const rounds = { kind: 'k', counted: 3, warmUp: 1, pauseMs: 1 };

async function measure(...peers: readonly (Side | Error)[]) {
  const left = [...peers];
  const peer = (): Promise<Side> => {
    const next = left.shift();
    return next === undefined || next instanceof Error
      ? Promise.reject(next ?? new Error('no peer left'))
      : Promise.resolve(next);
  };
  const ours = { domain: () => Promise.resolve(side('domain', 2)), plain: () => Promise.resolve(side('plain', 1)) };
  const samples = await measureRounds({ peer, ...ours }, rounds);
  expect(samples.domain).toEqual(Array(3).fill({ stallMs: 2, waitMs: 4 }));
  expect(samples.plain).toEqual(Array(3).fill({ stallMs: 1, waitMs: 2 }));
  return samples.peer;
}

const exact = (stallMs: number) => ({ stallMs, waitMs: 2 * stallMs });
const bound = (stallMs: number) => ({ stallMs: { atLeast: stallMs }, waitMs: { atLeast: 2 * stallMs } });

test('a cut that is late counts as what its probe saw; the peer is started anew and warmed up', async () => {
  const peers = [side('old', 500, ['cut k-2']), side('new', 5)];
  expect(await measure(...peers)).toEqual([exact(500), bound(500), exact(5)]);
  const ofPeer = done.filter((what) => /^(old|new)/.test(what));
  expect(ofPeer.slice(4)).toEqual([
    'old cut k-2',
    'old ended',
    'new cut anew-0',
    'new put back anew-0',
    'new cut k-3',
    'new put back k-3',
    'new ended',
  ]);
});

test('a merge that is late costs no sample', async () => {
  expect(await measure(side('old', 500, ['put back k-1']), side('new', 5))).toEqual([exact(500), exact(5), exact(5)]);
});

test('a peer that cannot be started anew is not cut any more, and the bench goes on', async () => {
  expect(await measure(side('old', 500, ['cut k-2']), new Error('libvirtd does not answer'))).toEqual([
    exact(500),
    bound(500),
  ]);
  expect(await measure(side('old', 500, ['cut k-0']), side('new', 5, ['cut anew-0']))).toEqual([bound(500)]);
  expect(done.at(-1)).toBe('domain ended');
  expect(done).toContain('new ended');
});

test('what fails otherwise, and what of ours is late, ends the bench', async () => {
  const broken: Side = { ...side('old', 500), cut: () => Promise.reject(new Error('no space left')) };
  await expect(measure(broken)).rejects.toThrow('no space left');
  const late = { peer: () => Promise.resolve(side('peer', 1)), plain: () => Promise.resolve(side('plain', 1)) };
  const domain = () => Promise.resolve(side('domain', 1, ['cut k-0']));
  await expect(measureRounds({ ...late, domain }, rounds)).rejects.toBeInstanceOf(DeadlineError);
});
