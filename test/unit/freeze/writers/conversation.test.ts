// A question and its answer, and every way in which a conversation breaks.
import { expect, test } from 'vitest';
import { Conversation } from '../../../../src/freeze/writers/conversation.js';

interface Told {
  readonly said: string[];
  readonly faults: (readonly [string, boolean])[];
}

function conversation(): Told & { readonly it: Conversation } {
  const told: Told = { said: [], faults: [] };
  const it = new Conversation(
    (line) => told.said.push(line),
    (fault, wasAsked) => told.faults.push([fault, wasAsked]),
  );
  return { ...told, it };
}

test('each question is a line, each answer another, in whatever pieces they come', async () => {
  const { it, said, faults } = conversation();
  const first = it.ask('freeze', 10_000);
  it.hear('o');
  it.hear('k\r\n');
  expect(await first).toBe('ok');
  const second = it.ask('thaw ok', 10_000);
  it.hear('error  it is \u001b[31mred\n');
  expect(await second).toEqual({ error: 'it is \\u{1b}[31mred' });
  expect([said, faults]).toEqual([['freeze\n', 'thaw ok\n'], []]);
});

test('the limit and the signal end the wait; a signal that is aborted already, the question', async () => {
  const { it, said } = conversation();
  expect(await it.ask('freeze', 5)).toBe('timedOut');
  const abort = new AbortController();
  const asked = it.ask('verify', 10_000, abort.signal);
  abort.abort();
  expect(await asked).toBe('aborted');
  expect(await it.ask('thaw', 10_000, abort.signal)).toBe('aborted');
  expect(said).toEqual(['freeze\n', 'verify\n']);
});

test.each([
  ['another word', 'yes\n', 'answered "yes", expected "ok" or "error REASON"'],
  ['a long line at once', `error ${'x'.repeat(5_000)}\n`, 'answered more than 4096 characters on one line'],
  ['a long line', 'x'.repeat(5_000), 'answered more than 4096 characters on one line'],
])('%s breaks it, and nothing counts any more', async (_name, text, fault) => {
  const { it, faults } = conversation();
  const asked = it.ask('freeze', 10_000);
  it.hear(text);
  expect(await asked).toBe('fault');
  expect(faults).toEqual([[fault, true]]);
  it.hear('ok\n');
  expect(await it.ask('verify', 10_000)).toBe('fault');
  expect([it.fault, faults.length]).toEqual([fault, 1]);
});

test('a second answer in the same piece takes the first one back', async () => {
  const { it, faults } = conversation();
  const asked = it.ask('freeze', 10_000);
  it.hear('ok\nok\n');
  expect(await asked).toBe('fault');
  expect(faults).toEqual([['spoke without being asked: "ok"', false]]);
});

test('when it is over, whoever asks hears so, and what is said is no fault', async () => {
  const { it, faults } = conversation();
  const asked = it.ask('freeze', 10_000);
  it.over();
  expect(await asked).toBe('over');
  it.hear('nonsense\n');
  expect(await it.ask('thaw', 10_000)).toBe('over');
  expect(faults).toEqual([]);
});
