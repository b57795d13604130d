import { execa } from 'execa';
import { expect, test } from 'vitest';
import { startWords } from '../../../../src/cli/bridge/start-args-command.js';
import { requires } from '../../../support/requires.js';
import { scratch } from '../../../support/scratch.js';

requires('root', 'mknod')('start-args', () => {
  test('open a block device as one, and a file, also one that is not there, as a file', async () => {
    using folder = scratch();
    const device = folder.path('lv');
    await execa('mknod', [device, 'b', '7', '255']);
    const wordsOf = async (file: string): Promise<string> =>
      await startWords({ id: 'vd0', set: 's1', image: { file, format: 'raw' } });
    expect(await wordsOf(device)).toContain(`file.driver=host_device,file.filename=${device}`);
    const gone = folder.path('gone');
    expect(await wordsOf(gone)).toContain(`file.driver=file,file.filename=${gone}`);
  });
});
