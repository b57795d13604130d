// One connection held with either side: sends an exchange, ends it with a resync of its own and gives back everything
// that came before the resync's answer.
import { withLimit } from '../../src/deadline.js';
import type { ByteStream } from '../../src/transport/byte-stream.js';
import type { Exchange } from './exchanges.js';
import { makeGuard } from './harmless.js';

const answerLimitMs = 30_000;

export interface Conversation {
  /** The bytes answered, as latin1 text. Throws a DeadlineError if the resync is not answered in time. */
  exchange(exchange: Exchange): Promise<string>;
}

/** @param guard looks at everything before it goes out, and throws. */
export function converse(stream: ByteStream, guard = makeGuard()): Conversation {
  const incoming = stream.read()[Symbol.asyncIterator]();
  let syncId = 4_000_000_000;
  let received: Buffer[] = [];
  let tail = '';

  const send = (text: string): Promise<void> => {
    const bytes = Buffer.from(text, 'latin1');
    guard(bytes);
    return stream.write(bytes);
  };
  const readUntil = async (end: string): Promise<string> => {
    while (!tail.includes(end)) {
      const next = await incoming.next();
      if (next.done === true)
        throw new Error(`connection ended; so far: ${Buffer.concat(received).toString('latin1')}`);
      const chunk = Buffer.from(next.value);
      received.push(chunk);
      tail = (tail + chunk.toString('latin1')).slice(-(chunk.length + end.length));
    }
    const all = Buffer.concat(received).toString('latin1');
    const at = all.lastIndexOf(end);
    received = [];
    tail = '';
    return all.slice(0, at);
  };

  return {
    async exchange({ name, sends }) {
      const id = syncId++;
      const reply = withLimit(`answer to '${name}'`, answerLimitMs, readUntil(`\xff{"return": ${id}}\n`));
      for (const text of sends) {
        // Not awaited: a peer may answer before it has read all.
        await Promise.race([send(text), reply]);
      }
      await Promise.race([send(`\xff{"execute": "guest-sync-delimited", "arguments": {"id": ${id}}}`), reply]);
      return await reply;
    },
  };
}
