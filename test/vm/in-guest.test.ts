// Snapshots inside the guest, for real: fsfreeze-snapshot, the agent, LVM classic and thin, ext4 and xfs, PostgreSQL with
// its log on another volume, on a kernel that cuts what is frozen and on one that does not (src/snapshot/README.md).
import { describe, expect, test } from 'vitest';
import type { Guest } from '../../src/testing/index.js';
import { userModeAgent } from '../support/agent-guest.js';
import {
  CALL_LIMIT_MS,
  copyStraceIn,
  execOver,
  leftovers,
  onRootVolume,
  setUpVolumes,
  snapshot,
  untilNothingLeft,
} from '../support/in-guest.js';
import { requires, USER_MODE } from '../support/requires.js';
import { sharedGuest } from '../support/shared-guest.js';
import { kernels } from '../support/variants.js';

const bin = '/usr/lib/postgresql/15/bin';

/** A server over what the command copied, of which the rows are told. */
const RECOVERED = `set -e
chown -R postgres:postgres /var/tmp/r; rm -f /var/tmp/r/main/postmaster.pid
o='-c config_file=/etc/postgresql/15/main/postgresql.conf -c data_directory=/var/tmp/r/main -c port=5433 -c external_pid_file='
su postgres -c "${bin}/pg_ctl -w -s -D /var/tmp/r/main -o '$o' -l /var/tmp/r/log start" || { cat /var/tmp/r/log; exit 1; }
su postgres -c "psql -p 5433 -Atc 'select count(*), max(id) from load'"
su postgres -c "${bin}/pg_ctl -s -D /var/tmp/r/main -m immediate stop"
`;

/** Commits rows one after another, and notes in memory what was acknowledged. */
const LOAD = `seq $(($(su postgres -c 'psql -Atc "select coalesce(max(id), 0) from load"') + 1)) 1000000 |
sed 's/.*/insert into load select & from pg_sleep(0.01) returning id;/' | su postgres -c 'stdbuf -oL psql -qAt' >/run/acknowledged`;

/** Takes its time to cut. */
const SLOW_LVM = `#!/bin/sh
[ $# = 0 ] || exec /usr/sbin/lvm "$@"
while read -r line; do
	case $line in lvconvert*) : >/run/in-section; sleep 3 ;; esac
	printf '%s\\n' "$line"
done | /usr/sbin/lvm
`;

/** While mount(8) runs, the names of new snapshots lead to another volume, as if udev had not come to them. */
const STALE_LINKS = `set -e
lvcreate -q -An -y -L 16M -n other vg1 >/dev/null 2>&1; mkfs.ext4 -q /dev/vg1/other
mount /dev/vg1/other /mnt; echo other >/mnt/file; umount /mnt
cat >/usr/local/sbin/mount <<'END'
#!/bin/sh
for link in /dev/mapper/*-fsb_*_c?; do
	# Of udev's own it may not be there yet.
	at=$(readlink $link) || continue
	before="$before $link $at"; ln -sfn vg1-other $link
done
/usr/bin/mount "$@"; code=$?
set -- $before
while [ $# != 0 ]; do ln -sfn $2 $1; shift 2; done
exit $code
END
chmod 755 /usr/local/sbin/mount; code=0
"$@" || code=$?
rm /usr/local/sbin/mount; lvremove -q -y vg1/other >/dev/null; exit $code
`;

/** Agent and freezer, and the command with all that it starts. */
const TRACED = `rm -f /run/go
sh -c 'until [ -e /run/go ]; do sleep 0.1; done; exec fsfreeze-snapshot exec /srv/a /srv/t -- /bin/true' >&2 & command=$!
calls=ioctl,/open,creat,/mkdir,/rename,/link,/unlink,/mknod
all=$(systemctl show -P MainPID fsfreeze-agent),$(pgrep -xo freezer),$command
LD_LIBRARY_PATH=/run/strace /run/strace/strace -f -qq -s 200 -e trace=$calls -o /run/trace -p $all & tracer=$!
while grep -q 'TracerPid:.0$' /proc/$command/status; do sleep 0.1; done
: >/run/go; wait $command || exit; kill $tracer; wait $tracer; cat /run/trace`;

