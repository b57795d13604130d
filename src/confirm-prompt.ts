// Asks at the terminal before something is lost.
import type { Readable, Writable } from 'node:stream';
import { createInterface } from 'node:readline/promises';
import { QuiesceError } from './errors.js';
import { throwIfInterrupted, type Confirm } from './confirm.js';

interface Terminal {
  readonly input: Readable & { readonly isTTY?: boolean };
  readonly output: Writable;
}

/**
 * Asks unless `yes`. A signal, Ctrl-C and the end of the input end the question: nothing is done then. Throws a
 * QuiesceError in these cases, and if there is no terminal.
 */
export function confirmWith(
  yes: boolean,
  signal: AbortSignal,
  { input, output }: Terminal = { input: process.stdin, output: process.stderr },
): Confirm {
  return async (question) => {
    if (yes) return true;
    if (input.isTTY !== true) throw new QuiesceError('E_DECLINED', `${question} Nobody is there to answer: give --yes`);
    const given = new AbortController();
    const either = AbortSignal.any([signal, given.signal]);
    const prompt = createInterface({ input, output });
    // In raw mode Ctrl-C is no signal, and neither it nor Ctrl-D would end the question.
    prompt.on('SIGINT', () => {
      given.abort('SIGINT');
    });
    prompt.on('close', () => {
      given.abort('the end of the input');
    });
    try {
      return /^y(es)?$/i.test((await prompt.question(`${question} [y/N] `, { signal: either })).trim());
    } catch (error) {
      throwIfInterrupted(either, 'nothing was done');
      throw error;
    } finally {
      prompt.close();
    }
  };
}
