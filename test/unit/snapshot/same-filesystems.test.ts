import { expect, test } from 'vitest';
import { refuseOthers } from '../../../src/snapshot/same-filesystems.js';
import { filesystemReport, freezeReport } from '../../support/freeze-reports.js';

const seen = { mountpoint: '/srv', source: '/dev/vg/srv', device: '254:3' };
const reported = (more: object) => freezeReport({ filesystems: [{ ...filesystemReport('/srv', 'a'), ...more }] });

test('the same device is what is meant, also where nothing had to be held', () => {
  expect(() => {
    refuseOthers(reported({ device: '254:3' }), [seen]);
  }).not.toThrow();
  expect(() => {
    refuseOthers(reported({ device: '254:3', concerned: false, held: 'read-only' }), [seen]);
  }).not.toThrow();
});

test('another one at that place is refused, and so is one that is no part of the cut', () => {
  const message = 'expected the agent to hold /dev/vg/srv (254:3) at /srv, found another filesystem there';
  for (const more of [{ device: '254:4' }, { device: '254:3', concerned: false, held: 'none' }])
    expect(() => {
      refuseOthers(reported(more), [seen]);
    }).toThrow(message);
});
