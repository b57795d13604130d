// Host tool and agent of different versions. What those before bridge-complete said to each other was recorded, once with
// the tool as it is now and once with the agent as it is now (`older/`): the tool of today is answered by the agent of
// then, and asks it for nothing it does not know; the agent of today is asked by the tool of then, and its answers are
// held against what that tool understood. Both ways the level stays `application`.
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { bridgeHandlers } from '../../../src/agent/handlers/bridge.js';
import type { ChannelContext } from '../../../src/agent/origin.js';
import { SessionKeeper } from '../../../src/agent/session-keeper.js';
import { QgaClient } from '../../../src/qga/client.js';
import { commandNames, type Returns } from '../../../src/qga/commands.js';
import { createRemoteCoordinator } from '../../../src/qga/remote-coordinator.js';
import { guestAgent, refuse, type Handlers } from '../../../src/qga/server.js';
import { Dispatcher } from '../../../src/rpc/dispatcher.js';
import type { ByteStream } from '../../../src/transport/byte-stream.js';
import { memoryPair } from '../../../src/transport/memory-pair.js';
import { described, FreezeHarness } from '../../support/freeze-harness.js';
import { fakeAgent } from './fake-agent.js';

interface Recorded {
  readonly answers: { readonly [N in 'guest-info' | 'bridge-freeze' | 'bridge-thaw' | 'bridge-writers']: Returns<N> };
}
/** A schema of that tool, as far as it says what was taken for an answer. */
interface Understood {
  readonly type: string;
  readonly entries?: Readonly<Record<string, Understood>>;
  readonly item?: Understood;
  readonly wrapped?: Understood;
  readonly options?: readonly unknown[];
}
interface OldTool {
  readonly requests: readonly { readonly execute: string; readonly arguments: Readonly<Record<string, unknown>> }[];
  readonly understands: Readonly<Record<string, Understood>>;
}
const read = (name: string): unknown => JSON.parse(readFileSync(new URL(`older/${name}`, import.meta.url), 'utf8'));
const oldAgent = read('agent.json') as Recorded;
const oldTool = read('host-tool.json') as OldTool;

describe('the tool of today and an agent of then', () => {
  test('make a session of level application, and the agent is asked for nothing that it does not know', async () => {
    const { answers } = oldAgent;
    const agent = fakeAgent({
      kind: 'bridge',
      handlers: {
        'bridge-freeze': () => answers['bridge-freeze'],
        'bridge-thaw': () => answers['bridge-thaw'],
        'bridge-writers': () => answers['bridge-writers'],
      },
      info: answers['guest-info'],
    });
    const client = await QgaClient.connect(agent.stream, { timeoutMs: 1000 });
    const guest = await createRemoteCoordinator(client);
    const { session: id, requester } = answers['bridge-freeze'].report;
    const session = await guest.freeze({ session: id, requester, leaseMs: 10_000, require: 'application' });
    expect(session.report).toEqual(answers['bridge-freeze'].report);
    expect(await session.thaw()).toEqual(answers['bridge-thaw'].report);
    expect(session.report).toMatchObject({ state: 'thawed', outcome: 'ok', level: 'application' });
    expect(await guest.complete(id, 'ok')).toBeUndefined();
    expect(await guest.writers()).toEqual(answers['bridge-writers'].writers);
    const known = answers['guest-info'].supported_commands.map(({ name }) => name);
    expect(known).not.toContain('bridge-complete');
    expect(agent.calls.filter((name) => !known.includes(name))).toEqual([]);
    await client.close();
  });
});

describe('a tool of then and the agent of today', () => {
  let harness: FreezeHarness;
  beforeEach(() => {
    harness = new FreezeHarness();
  });
  afterEach(async () => {
    await harness[Symbol.asyncDispose]();
  });

  test('make a session of level application, in words that the tool understands', async () => {
    harness.hook('50-db', `${described({ phases: 'prepare freeze verify thaw post complete' })}true`);
    const coordinator = await harness.start();
    const note = { read: () => undefined, write: () => undefined, remove: () => undefined };
    const keeper = new SessionKeeper(coordinator, note);
    const others = Object.fromEntries(commandNames.map((name) => [name, () => refuse(`${name} is not run here`)]));
    const handlers = {
      ...(others as unknown as Handlers<ChannelContext>),
      ...bridgeHandlers({ coordinator, keeper, plainLeaseMs: 60_000 }),
    };
    const isFrozen = (): boolean => coordinator.session !== undefined;
    const policy = { compat: '10.2', blocked: new Set<string>(), isFrozen } as const;
    const [near, far] = memoryPair();
    const served = new Dispatcher<ChannelContext>(guestAgent(handlers, policy, '0.1')).serve(far, {
      origin: 'host',
      name: 'in memory',
    });
    const replies = linesOf(near);
    const answers = new Map<string, unknown>();
    for (const { execute, arguments: args } of oldTool.requests) {
      await near.write(Buffer.from(`${JSON.stringify({ execute, arguments: args })}\n`));
      const answer = ((await replies.next()).value as { readonly return?: unknown }).return;
      answers.set(execute, answer);
      const understood = oldTool.understands[execute];
      if (understood !== undefined) expect(misunderstood(understood, answer), execute).toEqual([]);
    }
    expect([...answers.keys()]).toEqual(['guest-info', 'bridge-status', 'bridge-freeze', 'bridge-thaw']);
    expect(answers.get('bridge-freeze')).toMatchObject({ report: { state: 'frozen', level: 'application' } });
    expect(answers.get('bridge-thaw')).toMatchObject({
      report: { state: 'thawed', outcome: 'ok', level: 'application' },
    });
    // It says nothing more: the session waits for its last word in vain, and is forgotten.
    await expect.poll(() => coordinator.kept).toMatchObject([{ state: 'waiting' }]);
    await near.close();
    await served;
  });

  test('the check sees an answer that the tool would have refused', () => {
    const understood = oldTool.understands['bridge-status'];
    if (understood === undefined) throw new Error('not recorded');
    expect(misunderstood(understood, { status: { state: 'pondering' } })).toEqual(['status.state: "pondering"']);
    expect(misunderstood(understood, { status: {} })).toEqual(['status.state: undefined']);
  });
});

async function* linesOf(stream: ByteStream): AsyncGenerator {
  let text = '';
  for await (const bytes of stream.read()) {
    text += Buffer.from(bytes).toString('utf8');
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
      yield JSON.parse(text.slice(0, end));
      text = text.slice(end + 1);
    }
  }
}

/** Where an answer is not what that tool took; members it did not know it passed over. */
function misunderstood(schema: Understood, value: unknown, at: readonly string[] = []): string[] {
  const { type, entries = {}, item, wrapped, options = [] } = schema;
  if (wrapped !== undefined) return value === undefined ? [] : misunderstood(wrapped, value, at);
  const wrong = [`${at.join('.')}: ${JSON.stringify(value)}`];
  if (item !== undefined)
    return Array.isArray(value)
      ? value.flatMap((one, index) => misunderstood(item, one, [...at, String(index)]))
      : wrong;
  if (type === 'picklist') return options.includes(value) ? [] : wrong;
  if (type !== 'object') return typeof value === type ? [] : wrong;
  if (typeof value !== 'object' || value === null) return wrong;
  return Object.entries(entries).flatMap(([name, entry]) =>
    misunderstood(entry, (value as Record<string, unknown>)[name], [...at, name]),
  );
}
