// The question at the terminal: what is a yes, and what ends it.
import { PassThrough } from 'node:stream';
import { expect, test } from 'vitest';
import { confirmWith } from '../../src/confirm-prompt.js';
import { exitCodeOf } from '../../src/cli/bridge/exit-codes.js';

const never = new AbortController().signal;
const terminal = () => ({ input: Object.assign(new PassThrough(), { isTTY: true }), output: new PassThrough() });

test.each([
  ['y', true],
  ['Yes', true],
  ['', false],
  ['yesterday', false],
])('takes %j for %s', async (line, answer) => {
  const at = terminal();
  const asked = confirmWith(false, never, at)('Lose it?');
  at.input.write(`${line}\n`);
  expect(await asked).toBe(answer);
  expect(String(at.output.read())).toContain('Lose it? [y/N]');
});

test('is not asked with --yes, nor without a terminal', async () => {
  const input = new PassThrough();
  const output = new PassThrough();
  expect(await confirmWith(true, never, { input, output })('Lose it?')).toBe(true);
  await expect(confirmWith(false, never, { input, output })('Lose it?')).rejects.toMatchObject({ code: 'E_DECLINED' });
});

test.each(['SIGTERM', 'SIGHUP', 'SIGINT'])('is ended by %s', async (name) => {
  const controller = new AbortController();
  const asked = confirmWith(false, controller.signal, terminal())('Lose it?');
  controller.abort(name);
  const error: unknown = await asked.catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: 'E_INTERRUPTED', message: `interrupted by ${name}: nothing was done` });
  expect(exitCodeOf(error)).toBe(4);
});

test('is ended by the end of the input', async () => {
  const at = terminal();
  const asked = confirmWith(false, never, at)('Lose it?');
  at.input.end();
  await expect(asked).rejects.toMatchObject({ code: 'E_INTERRUPTED' });
});
