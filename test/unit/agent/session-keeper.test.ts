// Who may end what, with a coordinator that is played by the test.
import { describe, expect, test } from 'vitest';
import { defined } from '../../../src/defined.js';
import type { LateThawNote } from '../../../src/agent/late-thaw-note.js';
import { SessionKeeper } from '../../../src/agent/session-keeper.js';
import type { FreezeReport, FreezeRequest } from '../../../src/consistency.js';
import { QuiesceError, ThawUnconfirmedError } from '../../../src/errors.js';
import type { LocalCoordinator, LocalSession } from '../../../src/freeze/options.js';
import { ThawPendingError } from '../../../src/freeze/session/errors.js';
import { idleCoordinator } from '../../support/idle-coordinator.js';

const host = { origin: 'host', name: 'port' } as const;
const otherHost = { origin: 'host', name: 'second port' } as const;
const guest = { origin: 'guest', name: 'local' } as const;
const plain: FreezeRequest = { requester: 'guest-fsfreeze-freeze', leaseMs: 60_000, require: 'plain' };

const report = (session: string, outcome: FreezeReport['outcome'], error?: string): FreezeReport => ({
  session,
  requester: 'r',
  state: 'thawed',
  outcome,
  level: 'none',
  evidence: [],
  ...defined({ error }),
  filesystems: [],
  writers: [],
  skipped: [],
  steps: [],
  leaseMs: 60_000,
  pauseWindowMs: 0,
  frozenWindowMs: 60_020,
});

/** A coordinator whose attempts and sessions end when the test says so. */
function play({ deaf = false, unconfirmed = false, owed = undefined as string | undefined } = {}) {
  let settle: { resolve: (session: LocalSession) => void; reject: (error: Error) => void } | undefined;
  let end: (report: FreezeReport) => void = () => undefined;
  let thawed: (report: FreezeReport) => void = () => undefined;
  let noted = owed;
  const note: LateThawNote = {
    read: () => noted,
    write(reason) {
      noted = reason;
    },
    remove() {
      noted = undefined;
    },
  };
  const thaws: string[] = [];
  const coordinator: LocalCoordinator = {
    ...idleCoordinator,
    freeze: (_request, signal) =>
      new Promise((resolve, reject) => {
        settle = { resolve, reject };
        signal?.addEventListener('abort', () => {
          if (deaf) return;
          reject(new QuiesceError('E_ABORTED', 'aborted', { facts: { report: report('a1', 'failed') } }));
        });
      }),
  };
  const keeper = new SessionKeeper(coordinator, note);
  return {
    keeper,
    thaws,
    /** An attempt that fails, and is not known to be thawed. */
    fails: (session: string) => {
      let resolveThawed: (report: FreezeReport) => void = () => undefined;
      const late = new Promise<FreezeReport>((resolve) => {
        resolveThawed = resolve;
      });
      return {
        failing: async () => {
          const freezing = keeper.freeze({ ...plain, session }, host);
          const ended = { ...report(session, 'failed'), state: 'frozen' as const };
          settle?.reject(new ThawPendingError('nobody confirmed the thaw of /', ended, late));
          await freezing;
        },
        thawed: () => {
          resolveThawed(report(session, 'failed'));
        },
      };
    },
    noted: () => noted,
    /** What nobody confirmed is known now. */
    thawed: (id: string) => {
      thawed(report(id, 'broken', 'nobody confirmed the thaw of /'));
    },
    /** The attempt under way ends well. */
    frozen: (id: string, thawOutcome: FreezeReport['outcome'] = 'ok') => {
      const ended = new Promise<FreezeReport>((resolve) => {
        end = resolve;
      });
      settle?.resolve({
        id,
        requester: plain.requester,
        report: report(id, 'ok'),
        frozenCount: 3,
        thawedCount: 3,
        holdsWriters: false,
        remainingMs: 1000,
        ended,
        thawed: new Promise((resolve) => {
          thawed = resolve;
        }),
        breakOff(error) {
          thaws.push(`${id} ${error}`);
          end(report(id, 'broken', error));
          return Promise.resolve(report(id, 'broken', error));
        },
        renew: (leaseMs) => Promise.resolve({ remainingMs: leaseMs }),
        critical: () => Promise.resolve(),
        closeSections: () => Promise.resolve(),
        thaw() {
          thaws.push(id);
          if (unconfirmed) {
            end({ ...report(id, 'broken', 'nobody confirmed the thaw of /'), state: 'frozen' });
            return Promise.reject(new ThawUnconfirmedError('E_THAW', 'nobody confirmed the thaw of /'));
          }
          end(report(id, thawOutcome));
          return Promise.resolve(report(id, thawOutcome));
        },
      });
    },
    ends: (id: string, outcome: FreezeReport['outcome'], error?: string, state: FreezeReport['state'] = 'thawed') => {
      end({ ...report(id, outcome, error), state });
    },
  };
}

