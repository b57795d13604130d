// Every way a level is reached or missed: all combinations of how filesystems and writers came out, and the sentence
// each reason has.
import { describe, expect, test } from 'vitest';
import type { ConsistencyLevel, FilesystemReport, WriterReport } from '../../../../src/consistency.js';
import { consistencyLevels, holdKinds } from '../../../../src/consistency.js';
import { judge, type DiskFacts, type VerdictFacts } from '../../../../src/freeze/judgement/verdict.js';

const filesystem = (held: FilesystemReport['held'], more: Partial<FilesystemReport> = {}): FilesystemReport => ({
  mountpoint: '/x',
  type: 'ext4',
  source: '/dev/vda',
  device: '254:0',
  disks: [{ dev: '/dev/vda' }],
  concerned: true,
  held,
  ...(held === 'none' ? { reason: 'because' } : {}),
  ...more,
});
const writer = (verdict: WriterReport['verdict'], more: Partial<WriterReport> = {}): WriterReport => ({
  name: 'w',
  path: '/w',
  kind: 'described',
  required: true,
  rank: 50,
  verdict,
  phases: [],
  ...more,
});
const facts = (more: Partial<VerdictFacts> = {}): VerdictFacts => ({
  outcome: 'ok',
  filesystems: [filesystem('frozen')],
  writers: [writer('verified')],
  accompanying: [],
  torn: [],
  changes: [],
  unsafeWriters: [],
  uncovered: [],
  disks: undefined,
  trustPlainHooks: false,
  ...more,
});
const lower = (a: ConsistencyLevel, b: ConsistencyLevel): ConsistencyLevel =>
  consistencyLevels.indexOf(a) < consistencyLevels.indexOf(b) ? a : b;

const ofHeld = {
  frozen: 'application',
  'read-only': 'application',
  synced: 'application',
  provider: 'crash',
  none: 'crash',
} as const;
const writerCases = [
  ['verified', writer('verified'), false, 'application'],
  ['verified, plain hooks trusted', writer('verified'), true, 'application'],
  ['described claim', writer('claimed'), false, 'filesystem'],
  ['described claim is not trusted as a plain one', writer('claimed'), true, 'filesystem'],
  ['plain claim', writer('claimed', { kind: 'plain' }), false, 'filesystem'],
  ['plain claim, trusted', writer('claimed', { kind: 'plain' }), true, 'application'],
  ['failed', writer('failed'), true, 'filesystem'],
  ['optional and failed', writer('failed', { required: false }), true, 'filesystem'],
  ['not applicable', writer('not-applicable'), true, 'filesystem'],
] as const;

describe.each(holdKinds)('a filesystem held as %s', (first) => {
  describe.each(holdKinds)('and one held as %s', (second) => {
    test.each(writerCases)('writer: %s', (_name, one, trustPlainHooks, ofWriter) => {
      const filesystems = [filesystem(first), filesystem(second, { mountpoint: '/y' })];
      const { level, evidence } = judge(facts({ filesystems, writers: [one], trustPlainHooks }));
      expect(level).toBe(lower(lower(ofHeld[first], ofHeld[second]), ofWriter));
      expect(evidence.length).toBeGreaterThanOrEqual(3);
    });
  });
});

describe('a filesystem that is left to its provider', () => {
  const left = [filesystem('frozen'), filesystem('provider', { mountpoint: '/left' })];

  test('allows crash at most, and says that what became of it is not known here', () => {
    const { level, evidence } = judge(facts({ filesystems: left, writers: [writer('verified')] }));
    expect(level).toBe('crash');
    expect(evidence.at(-1)).toBe('/left (ext4) was left to its provider: whether that held it is not known here');
  });

  test.each([
    ['application', [writer('verified')], left],
    ['filesystem', [writer('claimed')], left],
    ['crash', [writer('verified')], [...left, filesystem('none', { mountpoint: '/n' })]],
  ] as const)('allows %s by all the rest, if the provider is taken at its word', (level, writers, filesystems) => {
    expect(judge(facts({ filesystems, writers, assumeProvider: true })).level).toBe(level);
  });

  test('allows no more than crash once the session has expired, whatever the provider did', () => {
    expect(judge(facts({ filesystems: left, outcome: 'expired', assumeProvider: true })).level).toBe('crash');
  });
});

