// What becomes of snapshots inside the guest, and of the guest, when something dies, runs out or comes in between. A
// provider that suspends its device for seconds makes room for that to happen inside a section (src/snapshot/README.md).
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { waitForAgent } from '../../src/testing/index.js';
import { addWriter, removeWriters, requester, userModeAgent } from '../support/agent-guest.js';
import { guestSeconds } from '../support/first-write.js';
import {
  CALL_LIMIT_MS,
  execOver,
  leftovers,
  onRootVolume,
  setUpVolumes,
  snapshot,
  untilNothingLeft,
} from '../support/in-guest.js';
import { requires, USER_MODE } from '../support/requires.js';
import { sharedGuest } from '../support/shared-guest.js';
import { kernels, oneIn, rarely } from '../support/variants.js';

const PROVIDER = '/etc/fsfreeze-bridge/providers.d/slow';
/** Takes vg1/s alone: its cut is a device that is suspended for SECONDS. It shows the filesystem as it is. */
const slow = (seconds: number): string => `#!/bin/sh
read -r facts
case $1 in
probe) case $facts in */srv/s\\"*) echo '{"underFreeze":true}' ;; *) echo 'not mine' >&2; exit 3 ;; esac ;;
plan) echo '{"name":"slow"}' ;;
take)
	echo ready; read -r word || exit 0
	trap '' PIPE
	dmsetup suspend --nolockfs vg1-s; : >/run/in-section; sleep ${seconds}; dmsetup resume vg1-s
	echo taken
	;;
mount) echo '{"device":"/dev/vg1/s","type":"ext4","options":["rw"]}' ;;
status) echo '{"state":"whole"}' ;;
extend) echo '{"extended":false}' ;;
remove) : >/run/removed; echo '{}' ;;
esac
`;

const LVM = '/usr/local/sbin/lvm';
/** An lvm in front of the system's: its shell does `create` to make room, and cuts nothing, but suspends the origin and does `then`. */
const brokenLvm = (then: string, create = 'eval "/usr/sbin/lvm $line"'): string => `#!/bin/sh
[ $# = 0 ] || exec /usr/sbin/lvm "$@"
while read -r line; do
	case $line in
	lvcreate*) ${create} ;;
	lvconvert*) dmsetup suspend --nolockfs vg1-s; ${then} ;;
	fsb-done*) echo "No such command '$line'" ;;
	esac
done
`;

/** Takes its time to remove; not much of the 5 s for which a session waits, since a busy machine removes slowly, too. */
const SLOW_LVM = `#!/bin/sh
[ "$1" != lvremove ] || { : >/run/in-section; sleep 1; }
exec /usr/sbin/lvm "$@"
`;

/** A machine without systemd, as far as its files go, with settings of its own: first with a port, then without. */
const ALONE = `mount -t tmpfs none /run/systemd; mkdir -p /run/conf/none
printf "[bridge]\\nruntime-dir=/run/alone\\nwriter-folders=/run/conf/none\\n" >/run/conf/conf
set -- fsfreeze-snapshot exec -c /run/conf/conf /srv/s -- cat /srv/s/file
"$@" && exit 1
mount -t tmpfs none /dev/virtio-ports
"$@" & first=$!; { "$@" || "$@"; }; wait $first || "$@" || exit
kill $(cat /run/alone/agent.pid) $(pgrep -f "^[^ ]*freezer --socket /run/alone")
while [ -e /run/alone/agent.sock ]; do sleep 0.1; done
rm -r /run/alone /run/conf`;

/** Nothing is frozen in any way: of its device neither, which would show when it is mounted anew. */
const MOUNTABLE = 'timeout 20 sh -c "echo x >/srv/s/x && umount /srv/s && mount /dev/vg1/s /srv/s && echo y >/srv/s/y"';

