// What is a key, and where it is read from.
import { chmodSync, existsSync, fstatSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { inspect } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { keyByCommand, keyInFile } from '../../../../src/host/images/key-source.js';
import { LuksKey } from '../../../../src/host/images/luks-key.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let folder: Scratch;
beforeEach(() => {
  folder = scratch();
});
afterEach(() => {
  folder[Symbol.dispose]();
});
const { signal } = new AbortController();
const file = (text: string | Buffer, mode = 0o600): string => {
  writeFileSync(folder.path('key'), text);
  chmodSync(folder.path('key'), mode);
  return folder.path('key');
};

describe('a key', () => {
  test('is taken byte by byte, and told by nobody who prints it', async () => {
    const key = await keyInFile(file('sésame ouvre\n'));
    expect(key.text).toBe('sésame ouvre\n');
    expect(key.ending).toContain('ends with a newline');
    expect(`${inspect(key)} ${JSON.stringify(key)}`).not.toMatch(/same/);
  });

  test('is stretched the more, the shorter it is', () => {
    const rounds = (text: string): number => new LuksKey(Buffer.from(text), 'it').iterations;
    expect(rounds('passphrase')).toBeGreaterThan(10 * rounds('x'.repeat(32)));
  });

  test('is given to programs in a file without a name', async () => {
    const key = new LuksKey(Buffer.from('a secret'), 'it');
    const handle = await key.openFile();
    const { nlink, mode } = fstatSync(handle.fd);
    expect([nlink, mode & 0o777]).toEqual([0, 0o600]);
    expect(readFileSync(`/proc/self/fd/${handle.fd}`, 'utf8')).toBe('a secret');
    await handle.close();
  });

  test.each([
    ['empty', '', 'is empty'],
    ['blank', ' \n'.repeat(8), 'is blank'],
    ['short', ' secret \n\n', 'shorter than 8 bytes'],
    ['null', 'null\n', 'shorter than 8 bytes'],
    ['undefined', 'undefined\n', 'or "undefined"'],
    ['too long', 'x'.repeat(4097), 'is too long'],
    ['with a zero byte', 'a\0b', 'is no text'],
    ['of random bytes', Buffer.from([0xff, 0xfe, 0x80]), 'is no text'],
  ])('that is %s is refused', async (_what, bytes, text) => {
    await expect(keyInFile(file(bytes))).rejects.toMatchObject({
      code: 'E_KEY',
      message: expect.stringContaining(text) as string,
    });
  });

  test.each([0o640, 0o604, 0o610])('in a file of mode %o is refused', async (mode) => {
    await expect(keyInFile(file('key', mode))).rejects.toThrow(`has mode ${mode.toString(8)}, expected a key that`);
  });

  test('is in a file', async () => {
    mkdirSync(folder.path('folder'));
    await expect(keyInFile(folder.path('folder'))).rejects.toThrow('is no file');
    await expect(keyInFile(folder.path('none'))).rejects.toMatchObject({ code: 'E_KEY' });
  });
});

describe('a command', () => {
  test('prints a key, every byte of which counts', async () => {
    expect((await keyByCommand('printf "a b c d e"; echo', signal)).text).toBe('a b c d e\n');
  });

  test.each([
    ['that fails', 'echo key; exit 3', 'it ended with 3'],
    ['that is killed', 'kill -9 $$', 'it was ended by SIGKILL'],
    ['that prints nothing', 'true', 'is empty'],
    ['that prints without end', 'yes', 'is too long'],
  ])('%s gives none', async (_what, line, text) => {
    await expect(keyByCommand(line, signal)).rejects.toMatchObject({
      code: 'E_KEY',
      message: expect.stringContaining(text) as string,
    });
  });

  test('has ended when its shell has, though what it left behind keeps its output open', async () => {
    const line = `setsid sh -c 'echo $$ > ${folder.path('pid')}; exec sleep 60' & printf '%s' 'a secret'; `;
    const waits = `until [ -s ${folder.path('pid')} ]; do sleep 0.01; done`;
    const begunMs = performance.now();
    try {
      expect((await keyByCommand(line + waits, signal)).text).toBe('a secret');
      expect(performance.now() - begunMs).toBeLessThan(30_000);
    } finally {
      process.kill(Number(readFileSync(folder.path('pid'), 'utf8')), 'SIGKILL');
    }
  });

  test('tells nothing of its line when it fails', async () => {
    const told: unknown = await keyByCommand('echo hunter22; exit 1', signal).catch((error: unknown) => error);
    expect(inspect(told)).not.toContain('hunter22');
  });

  test('is ended with all that it started when its time is over, or when interrupted', async () => {
    const pidFile = folder.path('pid');
    const line = `sleep 60 & echo $! > ${pidFile}; wait`;
    // Empty between its making and its first byte.
    const pid = (): number => (existsSync(pidFile) ? Number(readFileSync(pidFile, 'utf8')) : 0);
    const isGone = (): boolean => {
      try {
        return readFileSync(`/proc/${pid()}/stat`, 'utf8').includes(') Z ');
      } catch {
        return true;
      }
    };
    await expect(keyByCommand(line, signal, 300)).rejects.toThrow('did not end within 0.3 s');
    await expect.poll(isGone).toBe(true);
    rmSync(pidFile, { force: true });
    const stop = new AbortController();
    const work = keyByCommand(line, stop.signal);
    await expect.poll(pid, { timeout: 10_000 }).toBeGreaterThan(0);
    stop.abort('SIGTERM');
    await expect(work).rejects.toMatchObject({ code: 'E_INTERRUPTED' });
    await expect.poll(isGone).toBe(true);
  });
});
