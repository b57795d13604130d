// The lab's guest in QEMU: saved once with all that is in it, restored for each lab. Its second disk has two partitions
// and is stalled from outside.
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { cached, hashOfFile, hasUsers, keyOf, prune } from '../../../src/testing/cache.js';
import { restoreGuest, saveState, stallDisk, type QemuGuest } from '../../../src/testing/index.js';
import { agentState } from '../../support/agent-guest.js';
import { fileSystems, HALVES, installParts, partsKey, startWatch } from './lab-parts.js';
import type { LabGuest } from './lab.js';

const THIS = fileURLToPath(import.meta.url);
const BUILD_LIMIT_MS = 400_000;

const { data, more } = HALVES;
const SETUP = `set -e
systemctl stop 'postgresql@*' postgresql 2>/dev/null || :
umount /srv/data
perl -e 'print "\\0" x 446, pack("C8V2", 0,0,0,0, 0x83,0,0,0, ${data.begin}, ${data.size}), pack("C8V2", 0,0,0,0, 0x83,0,0,0, ${more.begin}, ${more.size}), "\\0" x 32, "\\x55\\xaa"' >/dev/vdb
blockdev --rereadpt /dev/vdb; udevadm settle
${fileSystems('/dev/vdb1', '/dev/vdb2')}
sync`;

let state: Promise<string> | undefined;

/** The saved state. Slow once per build of the agent. */
export async function labState(): Promise<string> {
  return await (state ??= buildLabState());
}

async function buildLabState(): Promise<string> {
  const base = await agentState();
  const name = `faults-${keyOf(path.basename(base), await partsKey(await hashOfFile(THIS)))}`;
  const directory = await cached('states', name, BUILD_LIMIT_MS, async (building) => {
    await using guest = await restoreGuest(base);
    await guest.exec(SETUP, { timeoutMs: 120_000 });
    await installParts(guest);
    await startWatch(guest);
    await guest.exec('sync; sleep 1');
    await saveState(guest, building);
  });
  await prune('states', 'faults-', 2, async (old) => old === directory || (await hasUsers(old)));
  return directory;
}

export async function qemuLab(): Promise<LabGuest> {
  const guest = await restoreGuest(await labState());
  return { guest, stall: async () => await stall(guest) };
}

/** The first write after the limit was set still passes: this one, before the first partition, if no other does. */
const FIRST_WRITE = `cd /run/fsb-lab; rm -f first
{ dd if=/dev/zero of=/dev/vdb bs=4096 seek=100 count=1 oflag=direct; : >first; } >/dev/null 2>&1 </dev/null &
n=0; until [ -e first ] || [ $n = 10 ]; do n=$((n+1)); sleep 0.05; done`;

async function stall(guest: QemuGuest): Promise<AsyncDisposable> {
  const stalled = await stallDisk(guest, 'data');
  await guest.exec(FIRST_WRITE);
  return stalled;
}
