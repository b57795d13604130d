// An agent of a later version, which says words that this host tool does not know, at every place where a word is one of
// several: no answer is refused for it, and each is read as the one that promises least. A host that failed here would
// fail while the guest is held.
import * as v from 'valibot';
import { describe, expect, test } from 'vitest';
import type { FreezeReport } from '../../../src/consistency.js';
import { manifestSchema } from '../../../src/host/sets/manifest.js';
import { QgaClient } from '../../../src/qga/client.js';
import { bridgeCommands } from '../../../src/qga/commands-bridge.js';
import { createRemoteCoordinator } from '../../../src/qga/remote-coordinator.js';
import type { Handlers } from '../../../src/qga/server.js';
import { filesystemReport, freezeReport, writerReport } from '../../support/freeze-reports.js';
import { manifest } from '../../support/manifests.js';
import { fakeAgent } from './fake-agent.js';

const NEWER = 'word-of-tomorrow';
const limits = { askMs: 500, freezeMs: 500, thawTryMs: 200, thawMs: 600 };

interface Schema {
  readonly type: string;
  readonly entries?: Readonly<Record<string, Schema>>;
  readonly item?: Schema;
  readonly wrapped?: Schema;
  readonly pipe?: readonly { readonly type: string }[];
}

/** Where a word is read as one of several, `writers.0.phases.0.phase`. */
function wordsIn(schema: Schema, at: readonly string[] = []): string[] {
  if (schema.wrapped !== undefined) return wordsIn(schema.wrapped, at);
  if (schema.item !== undefined) return wordsIn(schema.item, [...at, '0']);
  if (schema.entries !== undefined)
    return Object.entries(schema.entries).flatMap(([name, entry]) => wordsIn(entry, [...at, name]));
  return schema.pipe?.some(({ type }) => type === 'transform') === true ? [at.join('.')] : [];
}

/** Types of schemas that refuse a word they do not know, or a member. */
function strictIn(schema: Schema, at: readonly string[] = []): string[] {
  const own = ['picklist', 'enum', 'literal', 'variant', 'union', 'strict_object'].includes(schema.type);
  const deeper = [schema.wrapped, schema.item].flatMap((part) => (part === undefined ? [] : strictIn(part, at)));
  const members = Object.entries(schema.entries ?? {}).flatMap(([name, entry]) => strictIn(entry, [...at, name]));
  return [...(own ? [`${at.join('.')}: ${schema.type}`] : []), ...deeper, ...members];
}

function withWord<T>(value: T, path: string): T {
  const copy = structuredClone(value);
  const names = path.split('.');
  const last = names.pop() ?? '';
  const parent = names.reduce<unknown>((part, name) => (part as Record<string, unknown>)[name], copy);
  expect(parent, path).toHaveProperty(last);
  (parent as Record<string, unknown>)[last] = NEWER;
  return copy;
}

const wordAt = (value: unknown, path: string): unknown =>
  path.split('.').reduce<unknown>((part, name) => (part as Record<string, unknown>)[name], value);

const held: FreezeReport = freezeReport({
  session: 's1',
  state: 'frozen',
  level: 'application',
  levelWithProvider: 'application',
  filesystems: [filesystemReport('/', 'root0')],
  writers: [writerReport('10-db')],
  accompanying: [writerReport('90-log')],
});
const thawed: FreezeReport = { ...held, state: 'thawed' };
const least: Readonly<Record<string, string | undefined>> = {
  state: 'frozen',
  outcome: 'broken',
  level: 'none',
  levelWithProvider: 'none',
  'filesystems.0.held': 'none',
  'writers.0.kind': 'plain',
  'writers.0.guarantee': undefined,
  'writers.0.verdict': 'failed',
  'writers.0.phases.0.phase': 'post',
  'accompanying.0.kind': 'plain',
  'accompanying.0.guarantee': undefined,
  'accompanying.0.verdict': 'failed',
  'accompanying.0.phases.0.phase': 'post',
};

