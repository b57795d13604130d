// What bench -- in-guest has in a guest: two logical volumes, five writers for our agent and the same five for
// dragonsdawn-snapshot's steps.
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { Guest } from '../../src/testing/index.js';
import { scratch } from '../support/scratch.js';
import { guestProgram } from './guest-program.js';

export const PATHS = ['/srv/one', '/srv/two'] as const;
export const WRITERS = 5;
/** What writers note, by the guest's clock. */
export const NOTES = '/run/fsb-bench-notes';

const FOLDER = '/opt/fsb-bench';
const TARGET = `${FOLDER}/target`;
const HOOKS = '/etc/fsfreeze-bridge/fsfreeze-hook.d';
/** A line for a shell: its steps, from the first writer held to the last one let go. */
export const PEER = `${FOLDER}/in-guest-dragonsdawn.sh ${TARGET} ${PATHS.join(' ')}`;

const DESCRIPTION = { phases: ['prepare', 'freeze', 'verify', 'thaw'], resident: true, guarantee: 'held' };

const SETUP = `set -e
modprobe dm-snapshot
vgcreate -q bench $pv >/dev/null
for name in one two; do
  lvcreate -q -y -L 256M -n $name bench >/dev/null
  mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/bench/$name
  mkdir -p /srv/$name ${TARGET}/srv/$name
  mount /dev/bench/$name /srv/$name
done
mkdir -p ${FOLDER}/writers.d
for n in $(seq ${WRITERS}); do
  for folder in ${FOLDER}/writers.d ${HOOKS}; do cp ${FOLDER}/in-guest-writer $folder/$n-waits; done
  cp ${FOLDER}/description.json ${HOOKS}/$n-waits.json
done
`;

export async function setUpVolumes(guest: Guest): Promise<void> {
  const { path: pv } = await guest.addBlankDisk('pv', 1000);
  using folder = scratch();
  const source = (name: string): string => path.join(import.meta.dirname, name);
  const program = await guestProgram('in-guest-writer', folder);
  await writeFile(folder.path('description.json'), JSON.stringify(DESCRIPTION));
  const files = [program, source('in-guest-dragonsdawn.sh'), folder.path('description.json')];
  await guest.copyIn(files, FOLDER);
  await guest.exec(`pv=${pv}\n${SETUP}`, { timeoutMs: 120_000 });
}

/** What the peer's steps made. */
export async function takeAway(guest: Guest): Promise<void> {
  for (const mountpoint of PATHS) {
    const volume = `bench/${path.basename(mountpoint)}-snap`;
    await guest.exec(`umount ${TARGET}${mountpoint} && lvremove -q -y ${volume} >/dev/null`, { timeoutMs: 60_000 });
  }
}

/** Milliseconds from the first writer asked to hold to the last one that has let go. Throws unless all did both. */
export function pauseOf(notes: string, writers: number): number {
  const at = (phase: string): number[] =>
    notes
      .split('\n')
      .filter((line) => line.startsWith(`${phase} `))
      .map((line) => Number(line.split(' ')[1]) * 1000);
  const [held, released] = [at('freeze'), at('thaw')];
  if (held.length !== writers || released.length !== writers)
    throw new Error(`expected ${writers} writers held and let go, found ${held.length} and ${released.length}`);
  return Math.max(...released) - Math.min(...held);
}
