import { copyFileSync } from 'node:fs';
import { execa } from 'execa';
import { expect, test } from 'vitest';
import { processNames } from '../../../src/linux/process-names.js';
import { scratch } from '../../support/scratch.js';

test('a program is named by its file, 15 characters of it, for as long as it runs', async () => {
  using folder = scratch();
  const [file, name] = [folder.path('fsb-long-name-of-a-program'), 'fsb-long-name-o'];
  copyFileSync('/bin/sleep', file);
  expect(processNames().has(name)).toBe(false);
  const running = execa(file, ['60'], { reject: false });
  await expect.poll(() => processNames().has(name)).toBe(true);
  running.kill();
  await running;
  expect(processNames().has(name)).toBe(false);
});
