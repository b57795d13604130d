// The rounds of the bench virsh: three guests that are cut in turns, each watched by its probe, each put back as it was.
// The peer may be too slow for its limits, on a busy machine above all: that cut counts as what was seen by then, and the
// peer is started anew, since libvirt may be at work on the old one, or leave it frozen.
import { setTimeout as sleep } from 'node:timers/promises';
import { DeadlineError, describeError } from '../../src/errors.js';
import type { StallProbe } from '../../src/testing/stall-probe.js';
import type { PeerSample } from './table.js';

/** One of the three. */
export interface Side extends AsyncDisposable {
  /** At rest. */
  readonly probe: Pick<StallProbe, 'gaps' | 'reset' | 'rest' | 'goOn'>;
  /** The peer's may throw a DeadlineError, after which it is not used any more. */
  cut(set: string): Promise<void>;
  /** Merges everything back. The peer's may throw as `cut` does. */
  putBack(set: string): Promise<void>;
}

export interface Starts {
  readonly peer: () => Promise<Side>;
  readonly domain: () => Promise<Side>;
  readonly plain: () => Promise<Side>;
}

export interface Stalls<T> {
  readonly stallMs: T;
  readonly waitMs: T;
}

export interface Samples {
  /** Of the domain of ours, with nothing cut. */
  readonly idle: Stalls<number>[];
  readonly peer: Stalls<PeerSample>[];
  readonly domain: Stalls<number>[];
  readonly plain: Stalls<number>[];
}

export interface Rounds {
  readonly kind: string;
  readonly counted: number;
  /** Not counted: an emulator translates every line of a restored guest's code when it first runs. */
  readonly warmUp: number;
  readonly pauseMs: number;
}

/** The peer has a sample for each round, or fewer if it could not be started anew. */
export async function measureRounds(starts: Starts, rounds: Rounds): Promise<Samples> {
  const { kind, counted, warmUp, pauseMs } = rounds;
  const samples: Samples = { idle: [], peer: [], domain: [], plain: [] };
  await using peer = new Peer(starts.peer, rounds);
  await peer.start();
  await using domain = await starts.domain();
  await using plain = await starts.plain();
  for (let round = -warmUp; round < counted; round++) {
    console.error(`${kind}: round ${round + warmUp + 1} of ${counted + warmUp}`);
    const set = `${kind}-${round + warmUp}`;
    const counts = round >= 0;
    const ofPeer = await peer.cut(set);
    // One that is gone for good in a warm-up round has no other sample.
    if (ofPeer !== undefined && (counts || !peer.isThere)) samples.peer.push(ofPeer);
    const ofDomain = await cutInTime(domain, set, pauseMs);
    const ofPlain = await cutInTime(plain, set, pauseMs);
    if (counts) {
      samples.idle.push(ofDomain.idle);
      samples.domain.push(ofDomain.cut);
      samples.plain.push(ofPlain.cut);
    }
    await Promise.all([peer.putBack(set), domain.putBack(set), plain.putBack(set)]);
  }
  return samples;
}

/** What is given up is started anew; what cannot be started anew is not cut any more. */
class Peer implements AsyncDisposable {
  readonly #start: () => Promise<Side>;
  readonly #rounds: Rounds;
  #side: Side | undefined;
  #isCut = false;

  constructor(start: () => Promise<Side>, rounds: Rounds) {
    this.#start = start;
    this.#rounds = rounds;
  }

  get isThere(): boolean {
    return this.#side !== undefined;
  }

  async start(): Promise<void> {
    this.#side = await this.#start();
  }

  /** Undefined if it is not there any more. */
  async cut(set: string): Promise<Stalls<PeerSample> | undefined> {
    if (this.#side === undefined) return undefined;
    const { cut, late } = await watchedCut(this.#side, set, this.#rounds.pauseMs);
    if (late === undefined) {
      this.#isCut = true;
      return cut;
    }
    await this.#renew(late);
    return { stallMs: { atLeast: cut.stallMs }, waitMs: { atLeast: cut.waitMs } };
  }

  async putBack(set: string): Promise<void> {
    if (!this.#isCut) return;
    this.#isCut = false;
    try {
      await this.#side?.putBack(set);
    } catch (error) {
      if (!(error instanceof DeadlineError)) throw error;
      await this.#renew(error);
    }
  }

  async #renew(late: DeadlineError): Promise<void> {
    console.error(`peer: given up, and started anew: ${late.message}`);
    try {
      await this[Symbol.asyncDispose]();
      this.#side = await this.#start();
      for (let round = 0; round < this.#rounds.warmUp; round++) {
        const set = `anew-${round}`;
        await cutInTime(this.#side, set, this.#rounds.pauseMs);
        await this.#side.putBack(set);
      }
    } catch (error) {
      console.error(`peer: not cut any more: ${describeError(error)}`);
      await this[Symbol.asyncDispose]();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const side = this.#side;
    this.#side = undefined;
    await side?.[Symbol.asyncDispose]();
  }
}

async function cutInTime(side: Side, set: string, pauseMs: number) {
  const { idle, cut, late } = await watchedCut(side, set, pauseMs);
  if (late !== undefined) throw late;
  return { idle, cut };
}

/** A side that is late is looked at when it is given up: a gap under way counts. Nothing is known if the probe is late, too. */
async function watchedCut(
  side: Side,
  set: string,
  pauseMs: number,
): Promise<{ idle: Stalls<number>; cut: Stalls<number>; late?: DeadlineError }> {
  const { probe } = side;
  await probe.goOn();
  await sleep(pauseMs);
  await probe.reset();
  await sleep(pauseMs);
  const idle = await stallsOf(probe);
  await probe.reset();
  await sleep(pauseMs);
  try {
    await side.cut(set);
  } catch (late) {
    if (!(late instanceof DeadlineError)) throw late;
    return { idle, cut: await stallsOf(probe).catch(() => ({ stallMs: 0, waitMs: 0 })), late };
  }
  await sleep(50);
  const stalls = await stallsOf(probe);
  // Its writes are no load of the other guests.
  await probe.rest();
  return { idle, cut: stalls };
}

async function stallsOf(probe: Side['probe']): Promise<Stalls<number>> {
  const gaps = await probe.gaps();
  const longest = (ofLocks: boolean): number =>
    Math.max(...gaps.filter(({ directory }) => directory.startsWith('locks:') === ofLocks).map((gap) => gap.longestMs));
  return { stallMs: longest(false), waitMs: longest(true) };
}
