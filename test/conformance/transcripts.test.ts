// Our built agent answers the recorded exchanges as the real agents did: what it says for 10.2 beside Debian 13's 10.0,
// what it says with --compat=7.2 beside Debian 12's 7.2. What differs on purpose is listed and exact; a stale entry
// fails. Both ran in a chamber (chamber.ts), and the gates of harmless.ts and argument-gate.ts are before every send.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { acceptedTranscriptDifferences } from './accepted-transcript-differences.js';
import { checkRequest } from './argument-gate.js';
import { builtAgent, type ChamberAgent } from './chamber.js';
import { chamberLack, recordedFamilies } from './chamber-agents.js';
import { optionsFor, replay, transcriptsOf, type Release, type Replayed, type Verdict } from './replay.js';
import { escapeText, formatTranscript, parseTranscript, unescapeText } from './transcript.js';

const releases: readonly Release[] = ['7.2', '10.0'];
const lack = chamberLack();
if (lack !== undefined && process.env['FSB_REQUIRED'] === 'all') throw new Error(`transcripts: ${lack}`);

test('there are at least 300 exchanges, of both agents, with every family of them', () => {
  for (const release of releases) {
    const transcripts = transcriptsOf(release);
    expect(transcripts.flatMap(({ exchanges }) => exchanges).length).toBeGreaterThanOrEqual(300);
    expect(transcripts.map(({ family }) => family)).toEqual(Object.keys(recordedFamilies).sort());
  }
});

test.each(releases)('what is recorded of %s is what is sent today', (release) => {
  for (const { family, exchanges } of transcriptsOf(release)) {
    const sent = recordedFamilies[family]?.map(({ name, sends }) => ({ name, sends }));
    expect(exchanges.map(({ name, sends }) => ({ name, sends }))).toEqual(sent);
  }
});

test('a transcript reads back as it was written', () => {
  for (const transcript of releases.flatMap(transcriptsOf)) {
    expect(parseTranscript(formatTranscript(transcript))).toEqual(transcript);
  }
  for (const text of [
    '',
    'a',
    '\xff\n\0',
    'x'.repeat(100),
    '[{"a":'.repeat(50),
    '\xff'.repeat(200),
    'ab\n'.repeat(40),
  ]) {
    expect(unescapeText(escapeText(text))).toBe(text);
  }
});

test.each([
  '{"execute": "guest-fsfreeze-freeze"}',
  '{"execute": "guest-fsfreeze-\\u0066reeze", "arguments": {}}',
  '{"execute": "guest-shutdown", "arguments": {"mode": "zz"}}',
  '{"execute": "guest-shutdown", "arguments": []}',
  '{"execute": "guest-set-time", "arguments": {"no-such-argumen": 0}}',
  '{"execute": "guest-file-open", "arguments": {"path": "/etc/passwd"}}',
  '{"execute": "guest-file-write", "arguments": {"handle": 1000, "buf-b64": ""}}',
  '{"execute": "guest-exec", "arguments": {"path": "/nonexistent/program"}}',
  '{"execute": "guest-ping"}{"execute": "guest-suspend-ram"}',
  "{'execute': 'guest-ping'}",
])('the gate refuses %s', (text) => {
  expect(() => {
    checkRequest(text);
  }).toThrow('refused to send');
});

describe.skipIf(lack !== undefined)(`replayed${lack === undefined ? '' : ` (${lack})`}`, () => {
  let agent: ChamberAgent | undefined;
  const replayed = new Map<Release, readonly Replayed[]>();
  beforeAll(async () => {
    agent = await builtAgent();
    for (const release of releases) {
      replayed.set(release, await replay(release, { agent, options: optionsFor[release] }));
    }
  }, 240_000);
  afterAll(async () => {
    await agent?.[Symbol.asyncDispose]();
  });

  test.each(releases)('as %s answered', (release) => {
    const all = replayed.get(release) ?? [];
    const count = (verdict: Verdict): number => all.filter((found) => found.verdict === verdict).length;
    console.log(
      `qemu-ga ${release}: ${all.length} exchanges, ${count('same')} same, ${count('accepted')} accepted, ` +
        `${count('not built')} of commands not built yet, ${count('differs')} different`,
    );
    const wrong = all
      .filter(({ verdict }) => verdict === 'differs')
      .map(({ family, recorded, problem }) => `${family}: ${recorded.name}: ${problem ?? ''}`);
    expect(wrong).toEqual([]);
    expect(all.length).toBe(transcriptsOf(release).flatMap(({ exchanges }) => exchanges).length);
  });

  test('every accepted difference was met', () => {
    const met = new Set([...replayed.values()].flat().map(({ accepted }) => accepted));
    expect(acceptedTranscriptDifferences.filter((entry) => !met.has(entry))).toEqual([]);
  });
});
