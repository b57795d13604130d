// What is in the guest of the fault matrix, whatever its kind: where the probe writes, the writers and their limits, the
// program that sees and strikes. How a kind gets it: lab-qemu.ts, lab-user-mode.ts.
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { hashOfFile, keyOf } from '../../../src/testing/cache.js';
import type { Guest } from '../../../src/testing/index.js';

const SOURCE = fileURLToPath(new URL('../../fixtures/fault-lab/fault-lab.c', import.meta.url));
const THIS = fileURLToPath(import.meta.url);
const HOOKS = '/etc/fsfreeze-bridge/fsfreeze-hook.d';
export const LAB = '/usr/local/bin/fault-lab';

/** Where the probe writes: ext4 on the root disk, ext4 and xfs on two halves of the other one. */
export const DIRECTORIES = ['/', '/srv/data', '/srv/more'] as const;
/** The one in the middle is resident: it holds while its input is open. */
export const WRITERS = ['10-bystander', '15-resident', '20-holder'] as const;
export type WriterName = (typeof WRITERS)[number];
export const RESIDENT = '15-resident';
/** Milliseconds a phase of the writers may take. */
export const WRITER_LIMITS_MS = { prepare: 5000, freeze: 6000, verify: 2000, thaw: 4000 } as const;

/** The halves of the second disk, in sectors. */
export const HALVES = { data: { begin: 2048, size: 1046528 }, more: { begin: 1048576, size: 1048576 } } as const;

const descriptionOf = (writer: WriterName): string =>
  JSON.stringify({
    ...(writer === RESIDENT ? { resident: true } : {}),
    phases: ['prepare', 'freeze', 'verify', 'thaw'],
    rank: Number.parseInt(writer, 10),
    guarantee: 'held',
    timeout: Object.fromEntries(Object.entries(WRITER_LIMITS_MS).map(([phase, ms]) => [phase, ms / 1000])),
  });

const INSTALL = `set -e
install -m 755 /run/fsb-in/fault-lab ${LAB}
for writer in ${WRITERS.join(' ')}; do install -m 755 /run/fsb-in/fault-lab ${HOOKS}/$writer; done
install -m 644 /run/fsb-in/*.json ${HOOKS}
for hook in /usr/lib/fsfreeze-bridge/fsfreeze-hook.d/*; do ln -sf /dev/null ${HOOKS}/$(basename $hook); done
rm -r /run/fsb-in`;

/** Makes the two filesystems of the second disk, and a swap file that is frozen with one of them. */
export const fileSystems = (data: string, more: string): string =>
  `mkfs.ext4 -qF -E lazy_itable_init=0,lazy_journal_init=0 ${data}; mkfs.xfs -qf ${more}
mkdir -p /srv/more; mount ${data} /srv/data; mount ${more} /srv/more
fallocate -l 48M /srv/swap; chmod 600 /srv/swap; mkswap -q /srv/swap`;

/** Names all that is put into the guest, with what the kind adds to it. */
export async function partsKey(...more: readonly string[]): Promise<string> {
  return keyOf(await hashOfFile(SOURCE), await hashOfFile(THIS), ...more);
}

/** Program and writers, in a guest that runs. */
export async function installParts(guest: Guest): Promise<void> {
  const files = path.join(guest.dir, 'lab');
  await mkdir(files);
  const flags = ['-O2', '-std=gnu11', '-Wall', '-Wextra', '-Werror', '-static', '-pthread'];
  await execa('gcc', [...flags, '-o', path.join(files, 'fault-lab'), SOURCE], { timeout: 60_000 });
  const sources = [path.join(files, 'fault-lab')];
  for (const writer of WRITERS) {
    const file = path.join(files, `${writer}.json`);
    await writeFile(file, descriptionOf(writer));
    sources.push(file);
  }
  await guest.copyIn(sources, '/run/fsb-in');
  await guest.exec(INSTALL);
}

/** An empty timeline, the RCU knob as it is now, and a probe that writes. */
export async function startWatch(guest: Guest): Promise<void> {
  await guest.exec(
    'mkdir -p /run/fsb-lab/ctl; : >/run/fsb-lab/timeline; cat /sys/kernel/rcu_expedited >/run/fsb-lab/rcu 2>/dev/null; :',
  );
  await guest.start([LAB, 'watch', ...DIRECTORIES]);
  await guest.exec(`until [ "$(${LAB} look | grep -c '^last')" = ${DIRECTORIES.length} ]; do sleep 0.1; done`);
}
