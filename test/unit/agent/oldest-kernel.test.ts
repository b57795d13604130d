import { expect, test } from 'vitest';
import { checkKernel } from '../../../src/agent/oldest-kernel.js';

test.each(['4.18.0-553.el8_10.x86_64', '4.19.0-27-amd64', '5.3.0', '6.1.0-44-amd64', '10.0', 'something'])(
  'takes %s',
  (release) => {
    checkKernel(release);
  },
);

test.each(['4.17.19', '4.9.0-19-amd64', '3.10.0-1160.el7.x86_64', '2.6.32'])('refuses %s, naming it', (release) => {
  expect(() => {
    checkKernel(release);
  }).toThrow(`kernel: expected Linux 4.18 or newer, found ${release}`);
});
