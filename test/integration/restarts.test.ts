// How an agent under its unit (--service) ends that cannot start: what systemd makes of it hangs on the exit code, and
// before 254 on how long it takes. Its settings cannot be read, so it touches nothing of this machine.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, test } from 'vitest';

const program = new URL('../../dist/cli/agent/main.js', import.meta.url).pathname;
/** Its first page is not there: EIO, as from a disk that is bad just now. */
const UNREADABLE = '/proc/self/mem';
const FOLDER = '/';

/** Resolves when it has said why it cannot start. */
async function failing(words: readonly string[]) {
  const child = spawn(process.execPath, [program, ...words], { stdio: ['ignore', 'ignore', 'pipe'] });
  const exit = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  const [said] = (await once(child.stderr, 'data')) as [Buffer];
  const since = performance.now();
  return {
    child,
    said: String(said),
    ended: exit.then(([code]) => ({ code, afterMs: performance.now() - since })),
  };
}

test('ends late where a start anew may help, so that no systemd gives up after 30 starts in a minute', async () => {
  const { said, ended } = await failing(['--service', '-c', UNREADABLE]);
  expect(said).toBe(`fsfreeze-agent: cannot read ${UNREADABLE}: EIO\n`);
  const { code, afterMs } = await ended;
  expect(code).toBe(1);
  expect(afterMs).toBeGreaterThan(2100);
});

test('is ended within that time by the signal of `systemctl stop`, and that is no failure', async () => {
  const { child, ended } = await failing(['--service', '-c', UNREADABLE]);
  child.kill('SIGTERM');
  const { code, afterMs } = await ended;
  expect(code).toBe(0);
  expect(afterMs).toBeLessThan(2100);
});

test.each([
  ['where no start anew helps', ['--service', '-c', FOLDER], 78],
  ['where it is not under its unit', ['-c', UNREADABLE], 1],
  ['where it is only asked whether it would start', ['--check-config', '-c', UNREADABLE], 78],
])('ends at once %s', async (_, words, exitCode) => {
  const { ended } = await failing(words);
  const { code, afterMs } = await ended;
  expect(code).toBe(exitCode);
  expect(afterMs).toBeLessThan(2100);
});
