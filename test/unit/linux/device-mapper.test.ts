import { mkdirSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { anySuspended, isLogicalVolume, mapperName } from '../../../src/linux/device-mapper.js';
import { scratch, type Scratch } from '../../support/scratch.js';

let sys: Scratch;
beforeEach(() => {
  sys = scratch();
});
afterEach(() => {
  sys[Symbol.dispose]();
});

const device = (name: string, suspended?: '0' | '1'): void => {
  mkdirSync(sys.path(`block/${name}/dm`), { recursive: true });
  if (suspended !== undefined) writeFileSync(sys.path(`block/${name}/dm/suspended`), `${suspended}\n`);
};

test('a machine has a suspended device if any of its devices says so, and a disk says nothing', () => {
  expect(anySuspended(sys.path('none'))).toBe(false);
  device('vda');
  device('dm-0', '0');
  expect(anySuspended(sys.path('.'))).toBe(false);
  device('dm-1', '1');
  expect(anySuspended(sys.path('.'))).toBe(true);
});

test('inner devices of LVM are no volumes, and a hyphen in a name is written twice', () => {
  const uuid = `LVM-${'a'.repeat(64)}`;
  expect(isLogicalVolume({ name: 'vg-lv', uuid })).toBe(true);
  expect(isLogicalVolume({ name: 'vg-lv-real', uuid: `${uuid}-real` })).toBe(false);
  expect(isLogicalVolume({ name: 'crypt', uuid: 'CRYPT-LUKS2-1' })).toBe(false);
  expect(mapperName('my-vg', 'lv')).toBe('my--vg-lv');
});
