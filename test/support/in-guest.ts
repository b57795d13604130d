// What vm tests of snapshots inside the guest do: volumes to cut, a database on two of them, and calls of
// fsfreeze-snapshot.
import { realpath } from 'node:fs/promises';
import { execa } from 'execa';
import type { Guest } from '../../src/testing/index.js';

/** Of whatever is waited for in a guest: on a slow machine, beside other guests, a cut of two volumes has taken a minute. */
export const CALL_LIMIT_MS = 180_000;

const DISKS = { pv1: 1200, pv2: 300 } as const;

/**
 * `vg0`: ext4 with an xfs mounted in it (/srv/a, /srv/a/b) and a thin volume (/srv/t), PostgreSQL with its log on another
 * volume (/srv/pg, /srv/wal). `vg1`: one small ext4 (/srv/s) and little room beside it.
 */
const SETUP = `set -e
quick='-q -E lazy_itable_init=0,lazy_journal_init=0'
modprobe -a dm-snapshot dm-thin-pool
vgcreate -q vg0 $pv1 >/dev/null; vgcreate -q vg1 $pv2 >/dev/null
lv() { lvcreate -q -An -y -L $2 -n $1 $3 >/dev/null 2>&1; }
lv a 48M vg0; lv b 300M vg0; lv pg 120M vg0; lv wal 300M vg0; lv s 64M vg1
lvcreate -q -An -L 48M -T vg0/pool >/dev/null 2>&1; lvcreate -q -An -V 40M -T vg0/pool -n t >/dev/null 2>&1
for lv in vg0/a vg0/pg vg0/t vg1/s; do mkfs.ext4 $quick /dev/$lv; done
for lv in vg0/b vg0/wal; do mkfs.xfs -q /dev/$lv; done
mkdir -p /srv/a /srv/t /srv/pg /srv/wal /srv/s /mnt/tree
mount /dev/vg0/a /srv/a; mkdir /srv/a/b; mount /dev/vg0/b /srv/a/b
for m in t pg wal; do mount /dev/vg0/$m /srv/$m; done; mount /dev/vg1/s /srv/s
for m in /srv/a /srv/a/b /srv/t /srv/s; do echo before >$m/file; done
systemctl stop $unit; while pgrep -x postgres >/dev/null; do sleep 0.1; done
main=$(echo /var/lib/postgresql/*/main)
cp -a $main /srv/pg/main; cp -aL $main/pg_wal /srv/wal/pg_wal; chown postgres:postgres /srv/wal/pg_wal
rm /srv/pg/main/pg_wal; ln -s /srv/wal/pg_wal /srv/pg/main/pg_wal
rm -r $main; ln -s /srv/pg/main $main; chown -h postgres:postgres $main
systemctl start $unit
until su postgres -c 'psql -qc "create table load (id int primary key)"' 2>/dev/null; do sleep 0.2; done
`;

/** As far as mounts go, a machine whose root lies on a logical volume: a namespace with an agent of its own. */
const ROOTED = `set -e
lvcreate -q -An -y -L 32M -n root vg0 >/dev/null 2>&1; mkfs.ext4 -q /dev/vg0/root
mkdir -p /run/rooted/none
own='runtime-dir=/run/rooted\nlocal-socket=/run/rooted/agent.sock\nwriter-folders=/run/rooted/none'
printf "[general]\nmethod=none\n[bridge]\n$own\n" >/run/rooted/conf
cat >/run/rooted/script <<'END'
set -e
mkdir -p /srv/new; mount /dev/vg0/root /srv/new; cd /srv/new
mkdir usr etc var proc sys dev run tmp old; for d in bin sbin lib lib64; do ln -s usr/$d $d; done
for d in usr etc var proc sys dev run; do mount --rbind /$d $d; done
pivot_root . old; cd /; umount -l /old
fsfreeze-agent -c /run/rooted/conf >/run/rooted/log 2>&1 & agent=$!
until [ -S /run/rooted/agent-root.sock ]; do sleep 0.05; done
rc=0; (eval "$1") || rc=$?
kill $agent; wait $agent || :; kill -KILL $(pgrep -f "^[^ ]*freezer --socket /run/rooted")
exit $rc
END
rc=0; unshare -m sh /run/rooted/script "$1" || rc=$?
rm -r /run/rooted; lvremove -q -y vg0/root >/dev/null; exit $rc
`;