test('one bad writer among good ones decides, whatever their order', () => {
  for (const bad of [writer('failed'), writer('claimed')]) {
    expect(judge(facts({ writers: [bad, writer('verified')] })).level).toBe('filesystem');
    expect(judge(facts({ writers: [writer('verified'), bad] })).level).toBe('filesystem');
  }
  expect(judge(facts({ writers: [writer('verified'), writer('not-applicable')] })).level).toBe('application');
});

test('no writer at all is filesystem; one that may not be run is filesystem beside a good one', () => {
  expect(judge(facts({ writers: [] })).evidence.at(-1)).toBe('no writer speaks for an application of this guest');
  const { level, evidence } = judge(facts({ unsafeWriters: [{ what: '/h', reason: 'writable by others' }] }));
  expect(level).toBe('filesystem');
  expect(evidence.at(-1)).toBe('writer /h was not run: writable by others');
});

test.each([
  ['failed', 'none', 'nothing was held: why'],
  ['expired', 'crash', 'why'],
  ['broken', 'crash', 'why'],
] as const)('outcome %s is %s, however well all was held', (outcome, level, sentence) => {
  expect(judge(facts({ outcome, error: 'why' }))).toEqual({ level, evidence: [sentence] });
});

test('filesystems that are not concerned do not count', () => {
  const filesystems = [filesystem('frozen'), filesystem('none', { concerned: false })];
  expect(judge(facts({ filesystems })).level).toBe('application');
  const nothing = judge(facts({ filesystems: [filesystem('frozen', { concerned: false })] }));
  expect(nothing.level).toBe('crash');
  expect(nothing.evidence.at(-1)).toBe('no filesystem mounted read-write is part of the cut');
});

describe('disks of the cut', () => {
  const disk = (more: Partial<DiskFacts>): DiskFacts => ({
    label: 'serial D',
    devs: ['/dev/vdb'],
    swap: [],
    unwritten: [],
    written: ['/dev/vdb'],
    ...more,
  });

  test.each([
    [
      'unknown here',
      disk({ devs: [] }),
      'crash',
      'disk serial D is none that this guest knows: what lies on it was not held',
    ],
    [
      'bare and written',
      disk({}),
      'crash',
      'disk serial D (/dev/vdb) has no mounted filesystem, and may have been written to',
    ],
    [
      'bare and left alone',
      disk({ unwritten: ['/dev/vdb'], written: [] }),
      'application',
      'disk serial D (/dev/vdb) has no mounted filesystem, and nothing was written to it',
    ],
    [
      'beside a filesystem, and written',
      disk({ devs: ['/dev/vda'], written: ['/dev/vda3'] }),
      'crash',
      'disk serial D (/dev/vda): /dev/vda3 has no mounted filesystem, and may have been written to',
    ],
    [
      'beside swap, and left alone',
      disk({ swap: ['/dev/vdb1'], unwritten: ['/dev/vdb2'], written: [] }),
      'application',
      'disk serial D (/dev/vdb): /dev/vdb2 has no mounted filesystem, and nothing was written to it',
    ],
    ['swap', disk({ swap: ['/dev/vdb1'], written: [] }), 'application', 'disk serial D (/dev/vdb) holds swap alone'],
  ] as const)('%s', (_name, one, level, sentence) => {
    const verdict = judge(facts({ disks: [disk({ devs: ['/dev/vda'], written: [] }), one] }));
    expect(verdict.level).toBe(level);
    expect(verdict.evidence).toContain(sentence);
  });

  test('the set has the lowest of them', () => {
    const filesystems = [filesystem('frozen'), filesystem('none', { disks: [{ dev: '/dev/vdb' }] })];
    expect(judge(facts({ filesystems, disks: [disk({ devs: ['/dev/vda'], written: [] }), disk({})] })).level).toBe(
      'crash',
    );
  });

  test('a disk whose only filesystem is mounted read-only has one', () => {
    const filesystems = [filesystem('read-only', { concerned: false, disks: [{ dev: '/dev/vdb' }] })];
    expect(judge(facts({ filesystems, disks: [disk({ written: [] })] })).level).toBe('application');
  });

  test('half a filesystem is none, however well it was held', () => {
    const { level, evidence } = judge(facts({ torn: [{ what: '/x (ext4)', missing: ['/dev/vdb'] }] }));
    expect(level).toBe('none');
    expect(evidence.at(-1)).toBe(
      '/x (ext4) lies on /dev/vdb too, which is not in the cut: half of it would be missing',
    );
  });

  test('half of what a writer speaks for is no application', () => {
    const uncovered = [
      { writer: '/w', paths: ['/srv/log', '/srv/old'] },
      { writer: '/absent', paths: ['/x'] },
    ];
    const { level, evidence } = judge(facts({ uncovered }));
    expect(level).toBe('filesystem');
    expect(evidence.at(-1)).toBe('writer w speaks for /srv/log, /srv/old too, which is not in the cut');
    expect(judge(facts({ uncovered, writers: [writer('not-applicable')] })).evidence.join()).not.toContain('/srv/log');
  });

  test('what came or went since the plan is crash', () => {
    const { level, evidence } = judge(facts({ changes: [{ what: '/new (ext4)', reason: 'was mounted' }] }));
    expect(level).toBe('crash');
    expect(evidence.at(-1)).toBe('/new (ext4) was mounted');
  });
});

