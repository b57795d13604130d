// The room that the disks of a VM need which is started from a run.
import { expect, test } from 'vitest';
import { checkRoomFor } from '../../../../src/host/start/check-start.js';
import { scratch } from '../../../support/scratch.js';

test('is that of the folder in which the new one is made, and both numbers are told', async () => {
  using folder = scratch();
  await checkRoomFor(folder.path('db1'), 1);
  const refused = checkRoomFor(folder.path('db1'), 2 ** 52);
  await expect(refused).rejects.toMatchObject({ code: 'E_NO_SPACE' });
  await expect(refused).rejects.toThrow(new RegExp(`${folder.dir}: \\d+ bytes free, expected ${2 ** 52}`));
});
