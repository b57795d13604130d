import { beforeEach, expect, test } from 'vitest';
import { statisticsHandlers } from '../../../../src/agent/handlers/statistics.js';
import { context, madeUpGuest, type MadeUpGuest } from '../../../support/guest-sources.js';

let guest: MadeUpGuest;
let handlers: ReturnType<typeof statisticsHandlers>;
beforeEach(() => {
  guest = madeUpGuest();
  handlers = statisticsHandlers(guest.sources);
});

test('reads the counters of disks, of every kernel', async () => {
  guest.write(
    'proc/diskstats',
    ' 254       0 vda 1 2 18446744073709551615 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n' +
      '   8       0 sda 1 2 3 4 5 6 7 8 9 10 11\n' +
      '   8       1 sda1 1 2 3 4\n' +
      '   8       2 sda2\n',
  );
  const [vda, sda, sda1, ...more] = await handlers['guest-get-diskstats']({}, context);
  expect(more).toEqual([]);
  expect(vda).toEqual({
    name: 'vda',
    major: 254,
    minor: 0,
    stats: {
      'read-ios': 1n,
      'read-merges': 2n,
      'read-sectors': 18446744073709551615n,
      'read-ticks': 4n,
      'write-ios': 5n,
      'write-merges': 6n,
      'write-sectors': 7n,
      'write-ticks': 8n,
      'ios-pgr': 9n,
      'total-ticks': 10n,
      'weight-ticks': 11n,
      'discard-ios': 12n,
      'discard-merges': 13n,
      'discard-sectors': 14n,
      'discard-ticks': 15n,
      'flush-ios': 16n,
      'flush-ticks': 17n,
    },
  });
  expect(Object.keys(sda?.stats ?? {})).toHaveLength(11);
  expect(sda1?.stats).toEqual({ 'read-ios': 1n, 'read-sectors': 2n, 'write-ios': 3n, 'write-sectors': 4n });
});

test('gives the time of processors in milliseconds, without their sum', async () => {
  guest.write('proc/stat', 'cpu  9 9 9 9\ncpu0 1 2 3 4 5 6 7 8 9 10\ncpu11 1 2 3 4\nintr 1 2\nctxt 3\n');
  expect(await handlers['guest-get-cpustats']({}, context)).toEqual([
    {
      type: 'linux',
      cpu: 0,
      user: 10n,
      nice: 20n,
      system: 30n,
      idle: 40n,
      iowait: 50n,
      irq: 60n,
      softirq: 70n,
      steal: 80n,
      guest: 90n,
      guestnice: 100n,
    },
    expect.objectContaining({ cpu: 11, idle: 40n, iowait: undefined, guestnice: undefined }) as object,
  ]);
});

test('gives the load', async () => {
  guest.write('proc/loadavg', '0.05 1.00 12.50 2/345 6789\n');
  expect(await handlers['guest-get-load']({}, context)).toEqual({ load1m: 0.05, load5m: 1, load15m: 12.5 });
});

test('says what cannot be opened', () => {
  expect(() => handlers['guest-get-cpustats']({}, context)).toThrow(`open("${guest.root}/proc/stat"): No such file`);
});
