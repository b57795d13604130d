// Records qga/transcripts anew from real agents, each in a chamber:
//
//   npm run record-transcripts -- --agent /usr/sbin/qemu-ga --suite trixie
//
// --agent takes a program that is installed here, --suite a Debian suite whose package is fetched and not installed.
// One folder per release, one file per family.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { agentOfSuite, installedAgent, type ChamberAgent } from './chamber.js';
import { answers, recordedFamilies, versionOf } from './chamber-agents.js';
import { formatCommandLines, outcomes } from './command-line.js';
import { commandLineCases } from './command-line-cases.js';
import { shapeOf } from './shape.js';
import { formatTranscript, trimAnswer, type Recorded } from './transcript.js';

const transcripts = fileURLToPath(new URL('../../qga/transcripts', import.meta.url));

async function record(agent: ChamberAgent): Promise<void> {
  const subject = { agent, options: [] };
  const version = await versionOf(subject);
  const release = /(\d+\.\d+)\.\d+$/.exec(version)?.[1];
  if (release === undefined) throw new Error(`expected the version of a guest agent, found '${version}'`);
  const found = new Map<string, Recorded[]>(Object.keys(recordedFamilies).map((family) => [family, []]));
  for await (const { family, name, answer } of answers(subject, Object.entries(recordedFamilies))) {
    const exchange = recordedFamilies[family]?.find((candidate) => candidate.name === name);
    if (exchange === undefined) throw new Error(`no exchange '${name}' in ${family}`);
    const text = trimAnswer(answer);
    const isShape = exchange.compare === 'values' && text.includes('"return"');
    found.get(family)?.push({ name, sends: exchange.sends, isShape, answer: isShape ? shapeOf(text) : text });
  }
  const folder = join(transcripts, release);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const lines = await outcomes(agent, commandLineCases);
  writeFileSync(join(folder, 'command-line.txt'), formatCommandLines(version, lines));
  let total = 0;
  for (const [family, exchanges] of found) {
    total += exchanges.length;
    writeFileSync(join(folder, `${family}.txt`), formatTranscript({ family, agent: version, exchanges }));
  }
  console.log(`${version}: ${total} exchanges in ${found.size} files, ${lines.length} command lines`);
}

const { values } = parseArgs({
  options: { agent: { type: 'string', multiple: true }, suite: { type: 'string', multiple: true } },
});
const makers = [
  ...(values.agent ?? []).map((program) => () => installedAgent(program)),
  ...(values.suite ?? []).map((suite) => () => agentOfSuite(suite)),
];
if (makers.length === 0) throw new Error('expected --agent PATH or --suite NAME, found neither');
for (const make of makers) {
  await using agent = await make();
  await record(agent);
}
