// The text of mountinfo, line by line.
import { expect, test } from 'vitest';
import { mountsOf } from '../../support/mount-table.js';

test('a line with optional fields, escapes and bytes beyond ASCII', () => {
  const [mount] = mountsOf(
    '36 35 98:0 /sub\\040dir /mnt/a\\011b\\134c\\303\\251 rw,noatime shared:1 master:2 - ext3 /dev/ro\\040ot rw,errors=continue\n',
  );
  expect(mount).toEqual({
    id: 36,
    parentId: 35,
    device: '98:0',
    root: '/sub dir',
    mountpoint: '/mnt/a\tb\\cé',
    options: ['rw', 'noatime'],
    type: 'ext3',
    source: '/dev/ro ot',
    superOptions: ['rw', 'errors=continue'],
  });
});

test.each(['nonsense', '1 2 3', '1 2 8:1 / / rw shared:1 ext4 /dev/sda rw', '1 2 x / / rw - ext4 /dev/sda rw'])(
  'what is no mountinfo is named: %s',
  (line) => {
    expect(() => mountsOf(line)).toThrow(`not a line of mountinfo: ${JSON.stringify(line)}`);
  },
);