/** Of a trace, from the first FIFREEZE that returned to the last FITHAW. */
function whileFrozen(trace: readonly string[]): readonly string[] {
  const first = trace.findIndex((line) => line.includes('FIFREEZE'));
  const last = trace.findLastIndex((line) => line.includes('FITHAW'));
  expect(first).toBeGreaterThan(0);
  return trace.slice(first, last);
}

function changesFiles(line: string): boolean {
  return /O_WRONLY|O_RDWR|O_CREAT|\b(creat|mkdir|rename|link|symlink|unlink|mknod)(at2?)?\(/.test(line);
}

/** By default the older kernel is asked only what differs there. */
const isWhole = (kernel: string): boolean => kernel !== '6.1' || process.env['FSB_KERNELS'] !== undefined;

/** Both are told of: on kernels before 6.8 each volume has an instant of its own. */
const together = (kernel: string): boolean => kernel !== '6.1';

for (const kernel of kernels('6.1'))
  requires(...USER_MODE)(`snapshots inside the guest, kernel ${kernel}`, () => {
    const shared = sharedGuest(async () => await userModeAgent({ kernel }), setUpVolumes);
    const way = together(kernel) ? 'atomic' : 'per-volume';

    test('a command sees the cut in place of the paths, nested mounts too, and its exit code is passed on', async () => {
      const seen =
        'cat /srv/a/file /srv/a/b/file /srv/t/file; echo new >/srv/a/file || echo read-only; ls /proc/$$/fd; ' +
        'n=$(cat /srv/a/count); sleep 1; [ "$n" = "$(cat /srv/a/count)" ] && echo still; ' +
        'echo $(($(wc -l </srv/a/count) - $(wc -l </srv/t/count))) >&2; exit 7';
      // On two volumes, always in the same order.
      const writer = await shared().start(
        'i=0; while :; do i=$((i+1)); echo $i >>/srv/a/count; echo $i >>/srv/t/count; sleep 0.02; done',
      );
      const { exitCode, stdout, record, stderr } = await execOver(shared(), [], ['/srv/a', '/srv/t'], seen);
      await writer.kill();
      expect({ exitCode, stdout }, stderr).toEqual({
        exitCode: 7,
        stdout: 'before\nbefore\nbefore\nread-only\n0\n1\n2\nstill\n',
      });
      // At one instant the first volume is ahead by one line at most, and the second one never.
      if (together(kernel)) expect(stderr).toMatch(/^[01]$/m);
      const sources = ['/srv/a', '/srv/a/b', '/srv/t'].map((at) => ({ at, way, level: 'filesystem' }));
      expect(record).toMatchObject({ level: together(kernel) ? 'filesystem' : 'none', sources });
      expect(await leftovers(shared())).toBe('');
      expect((await shared().exec('cat /srv/a/file; echo after >/srv/a/new')).stdout).toBe('before\n');
    });

    test('what is mounted is the snapshot, also while udev has its names lead elsewhere', async () => {
      const words = [
        'fsfreeze-snapshot',
        'exec',
        '/srv/a',
        '/srv/a/b',
        '--',
        '/bin/cat',
        '/srv/a/file',
        '/srv/a/b/file',
      ];
      const line = ['/bin/sh', '-c', STALE_LINKS, 'sh', ...words];
      const { stdout } = await shared().exec(line, { timeoutMs: CALL_LIMIT_MS });
      expect(stdout).toBe('before\nbefore\n');
      expect(await leftovers(shared())).toBe('');
    });

    test('one volume alone is of one instant on every kernel', async () => {
      const { exitCode, record } = await execOver(shared(), ['--require', 'filesystem'], ['/srv/s'], 'cat /srv/s/file');
      expect(exitCode).toBe(0);
      expect(record).toMatchObject({ level: 'filesystem', sources: [{ at: '/srv/s', way: 'atomic' }] });
    });

    test('with the path / the command has the snapshot of the root filesystem as its root, with /proc and the like', async () => {
      const seen = `cat /file; nsenter -t $PPID -m sh -c "echo after >/file"; cat /file; ls /proc/self/exe; ! echo no >/x`;
      const line = `echo before >/file; fsfreeze-snapshot exec --json -c /run/rooted/conf / -- sh -c '${seen}'; cat /file`;
      const { exitCode, stdout, record, stderr } = await onRootVolume(shared(), line);
      expect({ exitCode, stdout }, stderr).toEqual({ exitCode: 0, stdout: 'before\nbefore\n/proc/self/exe\nafter\n' });
      // What is on other disks is shown, too, and told of.
      expect(record?.sources[0]).toMatchObject({ at: '/', way: 'atomic', level: 'filesystem' });
      expect(record?.level).toBe('none');
      expect(await leftovers(shared())).toBe('');
    });

    test('PostgreSQL with its log on another volume recovers, also where it is stopped for cuts one after another', async () => {
      const load = await shared().start(LOAD);
      await shared().exec('until [ "$(tail -n 1 /run/acknowledged)" -gt 20 ]; do sleep 0.05; done 2>/dev/null');
      const before = Number((await shared().exec('tail -n 1 /run/acknowledged')).stdout);
      const copy =
        'rm -rf /var/tmp/r; mkdir /var/tmp/r; cp -a /srv/pg/main /var/tmp/r; rm /var/tmp/r/main/pg_wal; cp -a /srv/wal/pg_wal /var/tmp/r/main/';
      const required = ['--require', 'application'];
      const { exitCode, record, stderr } = await execOver(shared(), required, ['/srv/pg', '/srv/wal'], copy).finally(
        async () => {
          await load.kill('TERM');
        },
      );
      expect({ exitCode }, stderr).toEqual({ exitCode: 0 });
      expect(record).toMatchObject({ level: 'application', sources: [{ way }, { way }] });
      const { stdout } = await shared().exec(RECOVERED, { timeoutMs: CALL_LIMIT_MS });
      const [count, last] = stdout.trim().split('|').map(Number);
      expect(count).toBe(last);
      expect(last).toBeGreaterThanOrEqual(before);
    });

    if (!together(kernel))
      test('PostgreSQL goes on when the agent dies while it is stopped for the cuts', async () => {
        const guest = shared();
        const lvm = '/usr/local/sbin/lvm';
        await guest.exec(`cat >${lvm}; chmod 755 ${lvm}`, { input: SLOW_LVM });
        const run = await guest.start(['/usr/bin/fsfreeze-snapshot', 'exec', '/srv/pg', '/srv/wal', '--', '/bin/true']);
        await guest.exec('until [ -e /run/in-section ]; do sleep 0.02; done', { timeoutMs: CALL_LIMIT_MS });
        const states = 'ps -o state= -C postgres | sort | uniq -c';
        const held = (await guest.exec(states)).stdout;
        await guest.exec('kill -KILL $(systemctl show -P MainPID fsfreeze-agent)');
        const asked = 'timeout 30 su postgres -c "psql -Atqc \'select 1\'"';
        expect((await guest.exec(asked, { timeoutMs: CALL_LIMIT_MS })).stdout).toBe('1\n');
        expect((await run.wait(CALL_LIMIT_MS)).exitCode).toBe(125);
        await guest.exec(`rm -f ${lvm} /run/in-section`);
        // A session that had just ended cannot be reaped meanwhile.
        expect(held).toMatch(/^ *\d+ T\n( *\d+ Z\n)?$/);
        expect((await guest.exec(states)).stdout).not.toContain('T');
        expect(await untilNothingLeft(guest, 30)).toBe('');
      });

    describe('below a folder', () => {
      test('the tree is there when standard output closes, and gone when the caller dies', async () => {
        const guest = shared();
        const line =
          'fsfreeze-snapshot -t /mnt/tree /srv/a /srv/a/b | { cat >/run/said; echo there >/run/ready; sleep 1000; }';
        const caller = await guest.start(`rm -f /run/ready; sleep 1000 | { ${line}; }`);
        await guest.exec('until [ -e /run/ready ]; do sleep 0.05; done', { timeoutMs: CALL_LIMIT_MS });
        const { stdout } = await guest.exec(
          'tail -n 1 /run/said; cat /mnt/tree/srv/a/file /mnt/tree/srv/a/b/file; ! touch /mnt/tree/srv/a/x',
        );
        expect(stdout).toBe('done\nbefore\nbefore\n');
        // The process with the other end of standard input: the holder itself is told by nobody.
        await guest.exec('kill -KILL $(pgrep -fo "^sleep 1000")');
        expect(await untilNothingLeft(guest, 30)).toBe('');
        expect((await guest.exec('ls -A /mnt/tree')).stdout).toBe('');
        await caller.kill();
      });

      test('start-snapshot and stop-snapshot are the same in two calls, and a folder in use is refused', async () => {
        expect(await snapshot(shared(), 'start-snapshot', '-t', '/mnt/tree', '/srv/t')).toMatchObject({ exitCode: 0 });
        const { stdout } = await shared().exec('cat /mnt/tree/srv/t/file');
        expect(stdout).toBe('before\n');
        const list = JSON.parse((await snapshot(shared(), 'list', '--json')).stdout) as { runs: unknown[] };
        expect(list.runs).toMatchObject([{ kind: 'tree', state: 'held', target: '/mnt/tree', isHeld: true }]);
        expect(await snapshot(shared(), '-t', '/mnt/tree', '/srv/t')).toMatchObject({ exitCode: 69 });
        expect(await snapshot(shared(), 'stop-snapshot')).toMatchObject({ exitCode: 0 });
        expect(await leftovers(shared())).toBe('');
      });
    });

    test('a storage command runs while everything is held', async () => {
      const line = 'cat /sys/block/*/dm/suspended >/dev/null; grep -c . /run/fsfreeze-bridge/frozen; exit 5';
      const { exitCode, stdout, stderr } = await snapshot(shared(), 'hold', '/srv/a', '--', '/bin/sh', '-c', line);
      expect({ exitCode, isMarked: Number(stdout) > 0 }, stderr).toEqual({ exitCode: 5, isMarked: true });
      expect(stderr).toContain('held: level filesystem');
      await shared().exec('echo more >/srv/a/b/more');
    });

    if (!isWhole(kernel)) return;

    requires('strace')('as the kernel sees it', () => {
      test('nothing is opened for writing while filesystems are frozen, but in memory and devices', async () => {
        await copyStraceIn(shared());
        const { stdout } = await shared().exec(TRACED, { timeoutMs: CALL_LIMIT_MS });
        const held = whileFrozen(stdout.split('\n'));
        // The hold and the cut are seen, or nothing was shown.
        expect(held.filter((line) => line.includes('DM_DEV_SUSPEND')).length).toBeGreaterThan(1);
        expect(held.filter((line) => changesFiles(line) && !/"\/(run|proc|sys|dev)\//.test(line))).toEqual([]);
      });
    });

    describe('when something goes wrong', () => {
      test('a holder that is killed leaves nothing: its command ends, its snapshots go', async () => {
        const guest = shared();
        await guest.start('fsfreeze-snapshot exec /srv/a -- /bin/sh -c "echo $$ >/run/command; exec sleep 1000"');
        await guest.exec('until [ -s /run/command ]; do sleep 0.05; done', { timeoutMs: CALL_LIMIT_MS });
        await guest.exec('kill -KILL $(pgrep -fo "^fsfreeze-snapshot exec")');
        expect(await untilNothingLeft(guest, 40)).toBe('');
        expect((await guest.exec('pgrep -f "^sleep 1000"', { check: false })).exitCode).toBe(1);
        await guest.exec('rm /run/command; echo more >/srv/a/more');
      });

      test('a snapshot whose room is used up fails the run, however happy the command is', async () => {
        const guest = shared();
        // Nothing is left to extend it by.
        await guest.exec('lvcreate -q -An -y -n filler -l $(($(vgs --noheadings -o vg_free_count vg1) - 2)) vg1');
        const fill =
          'nsenter -t 1 -m dd if=/dev/urandom of=/srv/s/big bs=1M count=24 conv=fsync 2>/dev/null; sleep 3; exit 0';
        const lost = await execOver(guest, ['--cow-size', '8M'], ['/srv/s'], fill);
        // Nobody hears a holder that went its own way: who stops it is told.
        const started = await snapshot(guest, 'start-snapshot', '-t', '/mnt/tree', '--cow-size', '8M', '/srv/s');
        await guest.exec('rm -f /srv/s/big; dd if=/dev/urandom of=/srv/s/big bs=1M count=24 conv=fsync 2>/dev/null');
        const stopped = await snapshot(guest, 'stop-snapshot');
        await guest.exec('rm -f /srv/s/big; lvremove -q -y vg1/filler');
        expect(started.exitCode, started.stderr).toBe(0);
        expect(stopped.exitCode, stopped.stderr).toBe(69);
        expect(stopped.stderr).toMatch(/what was read of run \w+ is not to be relied on: the snapshot vg1\/fsb_/);
        expect(lost.exitCode, lost.stderr).toBe(125);
        expect(lost.stderr).toMatch(/not to be relied on: the snapshot vg1\/fsb_.* of \/srv\/s is lost/);
        expect(await leftovers(guest)).toBe('');
      });

      test('a snapshot that fills up is extended while there is room', async () => {
        const guest = shared();
        const outside = (line: string) => `nsenter -t 1 -m sh -c "${line}" 2>/dev/null`;
        const write = (name: string, count: number) =>
          outside(`dd if=/dev/urandom of=/srv/s/${name} bs=1M count=${count} conv=fsync`);
        // More than it has at first is written once it has more.
        const grown = 'until dmsetup status | grep " snapshot " | grep -vq /24576; do sleep 0.2; done';
        const line = `${write('big1', 10)}; ${grown}; ${write('big2', 6)}; cat /srv/s/file`;
        const { exitCode, stdout, stderr } = await execOver(guest, ['--cow-size', '12M'], ['/srv/s'], line);
        await guest.exec('rm -f /srv/s/big*');
        expect({ exitCode, stdout }, stderr).toEqual({ exitCode: 0, stdout: 'before\n' });
      });

      test('a full volume group is told of before anything is held', async () => {
        const guest = shared();
        await guest.exec('lvcreate -q -An -y -n filler -l 100%FREE vg1');
        const sessions = 'journalctl -u fsfreeze-agent | grep -c frozen; true';
        const before = (await guest.exec(sessions)).stdout;
        const { exitCode, stderr } = await execOver(guest, [], ['/srv/s'], 'true');
        await guest.exec('lvremove -q -y vg1/filler');
        expect(exitCode).toBe(125);
        expect(stderr).toMatch(/expected 32 MiB free in the volume group, found 0 MiB/);
        expect((await guest.exec(sessions)).stdout).toBe(before);
      });

      test('what the command left running is waited for', async () => {
        const { exitCode } = await execOver(shared(), [], ['/srv/s'], 'sleep 3 </dev/null >/dev/null 2>&1 & exit 0');
        expect(exitCode).toBe(0);
        expect(await leftovers(shared())).toBe('');
      });

      test('signals reach the command, and nothing is left', async () => {
        const guest = shared();
        const trap = 'trap "echo told; exit 3" TERM; echo ready >/run/trapped; while :; do sleep 0.1; done';
        const run = await guest.start(['/usr/bin/fsfreeze-snapshot', 'exec', '/srv/s', '--', '/bin/sh', '-c', trap]);
        await guest.exec('until [ -e /run/trapped ]; do sleep 0.05; done; rm /run/trapped', {
          timeoutMs: CALL_LIMIT_MS,
        });
        await guest.exec(['/bin/kill', '-TERM', String(run.pid)]);
        expect(await run.wait(CALL_LIMIT_MS)).toMatchObject({ exitCode: 3, stdout: 'told\n' });
        expect(await leftovers(guest)).toBe('');
      });

      test('gc removes what has our tags and no holder, and nothing else', async () => {
        const guest: Guest = shared();
        await guest.exec(
          `[ -s /etc/machine-id ]; lv() { name=$1; shift; lvcreate -q -An -y -L 4M -n $name "$@" vg1; }; lv kept
ours='--addtag fsfreeze-bridge --addtag fsb.run'; on='--addtag fsb.boot.earlier --addtag fsb.machine'
lv fsb_dead $ours.dead $on.$(cat /etc/machine-id); lv fsb_guests $ours.guests $on.another`,
        );
        const { exitCode, stdout } = await snapshot(guest, 'gc');
        expect({ exitCode, stdout }).toEqual({
          exitCode: 0,
          stdout: expect.stringMatching(
            /^removed vg1\/fsb_dead\nnot ours: vg1\/fsb_guests: it was made by machine another, and this is \w+\n$/,
          ) as string,
        });
        await guest.exec('lvremove -q -y vg1/kept vg1/fsb_guests');
      });
    });
  });
