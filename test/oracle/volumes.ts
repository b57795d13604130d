// A guest whose databases lie on logical volumes, cut inside it by fsfreeze-snapshot: what the command is shown is packed
// onto a disk of its own, and unpacked in a second guest.
import path from 'node:path';
import type { UserModeGuest } from '../../src/testing/index.js';
import { copyDisk } from '../../src/testing/user-mode/boot-user-mode.js';
import { MEMORY, ON_ROOT } from './engine.js';

/** Where each volume is mounted: PostgreSQL's data, its log beside what else lies on the data disk, and the rest. */
const VOLUMES = { pg: '/var/lib/postgresql', data: '/srv/data', root: ON_ROOT } as const;
const PLACES = Object.values(VOLUMES).join(' ');
const VOLUME_MIB = 800;
/** With room for what changes while it is packed. */
const GROUP_MIB = 3 * VOLUME_MIB + 1200;
const PACKED_MIB = 2000;
const LIMIT_MS = 300_000;

/** Before anything of them is started. */
export async function moveToVolumes(guest: UserModeGuest): Promise<void> {
  const group = await guest.addBlankDisk('group', GROUP_MIB);
  await guest.addBlankDisk('packed', PACKED_MIB);
  const move = Object.entries(VOLUMES).map(
    ([name, at]) => `lvcreate -q -An -y -L ${VOLUME_MIB}M -n ${name} oracle >/dev/null
mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/oracle/${name}
mount /dev/oracle/${name} /mnt; cp -a ${at}/. /mnt; umount /mnt
! mountpoint -q ${at} || umount ${at}
mount /dev/oracle/${name} ${at}`,
  );
  const line = `set -e\nmodprobe dm-snapshot\nvgcreate -q oracle ${group.path} >/dev/null\n${move.join('\n')}`;
  await guest.exec(line, { timeoutMs: LIMIT_MS });
}

/** Gives the disk with what was packed, as a file on the host. */
export async function cutVolumes(guest: UserModeGuest, folder: string): Promise<string> {
  // The command is run when all is let go.
  const pack = `echo '! thawed' >>${MEMORY}/log; tar -cf ${guest.disk('packed').path} -C / ${PLACES.replaceAll(' /', ' ').slice(1)}`;
  const words = ['exec', '--require', 'application', '--require-snapshot', '--lease', '60', ...Object.values(VOLUMES)];
  await guest.exec(`echo '! asked' >>${MEMORY}/log`);
  await guest.exec(['/usr/bin/fsfreeze-snapshot', ...words, '--', '/bin/sh', '-c', pack], { timeoutMs: LIMIT_MS });
  await guest.exec('sync');
  const file = path.join(folder, 'packed.raw');
  await copyDisk(guest.disk('packed'), file);
  return file;
}

/** In place of what the image has there. `packed`: the path of the disk in the guest. */
export function unpack(packed: string): string {
  return `set -e; for at in ${PLACES}; do find $at -mindepth 1 -delete; done; tar -xpf ${packed} -C /`;
}
