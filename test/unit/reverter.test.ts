// Undoing, last first, also what does not come to an end.
import { expect, test } from 'vitest';
import { Reverter } from '../../src/reverter.js';

test('an undo that hangs is given up, and told, and the others run', async () => {
  const reverter = new Reverter();
  const done: string[] = [];
  reverter.push('the first', () => void done.push('the first'), 1000);
  reverter.push('the hung one', () => new Promise(() => undefined), 20);
  reverter.push('the last', () => void done.push('the last'));
  const failed: unknown = await reverter.revert().catch((error: unknown) => error);
  expect(String(failed)).toContain('could not undo: the hung one');
  expect(done).toEqual(['the last', 'the first']);
});
