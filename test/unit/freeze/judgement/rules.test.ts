import { expect, test } from 'vitest';
import { mountpointGlob } from '../../../../src/freeze/judgement/rules.js';

test.each([
  ['/', '/', true],
  ['/', '/a', false],
  ['/srv', '/srv', true],
  ['/srv', '/srv/x', false],
  ['/srv/*', '/srv/x', true],
  ['/srv/*', '/srv/x/y', false],
  ['/srv/*', '/srv', false],
  ['/srv/**', '/srv/x/y', true],
  ['/**', '/', true],
  ['/**/cache', '/a/b/cache', true],
  ['/disk?', '/disk1', true],
  ['/disk?', '/disk', false],
  ['/disk?', '/disk/', false],
  ['/a.b', '/aXb', false],
  ['/a+(b)$^|', '/a+(b)$^|', true],
  ['/a b', '/a b', true],
  ['/*', '/a\nb', true],
])('%s on %j: %s', (glob, path, matches) => {
  expect(mountpointGlob(glob)?.test(path)).toBe(matches);
});

test.each(['', 'srv', '/srv/', '//srv', '/a//b', '/a/../b', '/./a', '/[ab]', '/{a,b}'])('%j is none', (glob) => {
  expect(mountpointGlob(glob)).toBeUndefined();
});
