// Each reason for which a freeze would not run a hook, told before it is installed; and what is legal and unwise.
import { chmodSync, chownSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { GuestSettings } from '../../../../src/cli/snapshot/guest-settings.js';
import { describeLint, lintWriter } from '../../../../src/cli/snapshot/lint.js';
import { requires } from '../../../support/requires.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

const good = `#!/bin/sh
# fsfreeze-writer: phases=prepare freeze verify thaw
# fsfreeze-writer: guarantee=held
case $1 in prepare | freeze | verify | thaw) exit 0 ;; esac
`;

let folder: Scratch;
beforeEach(() => {
  folder = scratch();
  for (const name of ['draft', 'own', 'shipped']) mkdirSync(folder.path(name), { mode: 0o755 });
});
afterEach(() => {
  folder[Symbol.dispose]();
});

function settings(hookFailure: GuestSettings['hookFailure'] = 'refuse'): GuestSettings {
  const writerFolders = [
    { path: folder.path('own'), style: 'bridge' },
    { path: folder.path('shipped'), style: 'bridge', shipped: true },
  ] as const;
  return {
    freeze: { writerFolders, writerOwner: 0 },
    host: { method: 'none', path: undefined },
    localSocket: undefined,
    agentSocket: undefined,
    runtimeDir: '/none',
    hookFailure,
  };
}

function draft(text: string, name = 'draft/app', mode = 0o755): string {
  const path = folder.path(name);
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}

const lint = (file: string, as?: string, hookFailure?: GuestSettings['hookFailure']) =>
  lintWriter(settings(hookFailure), file, as === undefined ? undefined : folder.path(as));
const why = (file: string, as?: string): string =>
  lint(file, as)
    .problems.map((problem) => problem.why)
    .join('; ');

requires('root')('a hook', () => {
  test('that is well made would be run, and is told as it would be taken', () => {
    const file = draft(good);
    expect(lint(file, 'own')).toEqual({
      path: join(folder.path('own'), 'app'),
      writer: {
        name: 'app',
        path: join(folder.path('own'), 'app'),
        kind: 'described',
        required: true,
        rank: 50,
        phases: ['prepare', 'freeze', 'verify', 'thaw'],
        guarantee: 'held',
      },
      problems: [],
      warnings: [],
    });
    expect(describeLint(lint(file, 'own')).at(-1)).toBe('  it would be run');
  });

  test('that only accompanies is told as one that does, and ends no freeze if it cannot be started', () => {
    const text = good.replace('=held', '=none').replace('/bin/sh', '/opt/none/perl');
    const told = lint(draft(text), 'own');
    expect(describeLint(told)[1]).toBe('  described, optional, rank 50, accompanies: prepare freeze verify thaw');
    expect(told.problems).toEqual([{ why: expect.stringContaining('/opt/none/perl') as string, refuses: false }]);
    const optional = good.replace('=held', '=held\n# fsfreeze-writer: required=false').replace('/bin/sh', '/opt/perl');
    expect(lint(draft(optional), 'own').problems).toMatchObject([{ refuses: false }]);
    expect(lint(draft(good.replace('/bin/sh', '/opt/perl')), 'own').problems).toMatchObject([{ refuses: true }]);
  });

  test("that is the agent's -F refuses a freeze when it is not executable", () => {
    const hook = draft(good, 'own/hook', 0o644);
    const { freeze, ...rest } = settings();
    const writerFolders = [{ path: folder.path('own'), only: 'hook', style: 'qemu' }, ...freeze.writerFolders] as const;
    expect(lintWriter({ ...rest, freeze: { ...freeze, writerFolders } }, hook, undefined).problems).toEqual([
      { why: expect.stringContaining('not executable: chmod +x') as string, refuses: true },
    ]);
  });

  test('that an earlier folder switches off by a link to /dev/null would not be run', () => {
    symlinkSync('/dev/null', folder.path('own/app'));
    expect(why(draft(good), 'shipped')).toBe(`hidden by ${folder.path('own')}/app`);
  });

  test('is no writer where it lies, but where it will', () => {
    const file = draft(good);
    expect(why(file)).toContain('draft is no folder of writers (give --as one of');
    expect(why(file, 'own')).toBe('');
  });

  test('of another user, or writable by others, would refuse a freeze where it lies, and is installed as root', () => {
    const file = draft(good, 'own/app', 0o775);
    expect(lint(file).problems).toEqual([{ why: expect.stringContaining('chmod go-w') as string, refuses: true }]);
    chmodSync(file, 0o755);
    chownSync(file, 1000, 0);
    expect(why(file)).toContain('belongs to user 1000');
    const mine = draft(good);
    chownSync(mine, 1000, 1000);
    expect(why(mine, 'own')).toBe('');
  });

  test('would not be run in a folder that others can write to', () => {
    chmodSync(folder.path('own'), 0o777);
    expect(lint(draft(good), 'own').problems).toEqual([
      { why: expect.stringContaining('own is writable by others') as string, refuses: true },
    ]);
  });

  test('with a mistake in its description would refuse a freeze, unless told otherwise or shipped', () => {
    const file = draft(good.replace('guarantee=held', 'guarantee=holds'));
    const [problem] = lint(file, 'own').problems;
    expect(problem).toMatchObject({
      why: expect.stringMatching(/^bad description: guarantee:/) as string,
      refuses: true,
    });
    expect(describeLint(lint(file, 'own')).join('\n')).toContain('guest-fsfreeze-freeze would be refused');
    expect(lint(file, 'own', 'lower').problems).toMatchObject([{ refuses: false }]);
    expect(lint(file, 'shipped').problems).toMatchObject([{ refuses: false }]);
    expect(lint(file, 'own').warnings).toEqual([]);
  });

  test.each([
    ['app.bak', 'files of such a name are passed over'],
    ['.app', 'files of such a name are passed over'],
    ['app.json', 'describes the writer NAME, and is none'],
  ])('of the name %s is passed over', (name, reason) => {
    const file = draft(good, `draft/${name}`);
    expect(lint(file, 'own').problems).toEqual([{ why: expect.stringContaining(reason) as string, refuses: false }]);
  });

  test('of a name that an earlier folder has is hidden', () => {
    draft(good, 'own/app');
    expect(why(draft(good), 'shipped')).toBe(`hidden by ${folder.path('own')}/app`);
    expect(why(draft(good), 'own')).toBe('');
  });

  test('that is switched off refuses nothing', () => {
    expect(lint(draft(good, 'own/app', 0o644)).problems).toEqual([{ why: 'not executable', refuses: false }]);
  });

  test('whose interpreter is not there cannot be started', () => {
    expect(why(draft(good.replace('/bin/sh', '/opt/none/perl')), 'own')).toContain('names /opt/none/perl');
    expect(why(draft(good.replace('/bin/sh', '/usr/bin/env no-such-program')), 'own')).toContain(
      'names no-such-program',
    );
    expect(why(draft(good.replaceAll('\n', '\r\n')), 'own')).toContain('its lines end as those of DOS');
    expect(why(draft(good.replace('/bin/sh', '/usr/bin/env sh')), 'own')).toBe('');
  });

  test('that is no file cannot be judged', () => {
    symlinkSync('/dev/null', folder.path('draft/off'));
    expect(() => lint(folder.path('draft/off'))).toThrow('is not a regular file');
  });
});

requires('root')('a warning tells', () => {
  const warnings = (text: string): string => lint(draft(text), 'own').warnings.join('; ');

  test("that a plain hook only claims, and that its last command's code is its own", () => {
    const plain = '#!/bin/sh\ncase $1 in freeze | thaw) sync ;; esac\n';
    expect(warnings(plain)).toMatch(/exit 0 is a claim.*; it does not end with 'exit 0'/);
    expect(warnings(`${plain}exit 0\n# the end\n`)).toMatch(/^a plain hook's exit 0 is a claim[^;]*$/);
  });

  test('that nothing is proved without verify', () => {
    const bare = good.replace(' verify thaw', ' thaw').replace(/.*guarantee.*\n/, '');
    expect(warnings(bare)).toContain('no verify and no guarantee');
  });

  test('of a limit that no session has, and of data that is not there', () => {
    const more = '# fsfreeze-writer: timeout.freeze=30\n# fsfreeze-writer: covers=/nowhere/data\ncase';
    expect(warnings(good.replace('case', more))).toBe(
      'timeout.freeze: all writers have 15 s together, so it never has 30 s; it covers /nowhere/data, which is not there',
    );
  });

  test('of a phase that the code never names, and of a hold that holds nothing', () => {
    expect(warnings(good.replace('| verify |', '|'))).toBe(
      'its code never names the phase verify, which it is called with',
    );
    expect(warnings(good.replace('=held', '=recoverable'))).toContain('guarantee=recoverable holds nothing');
  });

  test('that the kernel is not told what runs it', () => {
    expect(warnings('echo hello\n')).toContain("it has no '#!' line");
  });
});