async function held(origin: 'host' | 'guest' = 'host', thawOutcome: FreezeReport['outcome'] = 'ok') {
  const stage = play();
  const freezing = stage.keeper.freeze({ ...plain, session: 's1' }, origin === 'host' ? host : guest);
  stage.frozen('s1', thawOutcome);
  await freezing;
  return stage;
}

describe('a plain thaw', () => {
  test('answers 0 when nothing is held', async () => {
    expect(await play().keeper.thawPlain(host)).toBe(0);
  });

  test('ends a host session that another host channel began', async () => {
    const { keeper, thaws } = await held();
    expect(await keeper.thawPlain(otherHost)).toBe(3);
    expect(thaws).toEqual(['s1']);
    expect(await keeper.thawPlain(host)).toBe(0);
  });

  test('aborts a host attempt that is on its way', async () => {
    const { keeper } = play();
    const freezing = keeper.freeze(plain, host);
    const failure = expect(freezing).rejects.toThrow('aborted');
    expect(await keeper.thawPlain(otherHost)).toBe(0);
    await failure;
    expect(keeper.holder).toBeUndefined();
  });

  test('thaws what became frozen although it was aborted', async () => {
    const stage = play({ deaf: true });
    const freezing = stage.keeper.freeze(plain, host);
    const thawing = stage.keeper.thawPlain(host);
    stage.frozen('s1');
    await freezing;
    expect(await thawing).toBe(3);
    expect(stage.thaws).toEqual(['s1']);
  });

  test('of the host refuses a session held inside the guest, and names its holder', async () => {
    const { keeper, thaws } = await held('guest');
    await expect(keeper.thawPlain(host)).rejects.toThrow(
      'the guest is held by guest-fsfreeze-freeze (inside the guest, session s1): it alone can end that',
    );
    expect(thaws).toEqual([]);
    expect(await keeper.thawPlain(guest)).toBe(3);
  });

  test('of the guest refuses a session of the host, also on its way', async () => {
    const { keeper } = await held('host');
    await expect(keeper.thawPlain(guest)).rejects.toThrow(/held by .* \(on the host/);
    const onItsWay = play();
    const freezing = onItsWay.keeper.freeze(plain, host);
    await expect(onItsWay.keeper.thawPlain(guest)).rejects.toThrow(/on its way/);
    onItsWay.frozen('s2');
    await freezing;
  });

  test('answers one error after the lease ended, then 0', async () => {
    const stage = await held();
    stage.ends('s1', 'expired');
    await Promise.resolve();
    expect(stage.keeper.holder).toBeUndefined();
    // The other side is owed nothing.
    expect(await stage.keeper.thawPlain(guest)).toBe(0);
    await expect(stage.keeper.thawPlain(otherHost)).rejects.toThrow(
      'thawed after 60 s, before the requester asked: the snapshot is not consistent',
    );
    expect(await stage.keeper.thawPlain(host)).toBe(0);
  });

  test('answers one error after a broken session', async () => {
    const stage = await held();
    stage.ends('s1', 'broken', 'the freezer died');
    await Promise.resolve();
    await expect(stage.keeper.thawPlain(host)).rejects.toThrow('the freezer died: the snapshot is not consistent');
    expect(await stage.keeper.thawPlain(host)).toBe(0);
  });

  test('answers the error itself when the lease ended under it, and owes nothing more', async () => {
    const { keeper } = await held('host', 'expired');
    await expect(keeper.thawPlain(host)).rejects.toThrow(/before the requester asked/);
    expect(await keeper.thawPlain(host)).toBe(0);
  });

  test('never says 0 after a thaw that nobody confirmed, until a new freeze', async () => {
    const stage = play({ unconfirmed: true });
    const freezing = stage.keeper.freeze(plain, host);
    stage.frozen('s1');
    await freezing;
    for (let times = 0; times < 3; times++) {
      await expect(stage.keeper.thawPlain(host)).rejects.toThrow('nobody confirmed the thaw of /');
    }
    await expect(stage.keeper.thaw('s1', host)).rejects.toThrow('nobody confirmed the thaw of /');
    // One that does not come about says nothing of what the first one froze.
    const aborted = stage.keeper.freeze(plain, host);
    const failure = expect(aborted).rejects.toThrow('aborted');
    await expect(stage.keeper.thawPlain(host)).rejects.toThrow('nobody confirmed the thaw of /');
    await failure;
    const again = stage.keeper.freeze({ ...plain, session: 's2' }, host);
    stage.frozen('s2');
    await again;
    stage.ends('s2', 'ok');
    await Promise.resolve();
    expect(await stage.keeper.thawPlain(host)).toBe(0);
  });

  test('never says 0 after a session that ended by itself and is not known to be thawed, then one error', async () => {
    const stage = await held();
    stage.ends('s1', 'expired', 'nobody confirmed the thaw of /', 'frozen');
    await Promise.resolve();
    for (let times = 0; times < 3; times++) {
      await expect(stage.keeper.thawPlain(host)).rejects.toThrow(ThawUnconfirmedError);
      await expect(stage.keeper.thaw('s1', host)).rejects.toThrow(ThawUnconfirmedError);
    }
    stage.thawed('s1');
    await Promise.resolve();
    expect(await stage.keeper.thaw('s1', host)).toMatchObject({ outcome: 'broken', state: 'thawed' });
    expect(await stage.keeper.thawPlain(host)).toBe(0);
  });

  test('owes one error again for an unconfirmed thaw that is confirmed late', async () => {
    const stage = await held();
    stage.ends('s1', 'broken', 'nobody confirmed the thaw of /', 'frozen');
    await Promise.resolve();
    stage.thawed('s1');
    await Promise.resolve();
    await expect(stage.keeper.thawPlain(host)).rejects.toThrow(QuiesceError);
    expect(await stage.keeper.thawPlain(host)).toBe(0);
  });

  test('never says 0 after an attempt whose thaw nobody confirmed, until it is known', async () => {
    const stage = play();
    const [first, second] = [stage.fails('s1'), stage.fails('s2')];
    for (const attempt of [first, second]) await expect(attempt.failing()).rejects.toThrow(ThawUnconfirmedError);
    first.thawed();
    await Promise.resolve();
    await expect(stage.keeper.thawPlain(host)).rejects.toThrow(ThawUnconfirmedError);
    expect(await stage.keeper.thaw('s1', host)).toMatchObject({ outcome: 'failed', state: 'thawed' });
    second.thawed();
    await Promise.resolve();
    expect(await stage.keeper.thawPlain(host)).toBe(0);
  });

  test('breaks a session that bridge-freeze began, and answers its count all the same', async () => {
    const stage = play();
    const freezing = stage.keeper.freeze({ ...plain, require: 'auto', session: 's1' }, host);
    stage.frozen('s1');
    await freezing;
    expect(await stage.keeper.thawPlain(otherHost)).toBe(3);
    expect(stage.thaws).toEqual(['s1 ended by guest-fsfreeze-thaw on second port']);
    expect(await stage.keeper.thaw('s1', host)).toMatchObject({
      outcome: 'broken',
      error: 'ended by guest-fsfreeze-thaw on second port',
    });
    expect(await stage.keeper.thawPlain(host)).toBe(0);
  });

  test('answers the host one error for what the agent before it left, then 0', async () => {
    const { keeper, noted } = play({ owed: 'the agent died while the guest was held' });
    expect(await keeper.thawPlain(guest)).toBe(0);
    await expect(keeper.thawPlain(host)).rejects.toThrow('the agent died while the guest was held');
    expect(await keeper.thawPlain(host)).toBe(0);
    expect(noted()).toBeUndefined();
    const cleared = play({ owed: 'the agent died while the guest was held' });
    const freezing = cleared.keeper.freeze(plain, host);
    cleared.frozen('s1');
    await freezing;
    expect(cleared.noted()).toBeUndefined();
    expect(await cleared.keeper.thawPlain(host)).toBe(3);
  });

  test('keeps what one session is owed when the report of another that ended is asked for', async () => {
    const { keeper, frozen, ends } = await held();
    ends('s1', 'expired');
    await Promise.resolve();
    const second = keeper.freeze({ ...plain, session: 's2' }, host);
    frozen('s2');
    await second;
    ends('s2', 'expired');
    await Promise.resolve();
    expect(await keeper.thaw('s1', host)).toMatchObject({ session: 's1', outcome: 'expired' });
    await expect(keeper.thawPlain(host)).rejects.toThrow('thawed after 60 s, before the requester asked');
  });

  test('owes nothing after a new freeze', async () => {
    const stage = await held();
    stage.ends('s1', 'expired');
    await Promise.resolve();
    const freezing = stage.keeper.freeze({ ...plain, session: 's2' }, host);
    stage.frozen('s2');
    await freezing;
    expect(await stage.keeper.thawPlain(host)).toBe(3);
    expect(await stage.keeper.thawPlain(host)).toBe(0);
  });
});

describe('a session by its id', () => {
  test('is thawed once, and its final report can be asked for again', async () => {
    const { keeper, thaws } = await held();
    expect((await keeper.thaw('s1', host)).outcome).toBe('ok');
    expect((await keeper.thaw('s1', otherHost)).outcome).toBe('ok');
    expect(thaws).toEqual(['s1']);
  });

  test('that expired gives its report, which counts as being told', async () => {
    const stage = await held();
    stage.ends('s1', 'expired');
    await Promise.resolve();
    expect((await stage.keeper.thaw('s1', host)).outcome).toBe('expired');
    expect(await stage.keeper.thawPlain(host)).toBe(0);
  });

  test('that is on its way is aborted, and answers with the report of the attempt', async () => {
    const { keeper } = play();
    const freezing = keeper.freeze({ ...plain, session: 'a1' }, host);
    const failure = expect(freezing).rejects.toThrow('aborted');
    expect((await keeper.thaw('a1', host)).outcome).toBe('failed');
    await failure;
  });

  test('cannot be used twice, thawed from the other side, renewed after its end, or made up', async () => {
    const stage = await held();
    const { keeper } = stage;
    await expect(keeper.freeze({ ...plain, session: 's1' }, host)).rejects.toThrow(
      /found 's1', which was used already/,
    );
    await expect(keeper.thaw('s1', guest)).rejects.toThrow(/held by/);
    await expect(keeper.renew('s1', 5000, guest)).rejects.toThrow(/held by/);
    expect(await keeper.renew('s1', 5000, host)).toBe(5000);
    await expect(keeper.thaw('nope', host)).rejects.toThrow(/no session 'nope' here; held by guest-fsfreeze-freeze/);
    stage.ends('s1', 'expired');
    await Promise.resolve();
    await expect(keeper.renew('s1', 5000, host)).rejects.toThrow(/session s1 has ended: thawed after 60 s/);
    await expect(keeper.renew('nope', 5000, host)).rejects.toThrow(/nobody holds the guest/);
  });
});

describe('a session that ended by itself', () => {
  const untold = {
    session: 's1',
    requester: 'r',
    reason: 'thawed after 60 s, before the requester asked: the snapshot is not consistent',
  };
  const expired = async () => {
    const stage = await held();
    stage.ends('s1', 'expired');
    await Promise.resolve();
    return stage;
  };

  test('stays untold while nobody asks for it, also when a new freeze has made the error moot', async () => {
    const { keeper, frozen } = await expired();
    expect(keeper.untold).toEqual([untold]);
    const second = keeper.freeze({ ...plain, session: 's2' }, host);
    frozen('s2');
    await second;
    expect(keeper.untold).toEqual([untold]);
    expect(await keeper.thawPlain(host)).toBe(3);
    expect(keeper.untold).toEqual([untold]);
  });

  test('is told by a plain thaw and by bridge-thaw of its side, and by nothing else', async () => {
    for (const ask of ['plain', 'thaw'] as const) {
      const { keeper } = await expired();
      expect(await keeper.thawPlain(guest)).toBe(0);
      await expect(keeper.renew('s1', 1000, host)).rejects.toThrow('has ended');
      await expect(keeper.renew('s1', 1000, guest)).rejects.toThrow('has ended');
      await expect(keeper.thaw('s1', guest)).rejects.toThrow('held by a requester on the host');
      expect(keeper.untold, ask).toEqual([untold]);
      if (ask === 'plain') await expect(keeper.thawPlain(host)).rejects.toThrow('before the requester asked');
      else await keeper.thaw('s1', host);
      expect(keeper.untold, ask).toEqual([]);
    }
  });

  test('was told if its own thaw came too late by a blink', async () => {
    const { keeper } = await held('host', 'expired');
    await expect(keeper.thawPlain(host)).rejects.toThrow('before the requester asked');
    expect(keeper.untold).toEqual([]);
  });

  test('of the agent before is untold without a name, until the host thaws', async () => {
    const { keeper } = play({ owed: 'the agent died' });
    expect(keeper.untold).toEqual([{ reason: 'the agent died' }]);
    await expect(keeper.thawPlain(host)).rejects.toThrow('the agent died');
    expect(keeper.untold).toEqual([]);
  });

  test('is kept with the fifteen after it, and no more', async () => {
    const { keeper, frozen, ends } = play();
    for (let number = 1; number <= 17; number++) {
      const freezing = keeper.freeze({ ...plain, session: `s${number}` }, host);
      frozen(`s${number}`);
      await freezing;
      ends(`s${number}`, 'expired');
      await Promise.resolve();
    }
    expect(keeper.untold.map(({ session }) => session)).toEqual(
      Array.from({ length: 16 }, (_, index) => `s${index + 2}`),
    );
  });
});
