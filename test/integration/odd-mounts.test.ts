// What a made-up machine cannot show of mounts: which files of the real kernel name an ext4's journal, and what it is to
// look into a mount whose server hangs. In mount namespaces of their own; nothing is frozen.
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { filesystemHandlers } from '../../src/agent/handlers/filesystems.js';
import { createDiskLookup } from '../../src/linux/disks.js';
import { machineViewer } from '../../src/linux/machine-view.js';
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

requires(
  'root',
  '/dev/fuse',
  'unshare',
)('a mount whose process hangs', () => {
  test('is looked into once, and guest-get-fsinfo answers again and again', async () => {
    const places = ['a', 'b'].map((name) => join(dir, name));
    const servers: number[] = [];
    try {
      // Whoever serves it never reads: not even the kernel's first question is answered.
      const pids: number[] = [];
      for (const place of places) {
        mkdirSync(place);
        const server = openSync('/dev/fuse', 'r+');
        servers.push(server);
        pids.push(
          await inNamespace(`mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 hung ${place}`, server),
        );
      }
      const hung = places.map((place, index) => `/proc/${pids[index] ?? 0}/root${place}`);
      const lines = [
        '20 1 9:1 / / rw - ext4 /dev/w rw',
        `21 20 7:1 / ${dir} rw - ext4 /dev/x rw`,
        ...hung.map((path, index) => `${22 + index} 20 8:${index} / ${path} rw - fuseblk /dev/y rw`),
      ];
      writeFileSync(join(dir, 'mountinfo'), `${lines.join('\n')}\n`);
      const view = machineViewer({ sysRoot: '/sys', udevRoot: '/run/udev', mountinfoPath: join(dir, 'mountinfo') });
      const fsinfo = filesystemHandlers({ compat: '10.2', sysRoot: '/sys', view })['guest-get-fsinfo'];
      const times: number[] = [];
      for (let call = 0; call < 10; call++) {
        const startMs = performance.now();
        const found = await fsinfo({}, { origin: 'host', name: 'test' });
        const sized = found.filter((entry) => 'total-bytes' in entry).map(({ mountpoint }) => mountpoint);
        expect(sized).toEqual([dir, '/']);
        times.push(performance.now() - startMs);
      }
      // Only the first call waited.
      expect(Math.max(...times.slice(1))).toBeLessThan(1_000);
      // And of Node's four threads some are left.
      expect((await statfs('/')).blocks).toBeGreaterThan(0);
    } finally {
      await letGo();
      // The kernel ends what waits for a server that has closed.
      for (const server of servers) closeSync(server);
    }
  });
});
