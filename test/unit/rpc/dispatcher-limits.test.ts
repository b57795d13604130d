// A hostile host within its policy: what it sends, or does not read, keeps this process's memory bounded, and what is
// beyond a limit is answered as qemu-ga does, or with one clear error.
import { expect, test, vi } from 'vitest';
import { Dispatcher } from '../../../src/rpc/dispatcher.js';
import type { Operation } from '../../../src/rpc/operation.js';
import type { ByteStream } from '../../../src/transport/byte-stream.js';
import { endless } from '../../support/endless.js';
import { MiB, watchMemory } from '../../support/memory.js';

// Megabytes are read, and the memory is looked at: on a busy machine that takes its time.
vi.setConfig({ testTimeout: 60_000 });

const ping: Operation<string> = {
  name: 'ping',
  successResponse: true,
  delimited: false,
  order: 'queued',
  call: () => Promise.resolve({}),
};

interface Served {
  /** As latin1 text; the first 64 KiB of each reply. */
  readonly replies: string[];
  readonly takenBytes: number;
}

/** Serves what is sent. A host that does not read never takes a reply. */
async function serve(
  sent: Iterable<Buffer>,
  { reads = true, stopAfterMs = 60_000, operation = ping } = {},
): Promise<Served> {
  const replies: string[] = [];
  let takenBytes = 0;
  const stream: ByteStream = {
    async *read() {
      for (const chunk of sent) {
        takenBytes += chunk.length;
        yield chunk;
        await new Promise((resolve) => setImmediate(resolve));
      }
    },
    write(bytes) {
      replies.push(Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, 65_536)).toString('latin1'));
      return reads ? Promise.resolve() : new Promise(() => undefined);
    },
    close: () => Promise.resolve(),
  };
  const dispatcher = new Dispatcher<string>({ operations: new Map([['ping', operation]]), refusal: () => undefined });
  await Promise.race([dispatcher.serve(stream, 'host'), new Promise((resolve) => setTimeout(resolve, stopAfterMs))]);
  return { replies, takenBytes };
}

const next = Buffer.from('\xff{"execute": "ping", "id": "next"}', 'latin1');
function* then(first: Iterable<Buffer>, ...more: readonly Buffer[]): Generator<Buffer> {
  yield* first;
  yield* more;
}

// The last number: enough to be beyond qemu-ga's limits.
test.each([
  ['half a text without end', '{"execute": "ping", "id": "', 'x', 80 * MiB, /JSON token size limit exceeded/],
  ['half a list of lists', '{"execute": "ping", "id": [1', ',[]', 2_200_000, /JSON token count limit exceeded/],
  ['half an object of objects', '{"execute": "ping", "id": {"": 1', ',"a":{}', 3_000_000, /token count limit exceeded/],
  ['half a list of objects', '{"execute": "ping", "id": [1', ',{"a":1}', 2_900_000, /JSON token count limit exceeded/],
  ['half a list of fractions', '{"execute": "ping", "id": [1', ',1.5', 4_300_000, /JSON token count limit exceeded/],
  ['nesting without end', '{"execute": "ping", "id": ', '[', 2 * MiB, /JSON nesting depth limit exceeded/],
])('%s: bounded memory, an error, and the next request is answered', async (_name, head, unit, totalBytes, error) => {
  const memory = watchMemory();
  const { replies } = await serve(then(endless(head, unit, totalBytes, memory.look), next));
  expect(memory.mostBytes).toBeLessThan(32 * MiB);
  expect(replies[0]).toMatch(error);
  expect(replies.at(-1)).toBe('{"return": {}, "id": "next"}\n');
});

test('a request that takes more memory than any needs is refused, one that is no object as qemu-ga does', async () => {
  const large = `"${'x'.repeat(5 * MiB)}"`;
  const { replies } = await serve([Buffer.from(`{"execute": "ping", "id": ${large}}[${large}]`), next]);
  expect(replies[0]).toContain('JSON value too large: expected at most 8388608 bytes of memory');
  expect(replies[1]).toContain('QMP input must be a JSON object');
  expect(replies.at(-1)).toBe('{"return": {}, "id": "next"}\n');
});

test('an id of a megabyte is echoed', async () => {
  const id = `"${'x'.repeat(MiB)}"`;
  const { replies } = await serve([Buffer.from(`{"execute": "ping", "id": ${id}}`)]);
  expect(replies[0]).toMatch(/^\{"return": \{\}, "id": "xxx/);
});

test('a name of megabytes is refused in bounded memory', async () => {
  const memory = watchMemory();
  const { replies } = await serve(then([Buffer.from(`{"execute": "${'\x7f'.repeat(2 * MiB)}"}`)], next));
  memory.look();
  expect(replies[0]).toMatch(/^\{"error": \{"class": "CommandNotFound", "desc": "The command \\u007F/);
  expect(memory.mostBytes).toBeLessThan(16 * MiB);
});

test.each([
  ['requests', '{"execute": "ping"}'],
  ['requests with a long id', `{"execute": "ping", "id": "${'x'.repeat(60_000)}"}`],
  ['brackets', '}'],
  ['0xFF', '\xff'],
  ['no JSON', '?,'],
])('a host that sends %s without end and reads no reply is read no further', async (_name, unit) => {
  const memory = watchMemory();
  const { takenBytes } = await serve(endless('', unit, 200 * MiB, memory.look), { reads: false, stopAfterMs: 1000 });
  memory.look();
  expect(takenBytes).toBeLessThan(12 * MiB);
  expect(memory.mostBytes).toBeLessThan(32 * MiB);
});

test('a flood of requests leaves turns for everything else of the process', async () => {
  let longestMs = 0;
  let last = performance.now();
  const look = (): void => {
    longestMs = Math.max(longestMs, performance.now() - last);
    last = performance.now();
  };
  const timer = setInterval(look, 1);
  const busy: Operation<string> = {
    ...ping,
    call: () => {
      const end = performance.now() + 3;
      while (performance.now() < end);
      return Promise.resolve({});
    },
  };
  const flood = Buffer.from('{"execute": "ping"}\n'.repeat(200));
  const { replies } = await serve([flood], { operation: busy });
  look();
  clearInterval(timer);
  expect(replies).toHaveLength(200);
  // 600 ms of work, in turns of 20.
  expect(longestMs).toBeLessThan(300);
});
