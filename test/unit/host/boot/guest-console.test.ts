// What is kept and found of a serial console, by a guest that says what the test wants.
import { createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { damageIn, isOfMachine } from '../../../../src/host/boot/damage.js';
import { GuestConsole } from '../../../../src/host/boot/guest-console.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let folder: Scratch;
let server: Server;
let guest: Promise<Socket>;
beforeEach(async () => {
  folder = scratch();
  server = createServer();
  guest = new Promise((resolve) => server.once('connection', resolve));
  await new Promise<void>((resolve) => {
    server.listen(folder.path('console'), resolve);
  });
});
afterEach(() => {
  server.close();
  folder[Symbol.dispose]();
});

/** Says all of it, and ends. */
async function heard(...said: readonly string[]): Promise<GuestConsole> {
  const console = await GuestConsole.connect(folder.path('console'));
  const socket = await guest;
  for (const text of said) await new Promise((resolve) => socket.write(text, 'latin1', resolve));
  socket.end();
  await console.closed(5000);
  return console;
}

test('damage is found wherever it is said, and the end is kept', async () => {
  const noise = `${'x'.repeat(99)}\n`.repeat(30_000);
  using console = await heard('first\r\n[1.0] EXT4-fs er', 'ror (device vda): bad\r\n', noise, 'login: ');
  expect(console.damage).toBe('[1.0] EXT4-fs error (device vda): bad');
  expect(console.end.length).toBe(1024 * 1024);
  expect(console.end.toString().endsWith('x\nlogin: ')).toBe(true);
});

test('a line without an end is looked at, and does not grow without an end', async () => {
  using console = await heard('y'.repeat(3_000_000), ' Kernel panic - not syncing');
  expect(console.damage).toMatch(/^y+/);
  expect(console.end.length).toBe(1024 * 1024);
});

test('one that says nothing told of no damage; one that is not there is an error', async () => {
  using console = await heard();
  expect(console.damage).toBeUndefined();
  expect(console.end.length).toBe(0);
  await expect(GuestConsole.connect(folder.path('none'))).rejects.toThrow('cannot connect to the console');
});

test.each([
  ['XFS (vdb): Metadata corruption detected at xfs_agf_read_verify', true],
  ['Kernel panic - not syncing: VFS: Unable to mount root fs', true],
  ['Buffer I/O error on dev vda, logical block 3', true],
  ['blk_update_request: I/O error, dev nvme0n1, sector 8', true],
  ['I/O error, dev fd0, sector 0 op 0x0', false],
  ['Buffer I/O error on dev fd0, logical block 0', false],
  ['Buffer I/O error on dev sr0, logical block 0', false],
  ['Buffer I/O error on dev nbd0, logical block 0', false],
  ['EXT4-fs (vda): recovery complete', false],
  ['EXT4-fs (vda): mounted filesystem with ordered data mode. Opts: errors=remount-ro', false],
])('%s', (line, isDamage) => {
  expect(damageIn(`first\r\n${line}\r\nlast`)).toBe(isDamage ? line : undefined);
});

test.each([
  ["Kernel panic - not syncing: IO-APIC + timer doesn't work!  Boot with apic=debug and send a report.", true],
  ['Kernel panic - not syncing: VFS: Unable to mount root fs', false],
  ['Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100', false],
  ['EXT4-fs error (device vda): bad', false],
])('%s: of the machine, not of its disks: %s', (line, isIts) => {
  expect(isOfMachine(damageIn(`[    0.1] ${line}`) ?? '')).toBe(isIts);
});
