// Which command which preset allows, the lists on top, and what each release lists.
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { commandNames } from '../../../src/qga/commands.js';
import { commandsOf, listsOf, type PolicySettings } from '../../../src/qga/policy.js';
import { guestAgent, whyDisabled, type Compat, type Handlers } from '../../../src/qga/server.js';

const only = (names: ReadonlySet<string>, others: ReadonlySet<string>): string[] =>
  [...names].filter((name) => !others.has(name)).sort();

test('the table has the commands of the real agent in its order, then ours', () => {
  const recorded = readFileSync(new URL('../../../qga/transcripts/10.0/command-line.txt', import.meta.url), 'utf8');
  const [, list = ''] = /^\$ agent -b help\n((?:\| .*\n)+)/m.exec(recorded) ?? [];
  const real = list.split('\n').flatMap((line) => (line === '' ? [] : [line.slice(2)]));
  expect(real.length).toBeGreaterThan(40);
  expect(commandNames.filter((name) => !name.startsWith('bridge-'))).toEqual(real);
  expect(commandNames.slice(real.length).every((name) => name.startsWith('bridge-'))).toBe(true);
});

test('presets: what a backup needs, all but what runs or changes things, everything', () => {
  const [narrow, usual, full] = [commandsOf('freeze-only'), commandsOf('default'), commandsOf('full')];
  expect(full.size).toBe(commandNames.length);
  expect(only(full, usual)).toEqual([
    'guest-exec',
    'guest-exec-status',
    'guest-file-write',
    'guest-set-user-password',
    'guest-ssh-add-authorized-keys',
    'guest-ssh-remove-authorized-keys',
  ]);
  expect(only(narrow, usual)).toEqual([]);
  expect([...narrow].filter((name) => !name.startsWith('bridge-')).sort()).toEqual([
    'guest-fsfreeze-freeze',
    'guest-fsfreeze-freeze-list',
    'guest-fsfreeze-status',
    'guest-fsfreeze-thaw',
    'guest-get-disks',
    'guest-get-fsinfo',
    'guest-get-host-name',
    'guest-get-osinfo',
    'guest-get-time',
    'guest-get-timezone',
    'guest-info',
    'guest-ping',
    'guest-sync',
    'guest-sync-delimited',
  ]);
});

describe('lists on top', () => {
  const allowed = (settings: PolicySettings): string[] =>
    commandNames.filter(
      (name) => whyDisabled({ compat: '10.2', ...listsOf(settings), isFrozen: () => false }, name) === undefined,
    );

  test('block takes away', () => {
    const all = allowed({ preset: 'full' });
    expect(allowed({ preset: 'full', blockRpcs: ['guest-exec', 'nonsense'] })).toEqual(
      all.filter((name) => name !== 'guest-exec'),
    );
  });

  test('allow leaves only what it names, whatever the preset', () => {
    const allowRpcs = ['guest-exec', 'guest-ping'];
    expect(allowed({ preset: 'freeze-only', allowRpcs })).toEqual(['guest-ping', 'guest-exec']);
    expect(allowed({ preset: 'full', allowRpcs, blockRpcs: ['guest-exec'] })).toEqual(['guest-ping']);
  });

  test('also-allow adds to the preset, and a block wins over it', () => {
    const usual = allowed({ preset: 'default' });
    const more = allowed({ preset: 'default', alsoAllow: ['guest-exec', 'guest-exec-status'] });
    expect(more.filter((name) => !usual.includes(name))).toEqual(['guest-exec-status', 'guest-exec']);
    expect(allowed({ preset: 'default', alsoAllow: ['guest-exec'], blockRpcs: ['guest-exec'] })).toEqual(usual);
  });
});

describe('guest-info', () => {
  const handlers = new Proxy({}, { get: () => () => ({}) }) as Handlers<undefined>;
  const listed = async (compat: Compat) => {
    const policy = { compat, ...listsOf({ preset: 'full', blockRpcs: ['guest-ping'] }), isFrozen: () => false };
    const { operations, refusal } = guestAgent(handlers, policy, 'x');
    const info = (await operations.get('guest-info')?.call({}, undefined)) as {
      supported_commands: { name: string; enabled: boolean; 'success-response': boolean }[];
    };
    return { all: info.supported_commands, operations, refusal };
  };

  test('lists from behind, ours last, and tells what is off and what stays silent', async () => {
    const { all } = await listed('10.2');
    const names = all.map(({ name }) => name);
    expect(names.slice(0, 3)).toEqual(['guest-network-get-route', 'guest-get-load', 'guest-get-cpustats']);
    const ours = commandNames.filter((name) => name.startsWith('bridge-'));
    expect(names.slice(-ours.length - 1)).toEqual(['guest-sync-delimited', ...ours]);
    expect(names).not.toContain('guest-get-devices');
    expect(all.filter(({ enabled }) => !enabled).map(({ name }) => name)).toEqual(['guest-ping']);
    expect(all.filter((one) => !one['success-response']).map(({ name }) => name)).toEqual([
      'guest-suspend-hybrid',
      'guest-suspend-ram',
      'guest-suspend-disk',
      'guest-shutdown',
    ]);
  });

  test('of 7.2 has what 7.2 had, and what it could not do as disabled', async () => {
    const { all, operations, refusal } = await listed('7.2');
    const names = all.map(({ name }) => name);
    expect(names[0]).toBe('guest-get-cpustats');
    expect(names.slice(4, 7)).toEqual(['guest-ssh-get-authorized-keys', 'guest-get-devices', 'guest-get-osinfo']);
    expect(all.filter(({ enabled }) => !enabled).map(({ name }) => name)).toEqual(['guest-get-devices', 'guest-ping']);
    expect(operations.has('guest-get-load')).toBe(false);
    expect(operations.has('guest-network-get-route')).toBe(false);
    expect(operations.has('guest-get-devices')).toBe(true);
    expect(refusal('guest-get-devices', undefined)).toBe('Command guest-get-devices has been disabled');
  });
});
