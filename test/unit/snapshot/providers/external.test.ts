import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { findPrograms } from '../../../../src/snapshot/providers/folders.js';
import type { Volume } from '../../../../src/snapshot/volume.js';
import { requires } from '../../../support/requires.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

/** Takes what is mounted at /srv, and notes what it is asked. */
const PROGRAM = `#!/bin/sh
read -r facts
echo "$1 $facts" >>"$(dirname "$0")/../asked"
case $1 in
probe) case $facts in *'"mountpoint":"/srv"'*) echo '{"underFreeze": false}' ;; *) echo 'not /srv' >&2; exit 3 ;; esac ;;
plan) echo '{"name": "snap-1", "cowBytes": 4096}' ;;
take) echo ready; read -r word; echo "cut at $word" >>"$(dirname "$0")/../asked"; echo taken ;;
mount) echo '{"device": "/dev/x", "type": "xfs", "options": ["ro"]}' ;;
status) echo '{"state": "whole", "usedBytes": 1, "totalBytes": 2}' ;;
extend) echo '{"extended": false}' ;;
remove) echo '{}' ;;
esac
`;

const volume = (mountpoint: string): Volume =>
  ({ mountpoint, type: 'xfs', device: '8:1', source: '/dev/sda1', readOnly: false }) as Volume;

let folder: Scratch;
beforeEach(() => {
  folder = scratch();
  for (const name of ['directories.d', 'providers.d']) mkdirSync(folder.path(name), { mode: 0o755 });
});
afterEach(() => {
  folder[Symbol.dispose]();
});

function program(name: string, text: string, mode = 0o755): void {
  writeFileSync(folder.path(name), text);
  chmodSync(folder.path(name), mode);
}

const found = () => findPrograms(['directories.d', 'providers.d'].map((name) => folder.path(name)));
const asked = () => readFileSync(folder.path('asked'), 'utf8').trim().split('\n');

requires('root')('a provider that is a program', () => {
  test('is asked with one verb and one object at a time, and cuts at a word', async () => {
    program('providers.d/mine', PROGRAM);
    const [provider] = found();
    if (provider === undefined) throw new Error('it was not found');
    expect(await provider.probe(volume('/srv'))).toEqual({ fits: true, underFreeze: false });
    expect(await provider.probe(volume('/home'))).toEqual({ fits: false, reason: 'mine: not /srv' });
    const [snapshot] = await provider.plan('r1', [volume('/srv')], { size: { part: 0.5 } });
    expect(snapshot).toMatchObject({ name: 'snap-1', provider: 'mine', underFreeze: false, cowBytes: 4096 });
    await snapshot?.arm();
    expect(asked().at(-1)).toMatch(/^take \{"run":"r1",.*"part":0.5,"name":"snap-1"\}$/);
    await snapshot?.cut();
    expect(asked().at(-1)).toBe('cut at take');
    expect(await snapshot?.mount()).toEqual({ device: '/dev/x', type: 'xfs', options: ['ro'] });
    expect(await snapshot?.status()).toEqual({ state: 'whole', usedBytes: 1, totalBytes: 2 });
    expect(await snapshot?.extend()).toBe(false);
    await snapshot?.remove();
    await provider.removeLeft({ run: 'r2', name: 'snap-0' });
    expect(asked().at(-1)).toBe('remove {"run":"r2","name":"snap-0"}');
  });

  test('of an earlier folder hides one of the same name, and one that others can change is not run', async () => {
    program('directories.d/same', PROGRAM);
    program('providers.d/same', 'exit 1');
    program('providers.d/unsafe', PROGRAM, 0o777);
    const providers = found();
    expect(providers.map(({ name }) => name)).toEqual(['same', 'unsafe']);
    expect(await providers[0]?.probe(volume('/srv'))).toMatchObject({ fits: true });
    expect(await providers[1]?.probe(volume('/srv'))).toMatchObject({
      fits: false,
      reason: expect.stringContaining('unsafe: ') as string,
    });
    const removing = providers[1]?.removeLeft({ run: 'r1', name: 'snap-1' });
    await expect(removing).rejects.toThrow('unsafe is not run: ');
    expect(asked().join()).not.toContain('remove');
  });

  test.each([
    ['echo ready; exit 1', "expected 'taken', found its end"],
    ['echo ready; read -r word; echo oh', "expected 'taken', found 'oh'"],
  ])('that does not cut is told of: %s', async (take, message) => {
    program('providers.d/mine', PROGRAM.replace(/take\) .*/, `take) ${take} ;;`));
    const [snapshot] = (await found()[0]?.plan('r1', [volume('/srv')], {})) ?? [];
    await snapshot?.arm();
    await expect(snapshot?.cut()).rejects.toThrow(message);
  });

  test('that answers something else is told of', async () => {
    program('providers.d/mine', '#!/bin/sh\necho yes\n');
    expect(await found()[0]?.probe(volume('/srv'))).toMatchObject({ fits: false });
  });
});

describe('no folder', () => {
  test('is no provider', () => {
    expect(findPrograms([folder.path('none')])).toEqual([]);
  });
});
