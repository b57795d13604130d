// Our built agent's command line beside the recorded ones of 7.2 and 10.0: every option with getopt's forms, the
// configuration file and its precedence, what is printed, exit codes, signals, pid files, daemons, socket activation.
// Run in a chamber, so that they serve for real.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { acceptedCommandLines } from './accepted-command-lines.js';
import { builtAgent, type ChamberAgent } from './chamber.js';
import { chamberLack } from './chamber-agents.js';
import { outcomes, type Outcome } from './command-line.js';
import { commandLineCases } from './command-line-cases.js';
import type { Release } from './replay.js';
import { judgeCommandLine, recordedCommandLines, type JudgedCommandLine } from './replay-command-lines.js';

const releases: readonly Release[] = ['7.2', '10.0'];
const lack = chamberLack();
if (lack !== undefined && process.env['FSB_REQUIRED'] === 'all') throw new Error(`command lines: ${lack}`);

test.each(releases)('what is recorded of %s is what is run today', (release) => {
  const names = commandLineCases.map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
  expect(recordedCommandLines(release).map(({ name }) => name)).toEqual(names);
});

describe.skipIf(lack !== undefined)(`run${lack === undefined ? '' : ` (${lack})`}`, () => {
  let agent: ChamberAgent | undefined;
  const ours = new Map<string, Outcome>();
  beforeAll(async () => {
    agent = await builtAgent();
    for (const { asked, outcome } of await outcomes(agent, commandLineCases)) ours.set(asked.name, outcome);
  }, 300_000);
  afterAll(async () => {
    await agent?.[Symbol.asyncDispose]();
  });

  const judge = (release: Release): readonly JudgedCommandLine[] =>
    recordedCommandLines(release).map((recorded) => judgeCommandLine(release, recorded, ours.get(recorded.name)));

  test.each(releases)('as %s does', (release) => {
    const all = judge(release);
    const count = (verdict: JudgedCommandLine['verdict']): number =>
      all.filter((one) => one.verdict === verdict).length;
    console.log(
      `qemu-ga ${release}: ${all.length} command lines, ${count('same')} same, ${count('accepted')} accepted, ` +
        `${count('differs')} different`,
    );
    expect(all.filter(({ verdict }) => verdict === 'differs')).toEqual([]);
  });

  test('every accepted difference was met', () => {
    const met = new Set(releases.flatMap((release) => judge(release).map(({ accepted }) => accepted)));
    expect(acceptedCommandLines.filter((entry) => !met.has(entry))).toEqual([]);
  });

  test('-b help names all our commands, the bridge-* too', () => {
    expect(ours.get('agent -b help')?.stdout).toContain('bridge-freeze\n');
  });
});
