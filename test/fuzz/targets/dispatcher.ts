// The agent's side of the channel, from bytes to replies: every line it answers is a reply, nothing is left waiting, and
// a resync finds its place whatever came before.
import { memoryPair } from '../../../src/transport/memory-pair.js';
import { serveInMemory } from '../agent-in-memory.js';
import { piecesOf, readCorpus } from '../corpus.js';
import { parts, type Input } from '../input.js';
import { check, untilTrue, watch, type Target, type Verdict } from '../target.js';

export const dispatcher: Target = {
  name: 'dispatcher',
  // Most of the exchanges are about what is refused: good requests count more often.
  pieces: () => {
    const good = piecesOf(readCorpus('bridge'), 'sent');
    return [...piecesOf(readCorpus('qga-requests'), 'sent'), ...Array.from({ length: 12 }, () => good).flat()];
  },
  start: () => ({ run, [Symbol.asyncDispose]: () => Promise.resolve() }),
};

async function run(input: Input): Promise<Verdict> {
  const [near, far] = memoryPair();
  const served = serveInMemory(far);
  const over = watch(served);
  const received: Buffer[] = [];
  let length = 0;
  const reading = (async () => {
    for await (const chunk of near.read()) {
      received.push(Buffer.from(chunk));
      length += chunk.length;
    }
  })();
  for (const part of parts(input)) await near.write(part);
  const id = input.choices;
  const last = `\xff{"return": ${id}}\n`;
  const text = (): string => Buffer.concat(received).toString('latin1');
  let seen = -1;
  await near.write(Buffer.from(`\xff{"execute": "guest-sync-delimited", "arguments": {"id": ${id}}}`, 'latin1'));
  await untilTrue('the resync is answered', () => {
    if (length === seen) return false;
    seen = length;
    return text().endsWith(last);
  });
  const before = text().slice(0, -last.length);
  await near.write(Buffer.from('{"execute": "guest-fsfreeze-thaw"}{"execute": "guest-ping", "id": "next"}'));
  await untilTrue('the next good request is answered', () => text().endsWith('{"return": {}, "id": "next"}\n'));
  await near.close();
  await untilTrue('the channel ends', () => over.settled() !== undefined);
  await served;
  await reading;
  const replies = before.split('\n').slice(0, -1).map(reply);
  return replies.includes('return') ? 'accepted' : 'rejected';
}

function reply(line: string): 'return' | 'error' {
  const bare = line.startsWith('\xff') ? line.slice(1) : line;
  check(/^[ -~]+$/.test(bare), () => `a reply that is no printable line: ${JSON.stringify(bare.slice(0, 200))}`);
  const { return: result, error, ...rest } = JSON.parse(bare) as Record<string, unknown>;
  check(
    Object.keys(rest).every((name) => name === 'id'),
    'a reply with other members than return, error, id',
  );
  check((result === undefined) !== (error === undefined), 'a reply without one of return and error');
  if (error === undefined) return 'return';
  const { class: errorClass, desc } = error as Record<string, unknown>;
  check(typeof errorClass === 'string' && errorClass !== '', 'an error without a class');
  check(typeof desc === 'string' && desc !== '', 'an error without words');
  check(!desc.includes('internal error'), () => `an internal error: ${desc}`);
  return 'error';
}
