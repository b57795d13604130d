// The agent's side of the freezer's protocol, and a hostile freezer: whatever it says, a request ends with an answer
// whose numbers are numbers, or one of our errors; the loss of the connection is told once, with nothing after it.
import { FreezerConnection } from '../../../src/freeze/freezer/client.js';
import { freezerText, freezerWord } from '../../../src/freeze/freezer/lines.js';
import { piecesOf, readCorpus } from '../corpus.js';
import { parts, type Input } from '../input.js';
import { makeRandom } from '../random.js';
import { streamPair } from '../../support/stream-pair.js';
import { check, checkOwnError, turns, untilTrue, watch, type Target, type Verdict } from '../target.js';

type Ask = (connection: FreezerConnection) => Promise<object>;
const asks: readonly Ask[] = [
  (freezer) => freezer.hello(),
  (freezer) => freezer.plan({ session: 's', owner: 'o', leaseMaxMs: 60_000, budgetMs: 1000, expedite: true }),
  (freezer) => freezer.add(0, 42, '254:1', '/a b'),
  (freezer) => freezer.sync(20_000),
  (freezer) => freezer.freeze(1000),
  (freezer) => freezer.renew(1000),
  (freezer) => freezer.critical(true, 100),
  (freezer) => freezer.thaw(),
  (freezer) => freezer.status(),
  (freezer) => freezer.hung(),
];

export const freezerClient: Target = {
  name: 'freezer-client',
  pieces: () => piecesOf(readCorpus('freezer'), 'answered'),
  start: () => ({ run, [Symbol.asyncDispose]: () => Promise.resolve() }),
};

async function run(input: Input): Promise<Verdict> {
  const random = makeRandom('freezer', input.choices);
  const [near, far] = streamPair();
  far.resume();
  let lost = 0;
  const told = (): void => {
    check(lost === 0, 'something is told after the loss of the connection');
  };
  const connection = new FreezerConnection(near, {
    onExpired: told,
    onThawed: (answers) => {
      told();
      for (const answer of answers) checkNumbers(answer);
    },
    onLost: () => {
      told();
      lost++;
    },
  });
  const calls = Array.from({ length: 1 + random.below(3) }, () => watch(random.pick(asks)(connection)));
  for (const part of parts(input)) if (!far.destroyed) far.write(part);
  await turns(3);
  const byInput = calls[0]?.settled();
  far.destroy();
  await untilTrue('every request ends with the connection', () => calls.every((call) => call.settled() !== undefined));
  await untilTrue('the loss is told', () => lost > 0);
  for (const call of calls) {
    const settled = call.settled();
    if (settled === undefined) continue;
    if ('error' in settled) checkOwnError(settled.error);
    else checkNumbers(settled.value);
  }
  const late = watch(connection.status());
  await untilTrue('a request after the loss ends', () => late.settled() !== undefined);
  checkWords(input.bytes.toString('utf8'));
  await checkNext();
  return byInput !== undefined && 'value' in byInput ? 'accepted' : 'rejected';
}

/** No NaN anywhere: it compares as nothing, so a deadline of it would neither be past nor to come. */
function checkNumbers(value: unknown): void {
  if (typeof value === 'number') check(Number.isFinite(value), 'a number that is none');
  else if (typeof value === 'object' && value !== null) Object.values(value).forEach(checkNumbers);
}

/** A text survives its way as one word. */
function checkWords(text: string): void {
  const word = freezerWord(text);
  check(/^[!-~]+$/.test(word), 'a word with something in it that is no word');
  check(freezerText(word) === text, 'a text that comes out as another');
}

async function checkNext(): Promise<void> {
  const [near, far] = streamPair();
  far.on('data', () => far.write('ok hello 1 77 88\n'));
  const connection = new FreezerConnection(near, { onExpired() {}, onThawed() {}, onLost() {} });
  const hello = watch(connection.hello());
  await untilTrue('a new connection works', () => hello.settled() !== undefined);
  const found = hello.settled();
  check(found !== undefined && 'value' in found && found.value.pid === 77, 'a new connection is not answered rightly');
  connection.close();
}
