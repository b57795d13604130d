import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { lvmProviders } from '../../../../src/snapshot/lvm/provider.js';
import type { Provider } from '../../../../src/snapshot/providers/provider.js';
import type { Run } from '../../../../src/snapshot/program.js';
import type { Volume } from '../../../../src/snapshot/volume.js';
import { scratch } from '../../../support/scratch.js';
import { mkdirSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const MIB = 1024 * 1024;
const UUID = `LVM-${'a'.repeat(64)}`;
const shown = {
  vg_name: 'vg',
  lv_uuid: 'x',
  lv_size: String(1024 * MIB),
  lv_attr: '-wi-ao----',
  segtype: 'linear',
  origin: '',
  pool_lv: '',
  data_percent: '',
  metadata_percent: '',
  lv_tags: '',
  lv_time: '',
  vg_free: String(512 * MIB),
  vg_extent_size: String(4 * MIB),
  lv_kernel_major: '254',
};
const plain = { ...shown, lv_name: 'data', lv_kernel_minor: '1' };
const thin = { ...shown, lv_name: 'thin', lv_kernel_minor: '2', segtype: 'thin', pool_lv: 'pool' };
const pool = { ...shown, lv_name: 'pool', lv_kernel_minor: '3', segtype: 'thin-pool' };
const percents = (data: string, metadata: string) => ({ ...pool, data_percent: data, metadata_percent: metadata });

let reported: object[];
const lock = async (what: string) => {
  calls.push(`lock ${what}`);
  return await Promise.resolve(async () => {
    calls.push(`unlock ${what}`);
    await Promise.resolve();
  });
};
let calls: string[];
const run: Run = async (words) => {
  calls.push(words.filter((word) => !word.startsWith('backup/')).join(' '));
  const stdout = words[1] === 'lvs' ? JSON.stringify({ report: [{ lv: reported }] }) : '';
  return await Promise.resolve({ exitCode: 0, stdout, stderr: '' });
};

const folder = scratch();
afterAll(() => {
  folder[Symbol.dispose]();
});
for (const [device, uuid] of [
  ['254:1', UUID],
  ['254:2', UUID],
  ['254:9', `${UUID}-real`],
] as const) {
  mkdirSync(folder.path(`dev/block/${device}/dm`), { recursive: true });
  writeFileSync(folder.path(`dev/block/${device}/dm/name`), 'vg-x\n');
  writeFileSync(folder.path(`dev/block/${device}/dm/uuid`), `${uuid}\n`);
}

const volume = (device: string, over: Partial<Volume> = {}): Volume =>
  ({ mountpoint: '/srv', type: 'ext4', device, source: '/dev/mapper/vg-x', readOnly: false, ...over }) as Volume;

function provider(wanted: 'lvm' | 'lvm-thin', kernelRelease = '6.12.0'): Provider {
  const found = lvmProviders(run, lock, { sysRoot: folder.path('.'), kernelRelease }).find(
    ({ name }) => name === wanted,
  );
  if (found === undefined) throw new Error(`there is no provider ${wanted}`);
  return found;
}

beforeEach(() => {
  reported = [plain, thin, percents('10', '10')];
  calls = [];
});

describe('a volume', () => {
  test('is taken by the provider of its kind, frozen or not by what the kernel can', async () => {
    expect(await provider('lvm').probe(volume('254:1'))).toEqual({ fits: true, underFreeze: true });
    expect(await provider('lvm-thin').probe(volume('254:2'))).toEqual({ fits: true, underFreeze: true });
    expect(await provider('lvm', '6.1.0').probe(volume('254:1'))).toEqual({ fits: true, underFreeze: false });
    expect(await provider('lvm').probe(volume('254:2'))).toMatchObject({ fits: false });
  });

  test.each([
    [volume('8:1'), '/dev/mapper/vg-x is no logical volume'],
    [volume('254:9'), '/dev/mapper/vg-x is no logical volume'],
    [volume('254:1', { split: 'it lies on dm-1 and sdb' }), 'it lies on dm-1 and sdb'],
    [volume('254:1', { type: 'btrfs' }), 'a copy of a btrfs must not be mounted beside it'],
  ])('is refused, with the reason', async (refused, reason) => {
    expect(await provider('lvm').probe(refused)).toEqual({ fits: false, reason });
  });

  test('is not passed over when LVM fails', async () => {
    const failing: Run = async () => await Promise.resolve({ exitCode: 5, stdout: '', stderr: 'a group is locked' });
    const [, classic] = lvmProviders(failing, lock, { sysRoot: folder.path('.') });
    await expect(classic?.probe(volume('254:1'))).rejects.toThrow('exit code 5: a group is locked');
  });

  test('that is itself a classic snapshot is refused', async () => {
    reported = [{ ...plain, origin: 'other' }];
    expect(await provider('lvm').probe(volume('254:1'))).toEqual({
      fits: false,
      reason: 'it is itself a snapshot of vg/other',
    });
  });
});

test('a plan says how much room there will be, and changes nothing', async () => {
  const [snapshot] = await provider('lvm').plan('r1', [volume('254:1')], {});
  expect(snapshot).toMatchObject({ name: 'vg/fsb_r1_c0', provider: 'lvm', underFreeze: true, cowBytes: 104 * MIB });
  expect(calls.every((call) => call.startsWith('lvm lvs'))).toBe(true);
});

test.each([
  ['91', '10', 'thin pool vg/pool: expected at most 90 % of its data in use, found 91 %'],
  ['10', '96', 'thin pool vg/pool: expected at most 95 % of its metadata in use, found 96 %'],
])('a thin pool with %s %% of data and %s %% of metadata in use is refused', async (data, metadata, message) => {
  reported = [thin, percents(data, metadata)];
  await expect(provider('lvm-thin').plan('r1', [volume('254:2')], {})).rejects.toThrow(message);
});

describe('what is removed', () => {
  const ours = { ...plain, lv_name: 'fsb_r1_c0', lv_tags: 'fsfreeze-bridge,fsb.run.r1' };

  test('carries our tag and that of the run', async () => {
    reported = [ours];
    const removing = provider('lvm').removeLeft({ run: 'r1', name: 'vg/fsb_r1_c0' });
    setTimeout(() => (reported = []), 50);
    await removing;
    expect(calls).toContain('lvm lvremove --config -y -f vg/fsb_r1_c0');
    expect(calls.some((call) => call.startsWith('lock'))).toBe(false);
  });

  test('and was cut goes while nobody holds the guest', async () => {
    reported = [{ ...ours, origin: 'data' }];
    const removing = provider('lvm').removeLeft({ run: 'r1', name: 'vg/fsb_r1_c0' });
    setTimeout(() => (reported = []), 50);
    await removing;
    const from = calls.indexOf('lock vg/fsb_r1_c0');
    expect(calls.slice(from, from + 3)).toEqual([
      'lock vg/fsb_r1_c0',
      'lvm lvremove --config -y -f vg/fsb_r1_c0',
      'unlock vg/fsb_r1_c0',
    ]);
  });

  test.each([['fsfreeze-bridge,fsb.run.other'], ['']])('is nothing with the tags "%s"', async (lv_tags) => {
    reported = [{ ...ours, lv_tags }];
    await expect(provider('lvm').removeLeft({ run: 'r1', name: 'vg/fsb_r1_c0' })).rejects.toThrow(
      'vg/fsb_r1_c0 does not carry the tags of run r1',
    );
    expect(calls.every((call) => call.startsWith('lvm lvs'))).toBe(true);
  });
});

test('a snapshot that did not come to be is told of with what LVM said', async () => {
  const [snapshot] = await provider('lvm').plan('r1', [volume('254:1')], {});
  reported = [{ ...plain, lv_name: 'fsb_r1_c0' }];
  await expect(snapshot?.mount()).rejects.toThrow('no snapshot of vg/data was made: LVM said nothing');
});

test('thin snapshots that are activated side by side are looked up after their own activation', async () => {
  const origins = [thin, { ...thin, lv_name: 'other', lv_kernel_minor: '5' }];
  reported = [...origins, percents('10', '10')];
  const active = new Set<string>();
  const slow: Run = async (words) => {
    if (words[1] === 'lvchange') {
      const name = words.at(-1)?.split('/')[1] ?? '';
      await sleep(name.endsWith('t0') ? 10 : 40);
      active.add(name);
    }
    const cuts = origins.map(({ lv_name: origin }, place) => {
      const lv_name = `fsb_r1_t${place}`;
      return { ...thin, lv_name, origin, lv_kernel_minor: active.has(lv_name) ? String(7 + place) : '-1' };
    });
    const report = JSON.stringify({ report: [{ lv: [...reported, ...cuts] }] });
    // A list that takes longer than the other's activation.
    if (words[1] === 'lvs') await sleep(60);
    return { exitCode: 0, stdout: report, stderr: '' };
  };
  const [lvmThin] = lvmProviders(slow, lock, { sysRoot: folder.path('.'), kernelRelease: '6.12.0' });
  const snapshots = (await lvmThin?.plan('r1', [volume('254:2'), volume('254:5')], {})) ?? [];
  const specs = await Promise.all(snapshots.map(async (one) => await one.mount()));
  expect(specs.map(({ device }) => device)).toEqual(['/dev/dm-7', '/dev/dm-8']);
});

describe('a revert', () => {
  const ours = { ...plain, lv_name: 'fsb_r1_c0', origin: 'data', lv_tags: 'theirs,fsfreeze-bridge,fsb.run.r1' };
  const made = { run: 'r1', name: 'vg/fsb_r1_c0' };

  test('merges, and then takes off our own tags', async () => {
    reported = [ours];
    const revert = await provider('lvm').planRevert?.(made);
    expect(calls.every((call) => call.startsWith('lvm lvs'))).toBe(true);
    await revert?.();
    expect(calls.filter((call) => !call.startsWith('lvm lvs'))).toEqual([
      'lock vg/fsb_r1_c0',
      'lvm lvconvert --config -y --merge --background vg/fsb_r1_c0',
      'unlock vg/fsb_r1_c0',
      'lvm lvchange --config --deltag fsfreeze-bridge --deltag fsb.run.r1 vg/fsb_r1_c0',
    ]);
  });

  test.each([
    ['lost', { lv_attr: 'swi-Ios---' }, 'vg/fsb_r1_c0 is lost: its room was used up'],
    ['never cut', { origin: '' }, 'vg/fsb_r1_c0 was not cut from anything'],
  ])('to what was %s is refused, and changes nothing', async (_, over, message) => {
    reported = [{ ...ours, ...over }];
    await expect(provider('lvm').planRevert?.(made)).rejects.toThrow(message);
    expect(calls.every((call) => call.startsWith('lvm lvs'))).toBe(true);
  });
});
