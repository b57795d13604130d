import { expect, test } from 'vitest';
import { BridgeError, DeadlineError } from '../../../src/errors.js';
import { thawAtLast } from '../../bench/guests.js';

test('a guest that was given up is thawed until its agent says so', async () => {
  const answers: unknown[] = [new DeadlineError('thaw', 1), new BridgeError('E_AGENT_REFUSED', 'no'), 0, 'frozen', 2];
  const asked: string[] = [];
  const execute = (command: string): Promise<unknown> => {
    asked.push(command.replace('guest-fsfreeze-', ''));
    const answer = answers.length === 0 ? 'thawed' : answers.shift();
    return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
  };
  await thawAtLast({ execute });
  expect(asked).toEqual(['thaw', 'thaw', 'thaw', 'status', 'thaw', 'status']);
});

test('not without end', async () => {
  await expect(thawAtLast({ execute: () => Promise.resolve('frozen') }, 150)).rejects.toBeInstanceOf(DeadlineError);
});
