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

/** Without the looks for links, which have a test of their own. */
const script = (given: TreeParts): string[] =>
  scriptOf(privateTree(given, mounts), '/bin')
    .replace(/^no_links\(\) \($.*?^\)\n/ms, '')
    .split('\n')
    .filter((line) => !line.startsWith('no_links '));

const mounted = (number: number, at: string): string => {
  const way = (options: string): string =>
    `mount --no-canonicalize -t xfs -o ${options},nosuid /dev/dm-${number} ${at}`;
  return `${way('ro,norecovery')} 2>/dev/null || ${way('ro')}`;
};

describe('over the original paths', () => {
  test('a snapshot is mounted aside, past the names that udev gives it, and moved where it belongs', () => {
    expect(script(parts([['/srv', '/', 7]]))).toEqual([
      'set -e',
      mounted(7, '/run/x/0'),
      'mount --move /run/x/0 /srv',
      'cd "$PWD" 2>/dev/null || cd /',
      'printf ready >&3',
      'IFS= read -r go <&3 || exit 125',
      'exec 3>&-',
      'set +e',
      'PATH=/bin',
      'exec "$@"',
    ]);
  });

  test('one of which several places are shown is mounted aside, bound to each, and not left aside', () => {
    const lines = script(
      parts([
        ['/home', '/home', 7],
        ['/srv', '/', 7],
      ]),
    );
    expect(lines.slice(1, 5)).toEqual([
      mounted(7, '/run/x/0'),
      'mount --bind /run/x/0/home /home',
      'mount --bind /run/x/0 /srv',
      'umount /run/x/0',
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
      'mkdir /run/x/1; mount --bind /srv/boot /run/x/1 2>/dev/null || { rmdir /run/x/1; : >/run/x/1; mount --bind /srv/boot /run/x/1; }',
      'mount --move /run/x/0 /srv',
      'mount --bind /run/x/1 /srv/boot',
      'mount -o remount,bind,ro /srv/boot',
      'umount /run/x/1',
      'cd "$PWD" 2>/dev/null || cd /',
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
    expect(lines.slice(1, 9)).toEqual([
      mounted(1, '/run/x/0'),
      mounted(7, '/run/x/1'),
      '[ ! -e /run/x/0/proc ] || mount --rbind /proc /run/x/0/proc',
      'mount --move /run/x/1 /run/x/0/srv',
      'mount --bind /srv/boot /run/x/0/srv/boot',
      'mount -o remount,bind,ro /run/x/0/srv/boot',
      'chroot=$(command -v chroot)',
      'wd=$PWD; cd /',
    ]);
    expect(lines.at(-1)).toMatch(/^exec "\$chroot" \/run\/x\/0 \/bin\/sh -c /);
  });
});

test('no link may have come between a place and what it is below of, on either side of a bind', () => {
  const given = parts([
    ['/', '/', 1],
    ['/srv', '/in', 7],
  ]);
  const looks = [
    { kind: 'no-links', base: '/run/x/1', path: '/run/x/1/in' },
    { kind: 'no-links', base: '/run/x/0', path: '/run/x/0/srv' },
  ];
  expect(privateTree(given, mounts).steps.filter(({ kind }) => kind === 'no-links')).toEqual(looks);
  expect(shownTree(given, '/mnt').filter(({ kind }) => kind === 'no-links')).toEqual([
    looks[0],
    { kind: 'no-links', base: '/mnt', path: '/mnt/srv' },
  ]);
});

describe('below a folder', () => {
  const steps = (...given: Parameters<typeof shownTree>) =>
    shownTree(...given).filter(({ kind }) => kind !== 'no-links');

  test('folders that are not there hang in memory', () => {
    expect(
      steps(
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
