import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { writeDurably } from '../../../../src/host/images/durable-file.js';
import { scratch } from '../../../support/scratch.js';

test('replaces a file, and names it when it cannot', async () => {
  using folder = scratch();
  const file = folder.path('record.json');
  await writeDurably(file, 'old');
  await writeDurably(file, 'new');
  expect([readFileSync(file, 'utf8'), readdirSync(folder.dir)]).toEqual(['new', ['record.json']]);
  const lost = folder.path('gone/record.json');
  await expect(writeDurably(lost, 'x')).rejects.toMatchObject({ code: 'E_WRITE', message: `cannot write ${lost}` });
});