/** Does `line` in a namespace whose root is a logical volume of its own; fsfreeze-snapshot needs `-c /run/rooted/conf`. */
export async function onRootVolume(guest: Guest, line: string): Promise<Called> {
  return called(await guest.exec(['/bin/sh', '-c', ROOTED, 'sh', line], { check: false, timeoutMs: CALL_LIMIT_MS }));
}

/** This machine's strace with its libraries, as `/run/strace/strace`: no image has one. */
export async function copyStraceIn(guest: Guest): Promise<void> {
  const program = await execa('sh', ['-c', 'command -v strace']);
  const { stdout } = await execa('ldd', [program.stdout]);
  const libraries = [...stdout.matchAll(/=> (\/\S+)/g)].map(([, path = '']) => path);
  await guest.copyIn(
    await Promise.all([program.stdout, ...libraries].map(async (file) => await realpath(file))),
    '/run/strace',
  );
  await guest.exec('rm -f /run/strace/libc.so* /run/strace/libc-*; ldconfig -n /run/strace');
}

export async function setUpVolumes(guest: Guest): Promise<void> {
  for (const [name, sizeMiB] of Object.entries(DISKS)) await guest.addBlankDisk(name, sizeMiB);
  const variables = [
    `unit=${guest.image.postgresql.unit}`,
    ...Object.keys(DISKS).map((name) => `${name}=${guest.disk(name).path}`),
  ];
  await guest.exec(`${variables.join(' ')}\n${SETUP}`, { timeoutMs: 180_000 });
}

export interface Called {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
  /** The run, if there was one. */
  readonly record?: { readonly level: string; readonly sources: readonly { at: string; way: string; level: string }[] };
}

/** `fsfreeze-snapshot`, with --json, to its end. */
export async function snapshot(guest: Guest, ...words: readonly string[]): Promise<Called> {
  return called(await guest.exec(['/usr/bin/fsfreeze-snapshot', ...words], { check: false, timeoutMs: CALL_LIMIT_MS }));
}

function called(result: Pick<Called, 'exitCode' | 'stdout' | 'stderr'>): Called {
  const line = result.stderr.split('\n').find((each) => each.startsWith('{"run"'));
  return { ...result, ...(line === undefined ? {} : { record: JSON.parse(line) as NonNullable<Called['record']> }) };
}

/** `exec` over `paths` of a line for a shell. */
export async function execOver(guest: Guest, options: readonly string[], paths: readonly string[], line: string) {
  return await snapshot(guest, 'exec', '--json', ...options, ...paths, '--', '/bin/sh', '-c', line);
}

/** Logical volumes that carry our tag, notes of runs, an udev that still goes last: all gone once all is over. */
export async function leftovers(guest: Guest): Promise<string> {
  const line =
    'lvs --noheadings -o vg_name,lv_name @fsfreeze-bridge 2>/dev/null; ls /run/fsfreeze-bridge/snapshots; dmsetup ls | grep fsb; chrt -p $(pgrep -o udevd) | grep IDLE';
  return (await guest.exec(line, { check: false })).stdout.trim();
}

/** Waits until nothing is left, at most `limitS`. Gives what is. */
export async function untilNothingLeft(guest: Guest, limitS: number): Promise<string> {
  let left = await leftovers(guest);
  for (const end = Date.now() + limitS * 1000; left !== '' && Date.now() < end; left = await leftovers(guest))
    await new Promise((resolve) => setTimeout(resolve, 300));
  return left;
}
