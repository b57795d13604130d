// What a monitoring system asks: is an overlay larger than it should be. By exit code, and by events of a real QEMU.
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { BareDisk } from '../support/bare-qemu.js';
import { readResult } from '../support/bridge-result.js';
import { CutHarness } from '../support/cut-harness.js';
import { requires } from '../support/requires.js';

const disks: readonly BareDisk[] = [{ name: 'data0', format: 'qcow2' }];
let at: CutHarness;
beforeEach(async () => {
  at = await CutHarness.start(disks);
  expect((await at.create('s1')).error.message).toBe('none');
});
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

const watch = (...words: string[]): string[] => ['snapshot', 'watch', '--limit', '4M', ...words];
const overlay = (): string => at.overlay('data0');

/** Starts a watch; what it says, and how to end it. */
function begin(...words: string[]) {
  const child = at.spawn(watch(...words));
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  return {
    events: (): string[] =>
      text
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => String(readResult(['snapshot', 'watch'], line)?.['event'])),
    end: async () => {
      if (child.pid !== undefined) process.kill(child.pid, 'SIGTERM');
      return await child;
    },
    child,
  };
}

requires('qemu-system-x86_64', 'qemu-img')('snapshot watch', () => {
  test('--once exits 0 while every overlay is below the limit, and 9 when one is above', async () => {
    const before = await at.bridge(watch('--once'));
    expect(before.code).toBe(0);
    expect(before.json).toMatchObject({ limitBytes: 4 * 1024 * 1024, above: [] });
    await at.vm.write('data0', 1, 0, 8192);
    await at.vm.flush('data0');
    const after = await at.bridge(watch('--once'));
    expect(after.code).toBe(9);
    const [above] = after.json['above'] as { file: string; set: string; allocatedBytes: number }[];
    expect(above).toMatchObject({ file: overlay(), set: 's1' });
    expect(above?.allocatedBytes).toBeGreaterThan(8 * 1024 * 1024);
    expect((await at.bridge(['snapshot', 'commit', 's1'])).code).toBe(0);
    expect(await at.bridge(watch('--once'))).toMatchObject({ code: 0, json: { overlays: [] } });
  });

  test('tells once of an overlay that grows beyond the limit, and of its end, while others use the monitor', async () => {
    const { events, end } = begin('--interval', '0.2');
    await at.vm.write('data0', 1, 0, 8192);
    await expect.poll(events, { timeout: 10_000 }).toEqual(['above-limit']);
    expect((await at.bridge(['snapshot', 'commit', 's1'])).error.message).toBe('none');
    await expect.poll(events, { timeout: 10_000 }).toEqual(['above-limit', 'below-limit']);
    expect((await end()).exitCode).toBe(0);
  });

  test('ended by a signal, it exits 9 if an overlay is above the limit', async () => {
    const { events, end } = begin('--interval', '0.2');
    await at.vm.write('data0', 1, 0, 8192);
    await expect.poll(events, { timeout: 10_000 }).toEqual(['above-limit']);
    expect((await end()).exitCode).toBe(9);
  });

  test.each(['that was cut while it ran', 'that was started from it'])(
    'hears from QEMU itself, with a monitor of its own, of an overlay %s',
    async (how) => {
      if (how.includes('started')) await at.restart([{ name: 'data0', format: 'qcow2', file: overlay() }]);
      // No look but the first would come within the test.
      const { events, end, child } = begin('--interval', '3600', '--events', at.folder.path('qmp.sock'));
      const isArmed = async (): Promise<boolean> => {
        const nodes = (await at.vm.control.execute('query-named-block-nodes')) as { write_threshold: number }[];
        return nodes.some(({ write_threshold: threshold }) => threshold > 0);
      };
      await expect.poll(isArmed, { timeout: 10_000 }).toBe(true);
      expect(events()).toEqual([]);
      await at.vm.write('data0', 1, 0, 8192);
      await expect.poll(events, { timeout: 10_000 }).toEqual(['above-limit']);
      await at.vm.quit();
      await expect.poll(() => child.stderr.readableEnded || events().length, { timeout: 5000 }).toBe(1);
      const { exitCode, stderr } = await end();
      expect(exitCode).toBe(9);
      expect(stderr).toContain('the monitor for events went away');
    },
  );

  test.each(['0', 'ten', '10X', '-1G'])('--limit %s is no size', async (limit) => {
    expect(await at.bridge(['snapshot', 'watch', `--limit=${limit}`, '--once'])).toMatchObject({
      code: 2,
      error: { code: 'E_LIMIT' },
    });
  });
});
