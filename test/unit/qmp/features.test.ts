// What a QEMU knows, by its schema.
import { expect, test } from 'vitest';
import { QmpClient } from '../../../src/qmp/client.js';
import { hasArgument, hasCommand } from '../../../src/qmp/features.js';
import { FakeMonitor } from '../../support/fake-monitor.js';
import { scratch } from '../../support/scratch.js';

const schema = [
  { name: 'blockdev-backup', 'meta-type': 'command', 'arg-type': '7', 'ret-type': '1' },
  {
    name: '7',
    'meta-type': 'object',
    members: [
      { name: 'sync', type: '8' },
      { name: 'on-cbw-error', type: '9' },
    ],
  },
  { name: '8', 'meta-type': 'enum', members: [{ name: 'full' }], values: ['full'] },
  { name: 'stop', 'meta-type': 'command', 'arg-type': '0' },
  { name: 'on-cbw-error', 'meta-type': 'object', members: ['odd'] },
];

test('tells commands, and the arguments that each takes', async () => {
  using folder = scratch();
  await using fake = await FakeMonitor.listen(folder.path('q'), { handlers: { 'query-qmp-schema': () => schema } });
  await using client = await QmpClient.connect(fake.path);
  expect(await hasCommand(client, 'stop')).toBe(true);
  expect(await hasCommand(client, 'on-cbw-error')).toBe(false);
  expect(await hasArgument(client, 'blockdev-backup', 'on-cbw-error')).toBe(true);
  expect(await hasArgument(client, 'blockdev-backup', 'full')).toBe(false);
  expect(await hasArgument(client, 'stop', 'sync')).toBe(false);
  expect(await hasArgument(client, 'nothing', 'sync')).toBe(false);
});
