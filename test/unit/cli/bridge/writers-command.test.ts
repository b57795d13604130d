// `fsfreeze-bridge writers`, against an agent that is a fixture: what is printed of each writer.
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FakeAgent } from '../../../support/fake-agent.js';
import { runTool } from '../../../support/run-tool.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let folder: Scratch;
let agent: FakeAgent;
beforeEach(async () => {
  folder = scratch();
  agent = await FakeAgent.listen(folder.path('qga.sock'));
});
afterEach(async () => {
  await agent[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

const words = (...more: string[]): string[] => [
  'writers',
  ...['--qmp', folder.path('qmp.sock'), '--qga', folder.path('qga.sock'), '--state-dir', folder.path('state')],
  ...more,
];
const described = { kind: 'described', required: true, rank: 70, guarantee: 'held' };
const writers = [
  {
    ...described,
    name: '50-db',
    path: '/d/50-db',
    phases: ['prepare', 'freeze', 'verify', 'thaw', 'complete'],
    covers: ['/var/lib/db', '/srv/wal'],
    last: { session: 's1', verdict: 'failed', reason: 'freeze: exit 1: no', durationMs: 12.4 },
  },
  { ...described, name: 'new', path: '/d/new', phases: ['freeze', 'thaw'], problem: 'not executable' },
];

test('writers tells what each covers, and what became of it last', async () => {
  agent.writers = writers;
  const { code, stdout } = await runTool(words());
  expect(code).toBe(0);
  expect(stdout.split('\n')).toEqual([
    '50-db  described, required, rank 70, held  [prepare freeze verify thaw complete]  /d/50-db',
    '  covers /var/lib/db /srv/wal',
    '  last failed (freeze: exit 1: no), 12 ms, session s1',
    'new  described, required, rank 70, held  [freeze thaw]  /d/new  NOT RUN: not executable',
    '',
  ]);
});

test('writers --json tells the same', async () => {
  agent.writers = writers;
  const { stdout } = await runTool(words('--json'));
  expect(JSON.parse(stdout)).toEqual({ writers });
});
