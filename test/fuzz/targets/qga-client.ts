// Our client and a hostile guest agent: whatever is answered, a call ends with a result as declared or one of our
// errors, and the next one is answered rightly.
import * as v from 'valibot';
import { QgaClient } from '../../../src/qga/client.js';
import { commands } from '../../../src/qga/commands.js';
import type { ByteStream } from '../../../src/transport/byte-stream.js';
import { memoryPair } from '../../../src/transport/memory-pair.js';
import { piecesOf, readCorpus } from '../corpus.js';
import { parts, type Input } from '../input.js';
import { makeRandom } from '../random.js';
import { check, checkOwnError, turns, untilTrue, watch, type Target, type Verdict } from '../target.js';

const limit = { timeoutMs: 20_000 };

export const qgaClient: Target = {
  name: 'qga-client',
  pieces: () => [...piecesOf(readCorpus('qga-replies'), 'answered'), ...piecesOf(readCorpus('bridge'), 'answered')],
  start: () => ({ run, [Symbol.asyncDispose]: () => Promise.resolve() }),
};

const asked = ['guest-ping', 'guest-info', 'guest-get-fsinfo', 'guest-get-osinfo', 'bridge-writers'] as const;
/** The command that such an answer may be one to. */
const marks: readonly (readonly [mark: string, name: Unary])[] = [
  ['supported_commands', 'guest-info'],
  ['"disk"', 'guest-get-fsinfo'],
  ['kernel', 'guest-get-osinfo'],
  ['"status"', 'bridge-status'],
  ['thawed"', 'guest-fsfreeze-status'],
  ['writers', 'bridge-writers'],
];
type Unary = (typeof asked)[number] | 'bridge-status' | 'guest-fsfreeze-status';
const fitting = (text: string): Unary => marks.find(([mark]) => text.includes(mark))?.[1] ?? 'guest-ping';

/** The hostile agent says this before it answers a sync. */
type Mood = 'good' | 'before' | 'instead';

class Agent {
  readonly stream: ByteStream;
  mood: Mood = 'good';
  readonly #far: ByteStream;
  readonly #input: Input;
  /** The id of the last request that was not a sync. */
  lastId: string | undefined;

  constructor(input: Input) {
    [this.stream, this.#far] = memoryPair();
    this.#input = input;
    void this.#serve();
  }

  async #serve(): Promise<void> {
    let rest = '';
    for await (const chunk of this.#far.read()) {
      const lines = (rest + Buffer.from(chunk).toString('latin1')).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) await this.#answer(line.replace('\xff', ''));
    }
  }

  async #answer(line: string): Promise<void> {
    const sync = /"id": (\d+)\}\}$/.exec(line)?.[1];
    if (sync !== undefined) {
      if (this.mood === 'before') await this.hostile();
      await this.say(`\xff{"return": ${sync}}\n`);
      return;
    }
    this.lastId = (JSON.parse(line) as { id: string }).id;
    if (this.mood === 'good') await this.say(`{"return": {}, "id": "${this.lastId}"}\n`);
    else await this.hostile();
  }

  async say(text: string): Promise<void> {
    await this.#far.write(Buffer.from(text, 'latin1'));
  }

  async hostile(): Promise<void> {
    const text = this.#input.bytes.toString('latin1').replaceAll('@ID@', this.lastId ?? '@ID@');
    for (const part of parts({ ...this.#input, bytes: Buffer.from(text, 'latin1') })) await this.#far.write(part);
  }
}

async function run(input: Input): Promise<Verdict> {
  const random = makeRandom('qga', input.choices);
  const agent = new Agent(input);
  if (random.once(8)) agent.mood = 'before';
  await using client = await QgaClient.connect(agent.stream, limit);
  agent.mood = 'instead';
  const name = random.once(4) ? random.pick(asked) : fitting(input.bytes.toString('latin1'));
  const abort = new AbortController();
  const call = watch(client.call(name, {}, { ...limit, signal: abort.signal }));
  await turns(3);
  const byInput = call.settled();
  if (byInput === undefined) {
    // What was said may still be open: this answer may be lost in it.
    if (random.once(2)) await agent.say(`\n{"return": {}, "id": "${agent.lastId ?? ''}"}\n`);
    await turns(2);
    abort.abort();
    await untilTrue('the call ends when it is given up', () => call.settled() !== undefined);
  }
  const ended = call.settled();
  if (ended !== undefined && 'error' in ended) checkOwnError(ended.error);
  if (byInput !== undefined && 'value' in byInput) {
    check(v.is(commands[name].returns, byInput.value), 'a result that is not as declared');
  }
  agent.mood = 'good';
  const ping = watch(client.call('guest-ping', {}, limit));
  await untilTrue('the next good request is answered', () => ping.settled() !== undefined);
  const answered = ping.settled();
  check(answered !== undefined && 'value' in answered, 'the next good request is not answered rightly');
  return byInput !== undefined && 'value' in byInput ? 'accepted' : 'rejected';
}
