// The policy in configuration file and on the command line, and that the example file tells the truth.
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parseConfiguration } from '../../../src/agent/configuration.js';
import { readInvocation } from '../../../src/cli/agent/options.js';

const bridge = (lines: string) => parseConfiguration(`[bridge]\n${lines}\n`, 'file').bridge;

describe('[bridge] policy', () => {
  test('is as said', () => {
    expect(bridge('').policy).toBeUndefined();
    expect(bridge('policy = full').policy).toBe('full');
    expect(() => bridge('policy=none')).toThrow(
      'file: [bridge] policy: expected one of freeze-only, default, full, found "none"',
    );
  });

  test('also-allow names commands there are', () => {
    expect(bridge('also-allow=guest-exec, guest-exec-status')['also-allow']).toEqual([
      'guest-exec',
      'guest-exec-status',
    ]);
    expect(() => bridge('also-allow=guest-exec,guest-exce')).toThrow('expected names of commands, separated by commas');
  });

  test('is in the example file with its default', () => {
    const example = readFileSync(new URL('../../../qga/conf/qemu-ga.conf', import.meta.url), 'utf8');
    expect(example).toContain('\n#policy=default\n');
    expect(parseConfiguration(example.replaceAll(/^#(?=[a-z-]+=)/gm, ''), 'example').bridge).toMatchObject({
      policy: 'default',
      'also-allow': ['guest-exec', 'guest-exec-status'],
    });
  });
});

describe('--policy', () => {
  const environment = {
    program: 'fsfreeze-agent',
    variables: {},
    readFile: () => '[bridge]\npolicy=full\n',
    activated: () => undefined,
    exists: () => false,
    hookAt: () => 'none' as const,
  };
  const settings = (...words: string[]) => {
    const invocation = readInvocation(words, environment);
    if (invocation.kind !== 'serve') throw new Error('expected settings');
    return invocation.settings.policy;
  };

  test('is default, unless said; on a vsock, which any user can connect to, freeze-only', () => {
    const of = (method: 'unix-listen' | 'vsock-listen', file: string, ...words: string[]) => {
      const activated = () => ({ method, fd: 3, path: 'descriptor 3' });
      const invocation = readInvocation(words, { ...environment, readFile: () => file, activated });
      return invocation.kind === 'serve' ? invocation.settings.policy : undefined;
    };
    expect(of('unix-listen', '')).toBe('default');
    expect(of('vsock-listen', '')).toBe('freeze-only');
    expect(of('vsock-listen', '[bridge]\npolicy=default\n')).toBe('default');
    expect(of('vsock-listen', '', '--policy=full')).toBe('full');
  });

  test('wins over the file', () => {
    expect(settings()).toBe('full');
    expect(settings('--policy=freeze-only')).toBe('freeze-only');
    expect(settings('--policy', 'default')).toBe('default');
    expect(() => settings('--policy=all')).toThrow(`--policy: expected one of freeze-only, default, full, found 'all'`);
  });
});