test('evidence is best first, and says how each was held', () => {
  const { evidence } = judge(
    facts({
      filesystems: [
        filesystem('none'),
        filesystem('frozen', { thaw: { startMs: 1, endMs: 2 } }),
        filesystem('frozen', { mountpoint: '/z' }),
        filesystem('synced', { mountpoint: '/boot/efi', type: 'vfat', reason: 'vfat cannot freeze; synced' }),
        filesystem('read-only', { mountpoint: '/ro' }),
      ],
      writers: [
        writer('claimed'),
        writer('verified', { name: 'pg', guarantee: 'recoverable' }),
        writer('verified', { name: 'dump', guarantee: 'artefact' }),
        writer('verified', { name: 'lock', guarantee: 'held' }),
      ],
    }),
  );
  expect(evidence).toEqual([
    '/x (ext4) was frozen, and thawed by us alone',
    '/z (ext4) is frozen',
    '/boot/efi (vfat): vfat cannot freeze; synced',
    '/ro (ext4) is mounted read-only',
    'writer pg verified that its own recovery finds every acknowledged transaction in an atomic cut',
    'writer dump verified that what it wrote before is complete',
    'writer lock verified that writes are stopped',
    'writer w only claimed to hold, nothing verified it',
    '/x (ext4) was not held: because',
  ]);
});

describe('a writer that only accompanies', () => {
  const failing = writer('failed', { name: 'note', reason: 'freeze: exit 1' });
  const told = 'warning: note, which only accompanies, failed: freeze: exit 1';

  test('fails: the level stays, and the evidence has a warning', () => {
    const { level, evidence } = judge(facts({ accompanying: [failing] }));
    expect(level).toBe('application');
    expect(evidence).toContain(told);
  });

  test('makes no application of a guest without others, and is never the reason for a level', () => {
    for (const verdict of ['verified', 'claimed', 'failed'] as const) {
      const { level, evidence } = judge(facts({ writers: [], accompanying: [{ ...failing, verdict }] }));
      expect(level).toBe('filesystem');
      expect(evidence.at(-1)).toBe('no writer speaks for an application of this guest');
    }
  });
});
