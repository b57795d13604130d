// The policy on the command line and in the configuration file. Other settings: options.test.ts.
import { describe, expect, test } from 'vitest';
import { readInvocation } from '../../../../src/cli/agent/options.js';

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
