// --check-config: what it finds on a machine made of files, and what it makes of it.
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { checkConfiguration } from '../../../../src/cli/agent/check-config.js';
import { describeCheck } from '../../../../src/cli/agent/check-text.js';
import { readInvocation } from '../../../../src/cli/agent/options.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let folder: Scratch;
beforeEach(() => {
  folder = scratch();
  mkdirSync(folder.path('hooks'), { mode: 0o755 });
  writeFileSync(folder.path('freezer'), '', { mode: 0o755 });
});
afterEach(() => {
  folder[Symbol.dispose]();
});

const hook = (name: string, text: string, mode = 0o755): string => {
  const path = join(folder.path('hooks'), name);
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
};

function check(files: Readonly<Record<string, string>> = {}, general = '', bridge = '') {
  const own = `writer-folders=${folder.path('hooks')}\nfreezer=${folder.path('freezer')}\n`;
  const conf = `[general]\n${general}\n[bridge]\n${own}${bridge}\n`;
  const invocation = readInvocation(['--check-config', '--json'], {
    program: 'fsfreeze-agent',
    variables: {},
    readFile: (path) => ({ '/etc/qemu/qemu-ga.conf': conf, ...files })[path],
    activated: () => undefined,
    exists: () => false,
    hookAt: () => 'none',
  });
  if (invocation.kind !== 'check') throw new Error('expected a check');
  expect(invocation.json).toBe(true);
  return checkConfiguration(invocation.settings, invocation.configurationFile);
}

describe('hooks', () => {
  test('names the one that the group may write, the one with a typo, the one that is switched off and the one that runs', () => {
    const shared = hook('10-shared', '#!/bin/sh\n', 0o775);
    const typo = hook('20-typo', '#!/bin/sh\n# fsfreeze-writer: {"phases": ["freze"]}\n');
    const off = join(folder.path('hooks'), '30-off');
    symlinkSync('/dev/null', off);
    const good = hook('40-good', '#!/bin/sh\nexit 0\n');
    const found = check();
    expect(found.exitCode).toBe(1);
    expect(found.hooks).toMatchObject([
      { path: shared, verdict: 'refuses', why: `${shared} is writable by others (mode 775): chmod go-w ${shared}` },
      { path: typo, verdict: 'refuses', why: expect.stringContaining('bad description') as string },
      { path: off, verdict: 'switched-off' },
      { path: good, verdict: 'runs' },
    ]);
    const text = describeCheck(found);
    expect(text).toContain(
      `  ${shared}: REFUSES every freeze: ${shared} is writable by others (mode 775): chmod go-w ${shared}\n`,
    );
    expect(text).toContain(`  ${good}: runs\n`);
  });

  test('lower the level where the administrator said so, and do not refuse', () => {
    const shared = hook('10-shared', '#!/bin/sh\n', 0o775);
    const found = check({}, '', 'hook-failure=lower');
    expect(found.hooks).toMatchObject([{ path: shared, verdict: 'lowers' }]);
    expect(found.exitCode).toBe(1);
    expect(describeCheck(found)).toContain(`  ${shared}: not run, LOWERS every freeze: `);
  });

  test('doubts a published hook that ends with a test, and no other', () => {
    const last = hook(
      '10-test',
      '#!/bin/sh\n[ "$1" = freeze ] && sync\n[ -f /etc/app/debug ] && logger done\n\n# end\n',
    );
    hook('20-or', '#!/bin/sh\n[ -f /x ] && logger done || true\n');
    hook('30-case', '#!/bin/sh\ncase "$1" in\nfreeze) [ -f /x ] && sync ;;\nesac\n');
    const found = check();
    expect(found.hooks.filter(({ doubt }) => doubt !== undefined)).toEqual([
      { path: last, verdict: 'runs', doubt: expect.stringContaining('its last line is a test') as string },
    ]);
    expect(describeCheck(found)).toContain('HOOK freeze; echo $?; HOOK thaw');
  });

  test('says which are left to one that names their folder, and nobody else runs', () => {
    const beside = hook('10-app', '#!/bin/sh\n');
    const own = folder.path('hook.sh');
    writeFileSync(own, `#!/bin/sh\nrun-parts -a "$1" ${folder.path('hooks')}\n`, { mode: 0o755 });
    const found = check({}, `fsfreeze-hook=${own}`);
    expect(found.hooks).toEqual([
      { path: own, verdict: 'runs' },
      { path: beside, verdict: 'left-to-hook', why: `${own} names its folder` },
    ]);
    expect(describeCheck(found)).toContain(`  ${beside}: left to the hook: ${own} names its folder\n`);
    writeFileSync(own, `#!/bin/sh\n# beside ${folder.path('hooks')}\n`);
    expect(check({}, `fsfreeze-hook=${own}`).hooks).toEqual([
      { path: beside, verdict: 'runs' },
      { path: own, verdict: 'runs' },
    ]);
  });

  test('judges one that is given by its path', () => {
    const own = folder.path('hook.sh');
    writeFileSync(own, '#!/bin/sh\n', { mode: 0o755 });
    expect(check({}, `fsfreeze-hook=${own}`).hooks).toEqual([{ path: own, verdict: 'runs' }]);
    chmodSync(own, 0o644);
    expect(check({}, `fsfreeze-hook=${own}`).hooks).toEqual([
      { path: own, verdict: 'refuses', why: `not executable: chmod +x ${own}` },
    ]);
    const gone = folder.path('gone.sh');
    expect(check({}, `fsfreeze-hook=${gone}`).hooks).toEqual([
      { path: gone, verdict: 'refuses', why: 'it is not there' },
    ]);
  });
});