for (const kernel of kernels('6.12'))
  requires(...USER_MODE)(`faults of snapshots inside the guest, kernel ${kernel}`, () => {
    const shared = sharedGuest(async () => await userModeAgent({ kernel }), setUpVolumes);
    const useSlow = async (seconds: number): Promise<void> => {
      const line = `mkdir -p ${PROVIDER.replace(/\/\w+$/, '')}; cat >${PROVIDER}; chmod 755 ${PROVIDER}`;
      await shared().exec(line, { input: slow(seconds) });
    };
    /** Waits until the cut is under way. */
    const inSection = async (): Promise<void> => {
      await shared().exec('until [ -e /run/in-section ]; do sleep 0.02; done', { timeoutMs: CALL_LIMIT_MS });
    };
    const isMountable = async (): Promise<string> => (await shared().exec(`${MOUNTABLE} 2>&1; echo $?`)).stdout.trim();

    beforeEach(async () => {
      await shared().exec(
        `rm -f ${PROVIDER} ${LVM} /run/in-section /run/removed /run/held /run/killed; systemctl reset-failed`,
      );
    });

    test('a lease that ends inside a section thaws after it, and the run fails', async () => {
      await useSlow(4);
      const { exitCode, stderr } = await execOver(shared(), ['--lease', '1'], ['/srv/s'], 'true');
      expect(exitCode).toBe(125);
      expect(stderr).toContain('expected a hold that lasts until all is cut');
      expect(await isMountable()).toBe('0');
      expect(await leftovers(shared())).toBe('');
    });

    test('a holder that is killed inside a section lets go when the section is over, long before its bound', async () => {
      await useSlow(2);
      await shared().start('exec fsfreeze-snapshot exec /srv/s /srv/t -- true');
      await inSection();
      await shared().exec('kill -KILL $(pgrep -fo "^fsfreeze-snapshot exec")');
      const began = Date.now();
      expect(await isMountable()).toBe('0');
      // The bound is 30 s, in which the guest would stay frozen.
      expect(Date.now() - began).toBeLessThan(20_000);
      expect(await untilNothingLeft(shared(), 60)).toBe('');
      await shared().exec('until [ -e /run/removed ]; do sleep 0.1; done', { timeoutMs: CALL_LIMIT_MS });
    });

    test.each(
      oneIn(
        3,
        [
          ['dies within its cut', 'kill -KILL $$', ['the lvm shell ended']],
          ['says that it is done', ':', ['was left suspended by its cut']],
          ['hangs for longer than a cut may take', 'sleep 23; dmsetup resume vg1-s', ['20000 ms']],
        ] as const,
        1,
      ),
    )('an lvm that suspends a device and %s: it is resumed, and thawed only then', async (_, then, told) => {
      await shared().exec(`cat >${LVM}; chmod 755 ${LVM}`, { input: brokenLvm(then) });
      const { exitCode, stderr } = await execOver(shared(), ['--provider', 'lvm'], ['/srv/s'], 'true');
      await shared().exec(`rm ${LVM}`);
      expect(exitCode, stderr).toBe(125);
      for (const text of told) expect(stderr).toContain(text);
      expect(await isMountable()).toBe('0');
      expect(await leftovers(shared())).toBe('');
    });

    rarely('an lvm that makes no room is told of, and nothing is held', async () => {
      const input = brokenLvm(':', 'echo "insufficient free space"');
      await shared().exec(`cat >${LVM}; chmod 755 ${LVM}`, { input });
      const { exitCode, stderr } = await execOver(shared(), ['--provider', 'lvm'], ['/srv/s'], 'true');
      await shared().exec(`rm ${LVM}`);
      expect(exitCode, stderr).toBe(125);
      expect(stderr).toMatch(/lvcreate .*vg1: insufficient free space/);
      expect(await leftovers(shared())).toBe('');
    });

    test('an lvm that dies within its cut together with the holder: what it left is resumed, then thawed', async () => {
      const both = 'kill -KILL $(pgrep -fo "^fsfreeze-snapshot exec"); : >/run/in-section; kill -KILL $$';
      await shared().exec(`cat >${LVM}; chmod 755 ${LVM}`, { input: brokenLvm(both) });
      await shared().start('exec fsfreeze-snapshot exec --provider lvm /srv/s -- true');
      await inSection();
      const began = Date.now();
      expect(await isMountable()).toBe('0');
      expect(Date.now() - began).toBeLessThan(25_000);
      await shared().exec(`rm ${LVM}`);
      expect(await untilNothingLeft(shared(), 60)).toBe('');
    });

    test('while one holds, another one and the host are told by whom', async () => {
      await useSlow(5);
      const first = await shared().start('exec fsfreeze-snapshot exec /srv/s -- true');
      await inSection();
      await using host = await requester(shared());
      const hostAsks = host.client.call('bridge-freeze', { require: 'filesystem' }, { timeoutMs: CALL_LIMIT_MS });
      await expect(hostAsks).rejects.toThrow(/held by fsfreeze-snapshot \w+, pid \d+/);
      const { exitCode, stderr } = await first.wait(CALL_LIMIT_MS);
      expect(exitCode, stderr).toBe(0);
      expect(await leftovers(shared())).toBe('');
    });

    test('what reads a snapshot keeps neither another one waiting nor the host, whose freeze is worth as much', async () => {
      const first = await shared().start(
        'exec fsfreeze-snapshot exec /srv/t -- sh -c "echo >/run/held; exec sleep 1000"',
      );
      await shared().exec('until [ -e /run/held ]; do sleep 0.05; done', { timeoutMs: CALL_LIMIT_MS });
      const second = await execOver(shared(), ['--require', 'filesystem'], ['/srv/t'], 'cat /srv/t/file');
      expect(second, second.stderr).toMatchObject({ exitCode: 0, stdout: 'before\n' });
      await using host = await requester(shared());
      const session = await host.coordinator.freeze({ requester: 'host', leaseMs: 20_000, require: 'application' });
      expect(await session.thaw()).toMatchObject({ outcome: 'ok', level: 'application' });
      await shared().exec(['/bin/kill', '-TERM', String(first.pid)]);
      await first.wait(CALL_LIMIT_MS);
      expect(await leftovers(shared())).toBe('');
    });

    test('a snapshot whose command ends while a host holds the guest goes when that is over', async () => {
      const first = await shared().start(
        'exec fsfreeze-snapshot exec --provider lvm /srv/s -- sh -c "echo >/run/held; exec sleep 1000"',
      );
      await shared().exec('until [ -e /run/held ]; do sleep 0.05; done', { timeoutMs: CALL_LIMIT_MS });
      await using host = await requester(shared());
      const asked = { requester: 'host', leaseMs: 30_000, require: 'filesystem', mountpoints: ['/srv/s'] } as const;
      const session = await host.coordinator.freeze(asked);
      await shared().exec(['/bin/kill', '-TERM', String(first.pid)]);
      await shared().exec('sleep 4');
      expect(await leftovers(shared())).toContain('fsb_');
      expect(await session.thaw()).toMatchObject({ outcome: 'ok', level: 'filesystem' });
      await first.wait(CALL_LIMIT_MS);
      expect(await leftovers(shared())).toBe('');
      expect(await isMountable()).toBe('0');
    });

    rarely('a host that comes while a snapshot is removed waits for that', async () => {
      await shared().exec(`cat >${LVM}; chmod 755 ${LVM}`, { input: SLOW_LVM });
      const first = await shared().start('exec fsfreeze-snapshot exec --provider lvm /srv/s -- true');
      await inSection();
      await using host = await requester(shared());
      const asked = { requester: 'host', leaseMs: 30_000, require: 'filesystem', mountpoints: ['/srv/s'] } as const;
      const freeze = async (untilMs: number): ReturnType<typeof host.coordinator.freeze> => {
        try {
          return await host.coordinator.freeze(asked);
        } catch (error) {
          // A session waits five seconds; on a busy machine a removal takes longer, and is named then.
          if (Date.now() > untilMs || !String(error).includes('fsfreeze-snapshot, which changes')) throw error;
          return await freeze(untilMs);
        }
      };
      const session = await freeze(Date.now() + CALL_LIMIT_MS);
      expect((await shared().exec('dmsetup ls')).stdout).not.toContain('fsb_');
      expect(await session.thaw()).toMatchObject({ outcome: 'ok', level: 'filesystem' });
      expect((await first.wait(CALL_LIMIT_MS)).exitCode).toBe(0);
      await shared().exec(`rm ${LVM}`);
    });

    test.each(
      oneIn(
        2,
        [
          ['/srv/s', 'vg1/s', 'lvm'],
          ['/srv/t', 'vg0/t', 'lvm-thin'],
        ] as const,
        0,
      ),
    )('revert takes %s back to the cut', async (path, volume, provider) => {
      const begun = await snapshot(shared(), 'start-snapshot', '--provider', provider, '-t', '/mnt/tree', path);
      expect(begun.exitCode, begun.stderr).toBe(0);
      await shared().exec(`echo later >${path}/later`);
      const list = JSON.parse((await snapshot(shared(), 'list', '--json')).stdout) as { runs: { run: string }[] };
      const reverted = await snapshot(shared(), 'revert', '--yes', list.runs[0]?.run ?? '');
      expect(reverted.exitCode, reverted.stderr).toBe(0);
      const anew = `umount ${path}; lvchange -an ${volume}; lvchange -ay ${volume}`;
      const merged = 'while lvs -a --noheadings -o lv_name | grep -q fsb_; do sleep 0.5; lvs >/dev/null; done';
      await shared().exec(`${anew}; timeout 60 sh -c "${merged}"; mount /dev/${volume} ${path}`, { timeoutMs: 90_000 });
      expect((await shared().exec(`ls ${path}/later`, { check: false })).exitCode).not.toBe(0);
      expect(await leftovers(shared())).toBe('');
    });

    test.each(
      oneIn(
        2,
        [
          ['agent', '$(systemctl show -P MainPID fsfreeze-agent)'],
          ['freezer', '$(pgrep -x freezer)'],
        ] as const,
        1,
      ),
    )('a storage command under a hold fails when the %s is killed', async (_, pids) => {
      const line = 'echo >/run/held; until [ -e /run/killed ]; do sleep 0.1; done';
      const run = await shared().start(['/usr/bin/fsfreeze-snapshot', 'hold', '/srv/a', '--', '/bin/sh', '-c', line]);
      await shared().exec('until [ -e /run/held ]; do sleep 0.05; done', { timeoutMs: CALL_LIMIT_MS });
      await shared().exec(`kill -KILL ${pids}; timeout 20 sh -c "echo x >/srv/a/x"; echo >/run/killed`);
      expect((await run.wait(CALL_LIMIT_MS)).exitCode).toBe(125);
      await waitForAgent(shared());
    });

    describe('a storage command under a hold', () => {
      const hold = ['/usr/bin/fsfreeze-snapshot', 'hold'];
      afterEach(async () => {
        await removeWriters(shared(), '70-app');
      });
      /** An application that is held as long as /run/app is there, and takes `prepareS` seconds to get ready. */
      const addApplication = async (prepareS: number): Promise<void> => {
        const head = 'phases=prepare freeze verify thaw abort\n# fsfreeze-writer: guarantee=held';
        const script = `#!/bin/sh\n# fsfreeze-writer: ${head}\ncase $1 in
prepare) : >/run/app; sleep ${prepareS} ;;
verify) [ -e /run/app ] || { echo "the lock is gone" >&2; exit 1; } ;;
thaw|abort) rm -f /run/app ;;
esac\n`;
        await addWriter(shared(), '70-app', script);
      };

      test('fails if an application is not held to its end', async () => {
        await addApplication(0);
        const line = ['/srv/s', '--', '/bin/rm', '/run/app'];
        const strict = await snapshot(shared(), 'hold', '--require', 'application', ...line);
        const told = await snapshot(shared(), 'hold', ...line);
        expect(strict.exitCode, strict.stderr).toBe(125);
        expect(strict.stderr).toMatch(/expected level application to the end, reached filesystem.*the lock is gone/);
        expect(told.stderr).toContain('level filesystem');
      });

      rarely('is not run after a signal that comes while the guest is being held', async () => {
        await addApplication(3);
        const run = await shared().start([...hold, '/srv/s', '--', '/bin/touch', '/run/held']);
        await shared().exec('until [ -e /run/app ]; do sleep 0.05; done', { timeoutMs: CALL_LIMIT_MS });
        await shared().exec(['/bin/kill', '-TERM', String(run.pid)]);
        expect((await run.wait(CALL_LIMIT_MS)).exitCode).toBe(125);
        // The application is let go, and the guest writes.
        await shared().exec('timeout 30 sh -c "while [ -e /run/app ]; do sleep 0.1; done"; echo x >/srv/s/x');
        await shared().exec('! [ -e /run/held ]');
      });
    });

    test('a command has what writers left beside it, and they are told how it ended', async () => {
      const script = `#!/bin/sh
# fsfreeze-writer: phases=prepare verify complete
# fsfreeze-writer: guarantee=recoverable
case $1 in
prepare) mkdir -p $FSFREEZE_SCRATCH/artefacts; echo 0/16B3748 >$FSFREEZE_SCRATCH/artefacts/position ;;
complete) echo $FSFREEZE_OUTCOME >>/run/told ;;
esac
`;
      await addWriter(shared(), '70-app', script);
      const line =
        'echo $FSFREEZE_LEVEL; cat $FSFREEZE_ARTEFACTS/70-app/position; ls /run/fsfreeze-bridge/snapshots | grep -cx $FSFREEZE_RUN';
      const good = await execOver(shared(), [], ['/srv/s'], line);
      const bad = await execOver(shared(), [], ['/srv/s'], `${line}; exit 3`);
      await removeWriters(shared(), '70-app');
      const stdout = 'application\n0/16B3748\n1\n';
      expect([good, bad]).toMatchObject([
        { exitCode: 0, stdout },
        { exitCode: 3, stdout },
      ]);
      expect((await shared().exec('cat /run/told; rm /run/told')).stdout).toBe('ok\nfailed\n');
    });

    rarely('a command whose time is over is killed if it does not care', async () => {
      // By its own clock: that of a user-mode guest may go faster than the host's.
      const begun = await guestSeconds(shared());
      const deaf = 'trap "" TERM; while :; do sleep 0.2; done';
      const { exitCode, stderr } = await execOver(shared(), ['--ttl', '4'], ['/srv/s'], deaf);
      expect(exitCode, stderr).toBe(125);
      expect(stderr).toContain('the command was ended after 4 s (--ttl)');
      expect((await guestSeconds(shared())) - begun).toBeGreaterThan(13);
      expect(await leftovers(shared())).toBe('');
    });

    rarely('where no systemd keeps an agent, the commands start one, which stays for the next', async () => {
      const { exitCode, stdout, stderr } = await shared().exec(['/usr/bin/unshare', '-m', '/bin/sh', '-c', ALONE], {
        check: false,
        timeoutMs: CALL_LIMIT_MS,
      });
      expect({ exitCode, stdout }, stderr).toEqual({ exitCode: 0, stdout: 'before\nbefore\n' });
      expect(stderr.match(/fsfreeze-agent is started/g)).toHaveLength(1);
      expect(stderr).toContain('level filesystem');
      expect(stderr).toContain('one has to serve /dev/virtio-ports/org.qemu.guest_agent.0');
    });

    rarely('a path of the root filesystem is no application: links lead out of it, to what was not cut', async () => {
      const line = (paths: string): string =>
        `mkdir -p /tmp/app; fsfreeze-snapshot exec -c /run/rooted/conf --json ${paths} -- /bin/true`;
      const writer = `#!/bin/sh\n# fsfreeze-writer: phases=prepare verify\n# fsfreeze-writer: guarantee=recoverable\n`;
      const add = `mkdir -p /run/rooted/none; printf '${writer.replaceAll('\n', '\\n')}' >/run/rooted/none/70-app; chmod 755 /run/rooted/none/70-app`;
      const part = await onRootVolume(shared(), `${add}; ${line('/tmp/app')}`);
      const whole = await onRootVolume(shared(), `${add}; ${line('/')}`);
      expect(part.record, part.stderr).toMatchObject({ level: 'filesystem', sources: [{ level: 'filesystem' }] });
      expect(part.stderr).toContain('of / only a part is shown');
      expect(
        whole.record?.sources.find(({ at }) => at === '/'),
        whole.stderr,
      ).toMatchObject({ level: 'application' });
    });

    test('a thin pool that is nearly full is told of before anything is held', async () => {
      const fill = 'dd if=/dev/urandom of=/dev/vg0/fill bs=1M count=37 conv=fsync 2>/dev/null';
      await shared().exec(`lvcreate -q -An -V 40M -T vg0/pool -n fill >/dev/null 2>&1; ${fill}`);
      const { exitCode, stderr } = await execOver(shared(), [], ['/srv/t'], 'true');
      await shared().exec('lvremove -q -y vg0/fill');
      expect(exitCode).toBe(125);
      expect(stderr).toMatch(/thin pool vg0\/pool: expected at most 90 % of its data in use, found 9/);
    });

    rarely('an image in a file is shown as it is, told of, and refused where all must be cut', async () => {
      const make = 'truncate -s 4M /srv/a/image; mkfs.ext4 -q /srv/a/image; mkdir -p /srv/a/loop';
      await shared().exec(`${make}; mount -o loop /srv/a/image /srv/a/loop; echo inside >/srv/a/loop/file`);
      const shown = await execOver(shared(), [], ['/srv/a'], 'cat /srv/a/file /srv/a/loop/file');
      const refused = await execOver(shared(), ['--require-snapshot'], ['/srv/a'], 'true');
      await shared().exec('umount /srv/a/loop; rm /srv/a/image');
      expect(shown, shown.stderr).toMatchObject({
        exitCode: 0,
        stdout: 'before\ninside\n',
        record: { level: 'none', sources: [{ way: 'atomic' }, { way: 'atomic' }, { at: '/srv/a/loop', way: 'bind' }] },
      });
      expect(refused.exitCode).toBe(125);
      expect(refused.stderr).toContain('/srv/a/loop cannot be snapshot');
    });

    test('what keeps the device of a snapshot open is waited for', async () => {
      const open = 'nsenter -t 1 -m sh -c "exec sleep 5 </dev/mapper/vg1-fsb_*_c0" >/dev/null 2>&1 & exit 0';
      const { exitCode, stderr } = await execOver(shared(), ['--provider', 'lvm'], ['/srv/s'], open);
      expect({ exitCode, stderr }, stderr).toMatchObject({ exitCode: 0 });
      expect(stderr).not.toContain('gc removes it');
      expect(await leftovers(shared())).toBe('');
    });

    test.each([
      ['cut', 'exec --provider lvm /srv/t -- true'],
      ['held for a storage command', 'hold /srv/t -- touch /run/held'],
    ])('in another mount namespace nothing is %s that the agent does not hold', async (_, words) => {
      const line = `umount /srv/s; mount /dev/vg1/s /srv/t && exec fsfreeze-snapshot ${words}`;
      const { exitCode, stderr } = await shared().exec(['/usr/bin/unshare', '-m', '/bin/sh', '-c', line], {
        check: false,
      });
      expect(exitCode).toBe(125);
      expect(stderr).toContain('found another filesystem there: it is in another mount namespace');
      expect(await leftovers(shared())).toBe('');
      expect(await snapshot(shared(), 'list')).toMatchObject({ stdout: 'no snapshots are held\n' });
      await shared().exec('! [ -e /run/held ]; echo x >/srv/t/x');
    });
  });
