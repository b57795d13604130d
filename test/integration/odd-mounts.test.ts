// What a made-up machine cannot show of mounts: which files of the real kernel name an ext4's
// journal. In mount namespaces of their own; nothing is frozen.
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createDiskLookup } from '../../src/freeze/disks.js';
import { tableOf } from '../support/mount-table.js';
import { requires } from '../support/requires.js';

let dir: string;
/** Processes that keep a mount namespace. */
let holders: ChildProcess[] = [];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'fsb-odd-mounts-'));
});
afterEach(async () => {
  await letGo();
  rmSync(dir, { recursive: true });
});

async function letGo(): Promise<void> {
  const ends = holders.map(async (holder) => {
    if (holder.kill()) await once(holder, 'exit');
  });
  await Promise.all(ends);
  holders = [];
}

/** Runs a script in a mount namespace that lasts until the test ends; gives the pid of a process in it. `fd`: its 3. */
async function inNamespace(script: string, fd?: number): Promise<number> {
  const program = [
    '--mount',
    '--propagation',
    'private',
    'sh',
    '-ec',
    `exec 9>&1 >/dev/null\n${script}\necho ready >&9\nexec sleep infinity`,
  ];
  const stdio: StdioOptions = ['ignore', 'pipe', 'inherit', ...(fd === undefined ? [] : [fd])];
  const holder = spawn('unshare', program, { cwd: dir, stdio });
  holders.push(holder);
  const said = await Promise.race([once(holder, 'exit'), once(holder.stdio[1] as Readable, 'data')]);
  if (String(said[0]) !== 'ready\n') throw new Error(`the script failed: ${String(said[0])}`);
  return holder.pid ?? 0;
}

requires(
  'root',
  'loop',
  'unshare',
  'mke2fs',
  'losetup',
)('an ext4 with its journal on another device', () => {
  test('lies on both devices', async () => {
    const pid = await inNamespace(`
      truncate -s 16M data journal
      mke2fs -q -b 1024 -O journal_dev journal
      journal=$(losetup -f --show journal)
      trap 'losetup -d $journal' EXIT
      mke2fs -q -t ext4 -b 1024 -J device=$journal data
      mkdir there
      mount -o loop data there
      losetup -d $journal
      trap - EXIT
      echo $journal >name`);
    const table = tableOf(readFileSync(`/proc/${pid}/mountinfo`));
    const filesystem = table.filesystems.find(({ mountpoint }) => mountpoint === join(dir, 'there'));
    if (filesystem === undefined) throw new Error('not mounted');
    const journal = readFileSync(join(dir, 'name'), 'utf8').trim().replace('/dev/', '');
    expect(filesystem.mounts[0]?.superOptions.join()).not.toContain('journal');
    const { devices, files } = createDiskLookup(table).chainOf(filesystem);
    expect(devices).toEqual([filesystem.source.replace('/dev/', ''), journal]);
    expect(files).toEqual([join(dir, 'data'), join(dir, 'journal')]);
  });
});
