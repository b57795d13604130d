// Order and silence on a channel: what is answered, when, and what is never answered.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { QuiesceError } from '../../../src/errors.js';
import { Dispatcher } from '../../../src/rpc/dispatcher.js';
import type { DispatcherOptions, Operation } from '../../../src/rpc/operation.js';
import { RemoteError } from '../../../src/rpc/errors.js';
import type { ByteStream } from '../../../src/transport/byte-stream.js';
import { memoryPair } from '../../../src/transport/memory-pair.js';

interface Gate {
  readonly opened: Promise<unknown>;
  open(value: unknown): void;
}

function gate(): Gate {
  let open: (value: unknown) => void = () => undefined;
  const opened = new Promise<unknown>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

let freezing: Gate;
let calls: string[];
let errors: unknown[];

function operations(): ReadonlyMap<string, Operation<string>> {
  const list: Operation<string>[] = [
    ...(['sync', 'delimited'] as const).map((name) => ({
      name,
      successResponse: true,
      delimited: name === 'delimited',
      order: 'sync' as const,
      call: (args: { id?: unknown }) => Promise.resolve(args.id),
    })),
    plain('ping', () => undefined),
    plain('slow', () => freezing.opened),
    plain('off', () => 1),
    plain('refuse', () => {
      throw new RemoteError('GenericError', 'no');
    }),
    plain('fail', () => {
      throw new QuiesceError('E_WRITER', 'hook failed:\n  line two', { cause: new Error('exit 3') });
    }),
    plain('bug', () => {
      throw new TypeError('x is undefined');
    }),
    plain('unwritable', () => NaN),
    { ...plain('freeze', () => freezing.opened), order: 'abandonable' },
    { ...plain('quiet', () => 1), successResponse: false },
  ];
  return new Map(list.map((operation) => [operation.name, operation]));
}

function plain(name: string, call: () => unknown): Operation<string> {
  return {
    name,
    successResponse: true,
    delimited: false,
    order: 'queued',
    async call() {
      calls.push(name);
      return await call();
    },
  };
}

const options = (): DispatcherOptions<string> => ({
  operations: operations(),
  refusal: (name) => (name === 'off' ? 'Command off has been disabled' : undefined),
  onError: (error) => errors.push(error),
});

let peer: ByteStream;
let served: Promise<void>;
let received: string;

beforeEach(() => {
  freezing = gate();
  calls = [];
  errors = [];
  [peer, served, received] = connect(new Dispatcher(options()));
});
afterEach(async () => {
  freezing.open(0);
  await peer.close();
  await served;
});

function connect(dispatcher: Dispatcher<string>): [ByteStream, Promise<void>, string] {
  const [near, far] = memoryPair();
  const serving = dispatcher.serve(far, 'test');
  void (async () => {
    for await (const chunk of near.read()) received += Buffer.from(chunk).toString('latin1');
  })();
  return [near, serving, ''];
}

const send = (...requests: object[]): Promise<void> =>
  peer.write(Buffer.from(requests.map((request) => JSON.stringify(request)).join('')));
const sendText = (text: string): Promise<void> => peer.write(Buffer.from(text, 'latin1'));

/** What has come so far, once everything that can happen has. */
async function lines(): Promise<string[]> {
  await new Promise((resolve) => setTimeout(resolve, 20));
  return received.split('\n').slice(0, -1);
}

describe('a channel', () => {
  test('answers in order, with the id where the real agent puts it', async () => {
    await send({ execute: 'ping', id: 1 }, { execute: 'refuse', id: { a: 2 } }, { execute: 'ping' });
    expect(await lines()).toEqual([
      '{"return": {}, "id": 1}',
      '{"id": {"a": 2}, "error": {"class": "GenericError", "desc": "no"}}',
      '{"return": {}}',
    ]);
  });

  test('does not begin a request before the one before it was answered', async () => {
    await send({ execute: 'slow', id: 1 }, { execute: 'ping', id: 2 });
    expect(await lines()).toEqual([]);
    expect(calls).toEqual(['slow']);
    freezing.open('done');
    expect(await lines()).toEqual(['{"return": "done", "id": 1}', '{"return": {}, "id": 2}']);
  });

  test('goes on when it has been idle', async () => {
    for (let round = 1; round <= 3; round++) {
      await send({ execute: 'nope' }, { execute: 'ping' });
      expect(await lines()).toHaveLength(2 * round);
    }
  });

  test('puts an error of ours in one line', async () => {
    await send({ execute: 'fail' });
    expect(await lines()).toEqual(['{"error": {"class": "GenericError", "desc": "hook failed:; line two: exit 3"}}']);
    expect(errors).toHaveLength(1);
    expect(errors[0]).toBeInstanceOf(QuiesceError);
  });

  test.each(['bug', 'unwritable'])('answers an error for %s, and goes on', async (execute) => {
    await send({ execute, id: 9 }, { execute: 'ping' });
    const [first, second] = await lines();
    expect(first).toMatch(/^\{"id": 9, "error": .*internal error of the agent/);
    expect(second).toBe('{"return": {}}');
  });

  test('says nothing after a command without a success response', async () => {
    await send({ execute: 'quiet', id: 1 });
    expect(await lines()).toEqual([]);
  });

  test('refuses what is disabled, before its arguments', async () => {
    await send({ execute: 'off', arguments: { x: 1 } });
    expect(await lines()).toEqual(['{"error": {"class": "CommandNotFound", "desc": "Command off has been disabled"}}']);
    expect(calls).toEqual([]);
  });

  test('carries out what a peer sent before it went away', async () => {
    await send({ execute: 'slow' }, { execute: 'ping' });
    await peer.close();
    freezing.open(1);
    await served;
    expect(calls).toEqual(['slow', 'ping']);
  });

  test('starts each connection with a parser of its own', async () => {
    const dispatcher = new Dispatcher(options());
    const [first, servedFirst] = connect(dispatcher);
    await first.write(Buffer.from('{"execute": "pi'));
    await first.close();
    await servedFirst;
    const [second, servedSecond] = connect(dispatcher);
    await second.write(Buffer.from('{"execute": "ping"}'));
    expect(await lines()).toEqual(['{"return": {}}']);
    await second.close();
    await servedSecond;
  });

  test('takes many requests in one piece', async () => {
    await sendText('{"execute": "ping"}'.repeat(20_000));
    while (received.length < 20_000 * 15) await new Promise((resolve) => setTimeout(resolve, 5));
    expect(received).toBe('{"return": {}}\n'.repeat(20_000));
  });
});

describe('a freeze that is pending', () => {
  test('is answered in turn if nobody syncs', async () => {
    await send({ execute: 'freeze', id: 1 }, { execute: 'ping', id: 2 });
    expect(await lines()).toEqual([]);
    freezing.open(3);
    expect(await lines()).toEqual(['{"return": 3, "id": 1}', '{"return": {}, "id": 2}']);
  });

  test('is overtaken by a sync; its late reply is never sent', async () => {
    await send({ execute: 'freeze' });
    await lines();
    await sendText('\xff{"execute": "delimited", "arguments": {"id": 5}}');
    expect(await lines()).toEqual(['\xff{"return": 5}']);
    await send({ execute: 'ping' });
    expect(await lines()).toHaveLength(2);
    freezing.open(3);
    await send({ execute: 'ping', id: 'after' });
    expect(await lines()).toEqual(['\xff{"return": 5}', '{"return": {}}', '{"return": {}, "id": "after"}']);
  });

  test('is overtaken by a sync that came with it', async () => {
    await send({ execute: 'freeze' }, { execute: 'sync', arguments: { id: 6 } });
    expect(await lines()).toEqual(['{"return": 6}']);
    expect(calls).toEqual(['freeze']);
  });

  test('lets what came between it and the sync be carried out, unanswered', async () => {
    await send({ execute: 'freeze' }, { execute: 'ping' }, { execute: 'sync', arguments: { id: 7 } });
    expect(await lines()).toEqual(['{"return": 7}']);
    expect(calls).toEqual(['freeze', 'ping']);
  });

  test('that waits its turn behind another is overtaken once it has begun', async () => {
    await send({ execute: 'ping' }, { execute: 'freeze' }, { execute: 'sync', arguments: { id: 8 } });
    expect(await lines()).toEqual(['{"return": {}}', '{"return": 8}']);
    expect(calls).toEqual(['ping', 'freeze']);
  });

  test('keeps no other channel waiting', async () => {
    await send({ execute: 'freeze' });
    await lines();
    const [near, far] = memoryPair();
    const other = new Dispatcher(options()).serve(far, 'other');
    await near.write(Buffer.from('{"execute": "ping"}'));
    const first = await near.read()[Symbol.asyncIterator]().next();
    expect(first.done === true ? '' : Buffer.from(first.value).toString()).toBe('{"return": {}}\n');
    await near.close();
    await other;
  });

  test('that a sync overtook fails in silence, but not unseen', async () => {
    await send({ execute: 'freeze' }, { execute: 'sync', arguments: { id: 1 } });
    await lines();
    freezing.open(Promise.reject(new QuiesceError('E_WRITER', 'too late')));
    expect(await lines()).toEqual(['{"return": 1}']);
    expect(errors).toMatchObject([{ message: 'too late' }]);
  });

  test('nothing else is overtaken by a sync', async () => {
    await send({ execute: 'slow' }, { execute: 'sync', arguments: { id: 1 } });
    expect(await lines()).toEqual([]);
    freezing.open(2);
    expect(await lines()).toEqual(['{"return": 2}', '{"return": 1}']);
  });
});
