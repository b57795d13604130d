import { expect, test } from 'vitest';
import { cutsUnderFreeze } from '../../../src/snapshot/kernels.js';

test.each([
  ['6.1.0-56-cloud-amd64', false],
  ['5.14.0-611.el9.x86_64', false],
  ['6.7.12', false],
  ['6.8.0-31-generic', true],
  ['6.12.107', true],
  ['6.18.0-rc1', true],
  ['7.2.7', true],
  ['what is this', false],
])('a frozen volume can be cut on %s: %s', (release, can) => {
  expect(cutsUnderFreeze(release)).toBe(can);
});
