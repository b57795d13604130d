import { createServer } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { BridgeError, DeadlineError, UnreachableError } from '../../../src/errors.js';
import { QmpClient, type QmpLogEntry } from '../../../src/qmp/client.js';
import { QmpError } from '../../../src/qmp/errors.js';
import { runQmp } from '../../../src/qmp/commands.js';
import { FakeMonitor, Refusal, silence, type FakeMonitorOptions } from '../../support/fake-monitor.js';
import { scratch, type Scratch } from '../../support/scratch.js';

let folder: Scratch;
let monitor: FakeMonitor | undefined;
beforeEach(() => {
  folder = scratch();
});
afterEach(async () => {
  await monitor?.[Symbol.asyncDispose]();
  monitor = undefined;
  folder[Symbol.dispose]();
});

async function listen(options: FakeMonitorOptions = {}): Promise<FakeMonitor> {
  monitor = await FakeMonitor.listen(folder.path('qmp.sock'), options);
  return monitor;
}
async function failure(work: Promise<unknown>): Promise<BridgeError> {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof BridgeError)) throw new Error(`expected a BridgeError, found ${String(error)}`);
  return error;
}

describe('QmpClient.connect', () => {
  test('reads the greeting and negotiates', async () => {
    const fake = await listen();
    await using client = await QmpClient.connect(fake.path);
    expect(client.version).toEqual({ major: 7, minor: 2, micro: 22, package: 'fake' });
    expect(fake.commands).toEqual(['qmp_capabilities']);
  });

  test('reads a monitor that prints over many lines', async () => {
    const fake = await listen({ pretty: true, handlers: { 'query-x': () => ({ nested: { '}': '{"' } }) } });
    await using client = await QmpClient.connect(fake.path);
    expect(await client.execute('query-x')).toEqual({ nested: { '}': '{"' } });
  });

  test('says that there is no socket, nobody listens, or it is a plain file', async () => {
    const missing = await failure(QmpClient.connect(folder.path('none.sock')));
    expect(missing).toBeInstanceOf(UnreachableError);
    expect(missing.message).toContain('there is no such socket');
    expect(missing.outcome).toBe('none');
    const { writeFileSync } = await import('node:fs');
    writeFileSync(folder.path('file'), '');
    expect((await failure(QmpClient.connect(folder.path('file')))).message).toContain('nobody listens there');
    expect((await failure(QmpClient.connect(folder.path('x'.repeat(120))))).message).toContain(
      'expected 1 to 107 bytes',
    );
  });

  test('says that the monitor is in use when no greeting comes', async () => {
    const fake = await listen({ greeting: null });
    const error = await failure(QmpClient.connect(fake.path, { timeoutMs: 80 }));
    expect(error.code).toBe('E_MONITOR_SILENT');
    expect(error.message).toContain('in use by another program');
  });

  test.each([
    ['a human monitor', 'QEMU 7.2.22 monitor - type help\n'],
    ['another JSON protocol', '{"return": {}}\n'],
    ['a greeting of wrong types', '{"QMP": {"version": "new", "capabilities": []}}\n'],
    ['broken JSON', '{"QMP": {,}}\n'],
  ])('refuses %s', async (_name, greeting) => {
    const fake = await listen({ greeting });
    const error = await failure(QmpClient.connect(fake.path, { timeoutMs: 500 }));
    expect(error).toBeInstanceOf(UnreachableError);
    expect(error.message).toContain('does not speak QMP');
  });

  test('refuses a peer that sends without end', async () => {
    const path = folder.path('endless.sock');
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      const pour = (): void => {
        while (!socket.destroyed && socket.write('{"a":"' + 'x'.repeat(65_536)));
        if (!socket.destroyed) socket.once('drain', pour);
      };
      pour();
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    try {
      const error = await failure(QmpClient.connect(path, { timeoutMs: 5000, maxMessageBytes: 1024 * 1024 }));
      expect(error.message).toContain('longer than 1048576 bytes');
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
  });

  test('does not wait for ever for the capabilities', async () => {
    const fake = await listen({ handlers: { qmp_capabilities: () => silence } });
    expect(await failure(QmpClient.connect(fake.path, { timeoutMs: 80 }))).toBeInstanceOf(DeadlineError);
  });
});

describe('QmpClient.execute', () => {
  test('correlates answers that come in another order', async () => {
    const gate: { open?: () => void } = {};
    const fake = await listen({
      handlers: {
        slow: () =>
          new Promise((resolve) => {
            gate.open = () => {
              resolve('slow');
            };
          }),
        quick: () => 'quick',
      },
    });
    await using client = await QmpClient.connect(fake.path);
    const slow = client.execute('slow');
    expect(await client.execute('quick', { argument: 1 })).toBe('quick');
    gate.open?.();
    expect(await slow).toBe('slow');
    expect(fake.received.at(-1)?.arguments).toEqual({ argument: 1 });
  });

  test('gives what QEMU refused as a QmpError', async () => {
    const fake = await listen({
      handlers: {
        boom: () => {
          throw new Refusal('no such node', 'DeviceNotFound');
        },
      },
    });
    await using client = await QmpClient.connect(fake.path);
    const error: unknown = await client.execute('boom').catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(QmpError);
    expect(error).toMatchObject({ class: 'DeviceNotFound', desc: 'no such node', command: 'boom' });
  });

  test('calls a lost reply unknown, drops it when it comes late, and goes on', async () => {
    const late: { send?: () => void } = {};
    const fake = await listen({
      handlers: {
        transaction: ({ id }, own) => {
          late.send = () => {
            own.raw(`${JSON.stringify({ return: 'late', id })}\n`);
          };
          return silence;
        },
        'query-status': () => 'next',
      },
    });
    await using client = await QmpClient.connect(fake.path);
    const error = await failure(client.execute('transaction', {}, { timeoutMs: 50 }));
    expect(error).toBeInstanceOf(DeadlineError);
    expect(error.outcome).toBe('unknown');
    late.send?.();
    expect(await client.execute('query-status')).toBe('next');
  });

  test('fails what is under way when the connection is lost, and everything after', async () => {
    const fake = await listen({ handlers: { transaction: (_request, own) => (own.hangUp(), silence) } });
    await using client = await QmpClient.connect(fake.path);
    const error = await failure(client.execute('transaction'));
    expect(error).toBeInstanceOf(UnreachableError);
    expect(error.outcome).toBe('unknown');
    expect(client.connected).toBe(false);
    expect(await failure(client.execute('query-status'))).toBeInstanceOf(UnreachableError);
  });

  test.each([
    ['an answer without an id', '{"return": {}}\n'],
    ['an answer with neither return nor error', '{"id": 2}\n'],
    ['an error of wrong type', '{"id": 2, "error": "no"}\n'],
    ['an event of wrong type', '{"event": 7}\n'],
    ['no JSON', 'hello\n'],
  ])('ends the connection at %s', async (_name, text) => {
    const fake = await listen({ handlers: { 'query-x': (_request, own) => (own.raw(text), silence) } });
    await using client = await QmpClient.connect(fake.path);
    const error = await failure(client.execute('query-x', undefined, { timeoutMs: 1000 }));
    expect(error).toBeInstanceOf(UnreachableError);
    expect(error.code).toBe('E_MONITOR_PROTOCOL');
    expect(client.connected).toBe(false);
  });

  test('logs each command with a rising monotonic stamp', async () => {
    const fake = await listen({ handlers: { one: () => 1 } });
    const log: QmpLogEntry[] = [];
    const before = process.hrtime.bigint();
    await using client = await QmpClient.connect(fake.path, { log: (entry) => log.push(entry) });
    await client.execute('one');
    expect(log.map(({ direction, command }) => `${direction} ${command}`)).toEqual([
      'sent qmp_capabilities',
      'answered qmp_capabilities',
      'sent one',
      'answered one',
    ]);
    const stamps = [before, ...log.map(({ monotonicNs }) => monotonicNs)];
    expect([...stamps].sort((a, b) => (a < b ? -1 : 1))).toEqual(stamps);
  });
});

describe('runQmp', () => {
  test('refuses a reply that is not what QEMU documents, and names the place', async () => {
    const fake = await listen({ handlers: { 'query-jobs': () => [{ id: 'j', type: 'commit', status: 'flying' }] } });
    await using client = await QmpClient.connect(fake.path);
    const error = await failure(runQmp(client, 'query-jobs', {}));
    expect(error.message).toContain('query-jobs: 0.status');
  });

  test('refuses a size it cannot hold exactly', async () => {
    const fake = await listen({
      handlers: {
        'query-jobs': (_request, own) => {
          const job =
            '{"id":"j","type":"commit","status":"running","current-progress":9007199254740993,"total-progress":1}';
          own.raw(`{"id": 2, "return": [${job}]}\n`);
          return silence;
        },
      },
    });
    await using client = await QmpClient.connect(fake.path);
    expect((await failure(runQmp(client, 'query-jobs', {}))).message).toContain('0.current-progress');
  });
});

describe('QmpClient.listen', () => {
  test('gives each listener its own events, those before next() included', async () => {
    const fake = await listen({ handlers: { sync: () => ({}) } });
    await using client = await QmpClient.connect(fake.path);
    using all = client.listen('JOB_STATUS_CHANGE');
    using mine = client.listen('JOB_STATUS_CHANGE', ({ data }) => data['id'] === 'mine');
    fake.event('STOP');
    fake.event('JOB_STATUS_CHANGE', { id: 'other', status: 'ready' });
    fake.event('JOB_STATUS_CHANGE', { id: 'mine', status: 'ready' });
    await client.execute('sync');
    expect((await mine.next(100)).data).toEqual({ id: 'mine', status: 'ready' });
    expect((await all.next(100)).data['id']).toBe('other');
    expect((await all.next(100)).data['id']).toBe('mine');
    await expect(mine.next(30)).rejects.toBeInstanceOf(DeadlineError);
  });

  test('wakes who waits, in order; and fails them when the connection ends', async () => {
    const fake = await listen();
    await using client = await QmpClient.connect(fake.path);
    using listener = client.listen('STOP');
    const waiting = [listener.next(1000), listener.next(1000)];
    fake.event('STOP', { n: 1 });
    fake.event('STOP', { n: 2 });
    expect((await Promise.all(waiting)).map(({ data }) => data['n'])).toEqual([1, 2]);
    const last = listener.next(1000);
    fake.hangUp();
    await expect(last).rejects.toBeInstanceOf(UnreachableError);
    await expect(listener.next(1000)).rejects.toBeInstanceOf(UnreachableError);
  });

  test('forgets a disposed listener', async () => {
    const fake = await listen();
    await using client = await QmpClient.connect(fake.path);
    const listener = client.listen('STOP');
    const waiting = listener.next(1000);
    listener[Symbol.dispose]();
    await expect(waiting).rejects.toThrow('disposed');
  });
});
