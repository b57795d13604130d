import { expect, test } from 'vitest';
import { describeScript, describeSidecar } from '../../../../src/freeze/writers/description.js';

const script = (...lines: string[]): ReturnType<typeof describeScript> =>
  describeScript(['#!/bin/sh', '# Copyright', '', ...lines, 'exec true', '# fsfreeze-writer: rank=oops'].join('\n'));

test('all of it, in a script and in a sidecar', () => {
  const expected = {
    kind: 'described',
    description: {
      phases: ['prepare', 'freeze', 'verify', 'thaw'],
      rank: 70,
      timeout: { prepare: 120, freeze: 0.5 },
      required: false,
      covers: ['/var/lib/x', '/srv'],
      processes: ['xd', 'xd-helper'],
      service: 'x.service',
      guarantee: 'recoverable',
    },
  };
  expect(
    script(
      '# fsfreeze-writer: phases=prepare freeze  verify thaw',
      '# fsfreeze-writer: rank=70',
      '# fsfreeze-writer: timeout.prepare=120',
      '# fsfreeze-writer: timeout.freeze=0.5',
      '# fsfreeze-writer: required=false',
      '# fsfreeze-writer: covers=/var/lib/x /srv',
      '# fsfreeze-writer: processes=xd xd-helper',
      '# fsfreeze-writer: service=x.service',
      '# fsfreeze-writer: guarantee=recoverable',
    ),
  ).toEqual(expected);
  expect(describeSidecar(JSON.stringify(expected.description))).toEqual(expected);
});

test('a resident writer', () => {
  const lines = ['# fsfreeze-writer: resident=true', '# fsfreeze-writer: phases=prepare freeze verify thaw'];
  const expected = { description: { resident: true, guarantee: 'held' } };
  expect(script(...lines, '# fsfreeze-writer: guarantee=held')).toMatchObject(expected);
  const json = { resident: true, phases: ['prepare', 'freeze', 'verify', 'thaw'], guarantee: 'held' };
  expect(describeSidecar(JSON.stringify(json))).toMatchObject(expected);
});

test('defaults', () => {
  expect(script('# fsfreeze-writer: phases=freeze thaw')).toMatchObject({
    description: { rank: 50, timeout: {}, required: true, covers: [] },
  });
});

test('without a line of it, without an interpreter, or below the head: a plain hook', () => {
  expect(script()).toEqual({ kind: 'plain' });
  expect(describeScript('\u007fELF# fsfreeze-writer: phases=freeze thaw')).toEqual({ kind: 'plain' });
  expect(describeScript('')).toEqual({ kind: 'plain' });
});

test.each([
  ['# fsfreeze-writer phases=freeze thaw', 'expected "# fsfreeze-writer: KEY=VALUE"'],
  ['#fsfreeze-writer: phases=freeze thaw', 'expected "# fsfreeze-writer: KEY=VALUE"'],
  ['# Fsfreeze-Writer: phases=freeze thaw', 'expected "# fsfreeze-writer: KEY=VALUE"'],
  ['# fsfreeze-writer: rank=20', 'phases'],
  ['# fsfreeze-writer: phases=freeze thaw\n# fsfreeze-writer: processes=', 'processes'],
  ['# fsfreeze-writer: phases=freeze thaw\n# fsfreeze-writer: processes=postgresql-server', 'processes'],
  ['# fsfreeze-writer: phases=freeze thaw\n# fsfreeze-writer: phases=freeze', 'phases is given twice'],
  ['# fsfreeze-writer: phases=freeze thaw hold', 'phases.2'],
  ['# fsfreeze-writer: phases=freeze', 'a writer with freeze needs thaw'],
  ['# fsfreeze-writer: phases=post', 'expected prepare or freeze'],
  ['# fsfreeze-writer: phases=freeze verify thaw', 'guarantee: expected with verify'],
  ['# fsfreeze-writer: phases=freeze thaw\n# fsfreeze-writer: guarantee=held', 'guarantee: expected with verify'],
  ['# fsfreeze-writer: phases=freeze thaw\n# fsfreeze-writer: rank=100', 'rank'],
  ['# fsfreeze-writer: phases=freeze thaw\n# fsfreeze-writer: rank=high', 'rank'],
  ['# fsfreeze-writer: phases=freeze thaw\n# fsfreeze-writer: required=yes', 'required'],
  ['# fsfreeze-writer: phases=freeze thaw\n# fsfreeze-writer: timeout=5', 'timeout'],
  ['# fsfreeze-writer: phases=freeze thaw\n# fsfreeze-writer: timeout.freeze=0', 'timeout.freeze'],
  ['# fsfreeze-writer: phases=freeze thaw\n# fsfreeze-writer: timeout.hold=5', 'timeout.hold'],
  ['# fsfreeze-writer: phases=freeze thaw\n# fsfreeze-writer: covers=var', 'covers.0'],
  ['# fsfreeze-writer: phases=freeze thaw\n# fsfreeze-writer: colour=blue', 'colour'],
  ['# fsfreeze-writer: phases=prepare freeze thaw\n# fsfreeze-writer: resident=yes', 'resident'],
  ['# fsfreeze-writer: phases=freeze thaw\n# fsfreeze-writer: resident=true', 'a resident writer needs prepare'],
  [
    '# fsfreeze-writer: phases=prepare verify\n# fsfreeze-writer: guarantee=held\n# fsfreeze-writer: resident=true',
    'a resident writer needs prepare, freeze and thaw',
  ],
  [
    '# fsfreeze-writer: phases=prepare freeze thaw abort\n# fsfreeze-writer: resident=true',
    'a resident writer has no abort',
  ],
  ['# fsfreeze-writer: phases=freeze thaw\n# fsfreeze-writer: guarantee=nothing', 'guarantee'],
  ['# fsfreeze-writer: phases=freeze thaw\n# fsfreeze-writer: lingers=5', 'expected of a resident writer alone'],
  ['# fsfreeze-writer: phases=freeze thaw\n# fsfreeze-writer: lingers=soon', 'lingers'],
  [
    '# fsfreeze-writer: phases=prepare freeze verify thaw\n# fsfreeze-writer: guarantee=recoverable\n# fsfreeze-writer: apart=held',
    'apart: expected of a writer that is no resident, guarantees recoverable, and has no freeze',
  ],
  [
    '# fsfreeze-writer: phases=prepare verify\n# fsfreeze-writer: guarantee=artefact\n# fsfreeze-writer: apart=held',
    'apart: expected',
  ],
  [
    '# fsfreeze-writer: phases=prepare verify\n# fsfreeze-writer: guarantee=recoverable\n# fsfreeze-writer: apart=recoverable',
    'apart',
  ],
  [
    '# fsfreeze-writer: phases=prepare freeze thaw complete\n# fsfreeze-writer: resident=true',
    'a resident writer has no complete',
  ],
])('%s is an error, never a plain hook', (lines, problem) => {
  const described = script(...lines.split('\n'));
  expect(described.kind).toBe('bad');
  expect(described.kind === 'bad' && described.problem).toContain(problem);
});

test.each(['', '[]', '{"phases":["freeze","thaw"],"x":1}', '{'])('sidecar %j is an error', (json) => {
  expect(describeSidecar(json).kind).toBe('bad');
});