describe('the host', () => {
  const needed = ['guest-exec', 'guest-set-user-password', 'guest-ssh-add-authorized-keys'];
  test('is told what the policy refuses and qemu-ga does not', () => {
    expect(check().refusedByPolicy).toEqual(expect.arrayContaining(needed));
    expect(describeCheck(check())).toMatch(/refused to the host by policy=default.*qm guest exec.*\n.*guest-exec,/);
    expect(check({}, '', 'policy=full').refusedByPolicy).toEqual([]);
  });

  test('misses nothing that a list refuses in qemu-ga, too', () => {
    expect(check({}, 'block-rpcs=guest-exec').refusedByPolicy).not.toContain('guest-exec');
    expect(check({}, 'allow-rpcs=guest-ping').refusedByPolicy).toEqual([]);
  });
});

describe('what is used and what is not', () => {
  test('is told with its place', () => {
    const files = { '/etc/default/qemu-guest-agent': 'sleep 1\nDAEMON_ARGS="-b guest-exec,guest-exce"\n' };
    const found = check(files);
    const at = { file: '/etc/default/qemu-guest-agent' };
    expect(found.used).toMatchObject([{ ...at, line: 2, options: ['--block-rpcs=guest-exec,guest-exce'] }]);
    expect(found.ignored).toEqual([
      { ...at, line: 1, setting: 'sleep 1', why: 'a command: this file is read, and not run' },
      { file: 'block-rpcs', setting: 'guest-exce', why: 'no such command: the name has no effect' },
    ]);
    expect(found.exitCode).toBe(1);
    expect(describeCheck(found)).toContain('IGNORED:\n  /etc/default/qemu-guest-agent:1: sleep 1: a command');
  });

  test('is nothing to see to where all is used, and a freezer that is not there is', () => {
    // What this machine lacks of programs is its own affair.
    const { missingPrograms, ...rest } = check();
    expect(rest).toMatchObject({ ignored: [], hooks: [], freezer: { found: true } });
    expect(rest.exitCode).toBe(missingPrograms.length === 0 ? 0 : 1);
    chmodSync(folder.path('freezer'), 0o644);
    expect(check()).toMatchObject({ exitCode: 1, freezer: { found: false } });
  });
});