async function guestOf(handlers: Partial<Handlers<string>>) {
  const agent = fakeAgent({ kind: 'bridge', handlers });
  const client = await QgaClient.connect(agent.stream, { timeoutMs: 1000 });
  return { guest: await createRemoteCoordinator(client, limits), agent, client };
}

test.each(Object.entries(bridgeCommands))('no answer to %s is refused for a word or a member', (_name, { returns }) => {
  expect(strictIn(returns)).toEqual([]);
});

describe('a report', () => {
  const places = wordsIn(bridgeCommands['bridge-freeze'].returns).map((path) => path.replace(/^report\./, ''));

  test('has words at these places', () => {
    expect(places.sort()).toEqual(Object.keys(least).sort());
  });

  test.each(Object.entries(least).filter(([path]) => path !== 'state'))(
    'whose %s is not known is read as %s, from freeze to manifest',
    async (path, word) => {
      const { guest, client } = await guestOf({
        'bridge-freeze': () => ({ report: withWord(held, path) }),
        'bridge-thaw': () => ({ report: withWord(thawed, path) }),
      });
      const request = { requester: 'test', session: 's1', leaseMs: 5000, require: 'crash' } as const;
      const session = await guest.freeze(request);
      expect(wordAt(session.report, path)).toBe(word);
      const report = await session.thaw();
      expect(wordAt(report, path)).toBe(word);
      const recorded: unknown = JSON.parse(JSON.stringify({ ...manifest('set'), guest: report }));
      expect(v.parse(manifestSchema, recorded).guest).toEqual(report);
      await client.close();
    },
  );

  test('whose state is not known confirms no thaw', async () => {
    const { guest, client, agent } = await guestOf({
      'bridge-freeze': () => ({ report: withWord(held, 'state') }),
      'bridge-thaw': () => ({ report: withWord(thawed, 'state') }),
      'bridge-status': () => ({ status: { state: NEWER as 'idle' } }),
    });
    const session = await guest.freeze({ requester: 'test', session: 's1', leaseMs: 5000, require: 'crash' });
    await expect(session.thaw()).rejects.toMatchObject({ name: 'ThawUnconfirmedError' });
    expect(agent.calls.filter((name) => name === 'bridge-thaw').length).toBeGreaterThan(1);
    await client.close();
  });
});

test('a state of the guest that is not known is none in which nothing is held', async () => {
  const { guest, client } = await guestOf({
    'bridge-status': () => ({ status: { state: NEWER as 'idle', session: 'other', requester: 'backup' } }),
  });
  expect(await guest.status()).toMatchObject({ state: 'frozen', requester: 'backup' });
  await client.close();
});

test('a writer is listed, whatever of it is not known', async () => {
  const writer = {
    name: 'w',
    path: '/w',
    kind: NEWER as 'plain',
    required: true,
    rank: 50,
    phases: ['freeze' as const, NEWER as 'thaw'],
    guarantee: NEWER as 'held',
    last: { session: 's1', verdict: NEWER as 'verified', durationMs: 4 },
  };
  const { guest, client } = await guestOf({ 'bridge-writers': () => ({ writers: [writer] }) });
  expect(await guest.writers()).toEqual([
    {
      ...writer,
      kind: 'plain',
      phases: ['freeze', 'post'],
      guarantee: undefined,
      last: { ...writer.last, verdict: 'failed' },
    },
  ]);
  await client.close();
});

test('a completion is read, whatever of it is not known', async () => {
  const writer = { name: 'w', path: '/w', told: NEWER as 'ok', result: NEWER as 'done', durationMs: 4 };
  const { guest, client } = await guestOf({
    'bridge-complete': ({ session }) => ({ completion: { session, outcome: NEWER as 'ok', writers: [writer] } }),
  });
  const lowest = { outcome: 'failed', writers: [{ ...writer, told: 'failed', result: 'failed' }] };
  expect(await guest.complete('s1', 'ok')).toEqual({ session: 's1', ...lowest });
  await client.close();
});
