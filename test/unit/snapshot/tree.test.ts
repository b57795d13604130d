import { describe, expect, test } from 'vitest';
import { scriptOf } from '../../../src/snapshot/private-tree.js';
import { privateTree, shownTree, type TreeParts } from '../../../src/snapshot/tree.js';
import type { PlannedSource } from '../../../src/snapshot/planner.js';
import type { Mountable } from '../../../src/snapshot/snapshot-set.js';
import { mountsOf } from '../../support/mount-table.js';

const mounts = mountsOf(`1 1 254:0 / / rw - ext4 /dev/mapper/vg-root rw
2 1 0:20 / /proc rw - proc proc rw
3 1 254:1 / /srv rw - xfs /dev/mapper/vg-srv rw
4 3 8:1 / /srv/boot rw - ext4 /dev/sda1 rw
5 2 0:21 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw
`);

/** Sources at these places, each with the snapshot of this number, or with none. */
function parts(places: readonly (readonly [at: string, inside: string, snapshot?: number])[]): TreeParts {
  const numbers = [...new Set(places.flatMap(([, , snapshot]) => snapshot ?? []))];
  const mountable = numbers.map((number): Mountable => {
    const spec = { device: `/dev/dm-${number}`, type: 'xfs', options: ['ro', 'norecovery'], otherwise: ['ro'] };
    return { snapshot: { number } as unknown as Mountable['snapshot'], spec };
  });
  const sources = places.map(([at, inside, number]) => {
    const mount = mounts.find(({ mountpoint }) => mountpoint === at) ?? mounts[0];
    const snapshot = number === undefined ? undefined : mountable[numbers.indexOf(number)]?.snapshot;
    return { source: { at, inside, mount }, way: 'atomic', snapshot } as unknown as PlannedSource;
  });
  return { sources, mountable, stage: (place) => `/run/x/${place}` };
}

const script = (given: TreeParts) => scriptOf(privateTree(given, mounts), '/bin').split('\n');

describe('over the original paths', () => {
  test('each snapshot is mounted aside, bound where it belongs, and not left aside', () => {
    expect(script(parts([['/srv', '/', 7]]))).toEqual([
      'set -e',
      'mount -t xfs -o ro,norecovery,nosuid /dev/dm-7 /run/x/0 2>/dev/null || mount -t xfs -o ro,nosuid /dev/dm-7 /run/x/0',
      'mount --bind /run/x/0 /srv',
      'umount /run/x/0',
      'cd "$PWD" 2>/dev/null || cd /',
      'printf ready >&3',
      'exec 3>&-',
      'set +e',
      'PATH=/bin',
      'exec "$@"',
    ]);
  });

  test('a part of the root filesystem is bound alone; what is not cut stays as it is; names are quoted', () => {
    const lines = script(
      parts([
        ['/home/my files', '/home/my files', 7],
        ['/srv/boot', '/'],
      ]),
    );
    expect(lines).toContain("mount --bind '/run/x/0/home/my files' '/home/my files'");
    expect(lines.join('\n')).not.toContain('/srv/boot');
  });

  test('what is not cut and lies in what is cut is kept aside until that is shown, and shown in it', () => {
    const lines = script(
      parts([
        ['/srv', '/', 7],
        ['/srv/boot', '/'],
      ]),
    );
    expect(lines.slice(2, 8)).toEqual([
      'if [ -d /srv/boot ]; then mkdir /run/x/1; else : >/run/x/1; fi; mount --bind /srv/boot /run/x/1',
      'mount --bind /run/x/0 /srv',
      'mount --bind /run/x/1 /srv/boot',
      'mount -o remount,bind,ro /srv/boot',
      'umount /run/x/1',
      'umount /run/x/0',
    ]);
  });

  test('the whole root is a new root, with what is mounted on it: /proc as it is, snapshots in their places', () => {
    const lines = script(
      parts([
        ['/', '/', 1],
        ['/srv', '/', 7],
        ['/srv/boot', '/'],
      ]),
    );
    expect(lines.slice(3, 9)).toEqual([
      '[ ! -e /run/x/0/proc ] || mount --rbind /proc /run/x/0/proc',
      'mount --bind /run/x/1 /run/x/0/srv',
      'mount --bind /srv/boot /run/x/0/srv/boot',
      'mount -o remount,bind,ro /run/x/0/srv/boot',
      'umount /run/x/1',
      'wd=$PWD; cd /',
    ]);
    expect(lines.at(-1)).toMatch(/^exec chroot \/run\/x\/0 \/bin\/sh -c /);
  });
});

describe('below a folder', () => {
  test('folders that are not there hang in memory', () => {
    expect(
      shownTree(
        parts([
          ['/srv', '/', 7],
          ['/srv/boot', '/'],
        ]),
        '/mnt',
      ).slice(1),
    ).toEqual([
      { kind: 'folder', at: '/mnt' },
      { kind: 'make', at: '/mnt/srv' },
      { kind: 'bind', from: '/run/x/0', at: '/mnt/srv' },
      { kind: 'make', at: '/mnt/srv/boot' },
      { kind: 'bind', from: '/srv/boot', at: '/mnt/srv/boot' },
      { kind: 'read-only', at: '/mnt/srv/boot' },
      { kind: 'unmount', at: '/run/x/0' },
    ]);
  });

  test('a snapshot of the root filesystem is the root of the tree', () => {
    const steps = shownTree(
      parts([
        ['/', '/', 1],
        ['/srv', '/', 7],
      ]),
      '/mnt',
    );
    expect(steps.filter(({ kind }) => kind === 'bind')).toEqual([
      { kind: 'bind', from: '/run/x/0', at: '/mnt' },
      { kind: 'bind', from: '/run/x/1', at: '/mnt/srv' },
    ]);
    expect(steps.map(({ kind }) => kind)).not.toContain('make');
  });
});
