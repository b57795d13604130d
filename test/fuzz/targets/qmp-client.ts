// Our client and a hostile monitor: whatever it says, as greeting or as answer, a command ends with a result as
// declared or one of our errors; then the same connection goes on, or it has ended and a new one works.
import { QmpClient } from '../../../src/qmp/client.js';
import { runQmp, type QmpCommand } from '../../../src/qmp/commands.js';
import { piecesOf, readCorpus } from '../corpus.js';
import { parts, type Input } from '../input.js';
import { makeRandom } from '../random.js';
import { streamPair } from '../../support/stream-pair.js';
import { check, checkOwnError, turns, untilTrue, watch, type Target, type Verdict } from '../target.js';

const greeting =
  '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\r\n';
const limit = { timeoutMs: 20_000 };
const asked: readonly QmpCommand[] = [
  ...([
    'query-status',
    'query-block',
    'query-named-block-nodes',
    'query-blockstats',
    'query-jobs',
    'query-pci',
  ] as const),
  ...(['query-chardev', 'x-debug-query-block-graph', 'query-block-jobs', 'query-name', 'job-dismiss'] as const),
];

/** The command that such an answer may be one to. */
const marks: readonly (readonly [mark: string, command: QmpCommand])[] = [
  ['inserted', 'query-block'],
  ['wr_operations', 'query-blockstats'],
  ['detect_zeroes', 'query-named-block-nodes'],
  ['edges', 'x-debug-query-block-graph'],
  ['frontend-open', 'query-chardev'],
  ['current-progress', 'query-jobs'],
  ['class_info', 'query-pci'],
];
const fitting = (text: string): QmpCommand => marks.find(([mark]) => text.includes(mark))?.[1] ?? 'job-dismiss';

export const qmpClient: Target = {
  name: 'qmp-client',
  pieces: () => piecesOf(readCorpus('qmp'), 'answered'),
  start: () => ({ run, [Symbol.asyncDispose]: () => Promise.resolve() }),
};

class Monitor {
  readonly near;
  readonly #far;
  readonly #input: Input | undefined;
  lastId = 0;

  /** @param input what it answers instead of what is asked for; without it, it is good */
  constructor(input: Input | undefined, greets: boolean) {
    [this.near, this.#far] = streamPair();
    this.#input = input;
    let rest = '';
    this.#far.on('data', (chunk: Buffer) => {
      const lines = (rest + chunk.toString('utf8')).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) this.#answer(JSON.parse(line) as { execute: string; id: number });
    });
    if (greets) this.say(greeting);
    else this.hostile();
  }

  #answer({ execute, id }: { execute: string; id: number }): void {
    this.lastId = id;
    if (execute === 'qmp_capabilities') this.say(`{"return": {}, "id": ${id}}\r\n`);
    else if (this.#input === undefined || execute === 'query-status') {
      this.say(`{"return": {"status": "running", "running": true}, "id": ${id}}\r\n`);
    } else this.hostile();
  }

  say(text: string): void {
    if (!this.#far.destroyed) this.#far.write(Buffer.from(text, 'latin1'));
  }

  hostile(): void {
    if (this.#input === undefined) return;
    const text = this.#input.bytes.toString('latin1').replaceAll('"@ID@"', String(this.lastId));
    for (const part of parts({ ...this.#input, bytes: Buffer.from(text, 'latin1') })) {
      if (!this.#far.destroyed) this.#far.write(part);
    }
  }

  end(): void {
    this.#far.destroy();
  }
}

async function run(input: Input): Promise<Verdict> {
  const random = makeRandom('qmp', input.choices);
  const verdict = random.once(6)
    ? await greet(input)
    : await ask(input, random.once(4) ? random.pick(asked) : fitting(input.bytes.toString('latin1')));
  const good = new Monitor(undefined, true);
  await using client = await QmpClient.connect(good.near, limit);
  const status = watch(runQmp(client, 'query-status', {}, limit));
  await untilTrue('a new connection works', () => status.settled() !== undefined);
  const found = status.settled();
  check(found !== undefined && 'value' in found && found.value.running, 'a new connection is not answered rightly');
  return verdict;
}

async function greet(input: Input): Promise<Verdict> {
  const monitor = new Monitor(input, false);
  const connecting = watch(QmpClient.connect(monitor.near, limit));
  await turns(4);
  const early = connecting.settled();
  if (early === undefined) {
    monitor.end();
    await untilTrue('connecting ends with the connection', () => connecting.settled() !== undefined);
  }
  const settled = connecting.settled();
  if (settled === undefined) return 'rejected';
  if ('error' in settled) {
    checkOwnError(settled.error);
    return 'rejected';
  }
  settled.value.close();
  return 'accepted';
}

async function ask(input: Input, command: QmpCommand): Promise<Verdict> {
  const monitor = new Monitor(input, true);
  await using client = await QmpClient.connect(monitor.near, limit);
  using listener = client.listen('JOB_STATUS_CHANGE');
  const event = watch(listener.next(limit.timeoutMs));
  const args = command === 'job-dismiss' ? { id: 'job' } : {};
  const call = watch(runQmp(client, command as 'query-jobs', args as Record<string, never>, limit));
  await turns(3);
  const byInput = call.settled();
  if (byInput === undefined && client.connected) {
    monitor.say(`{"return": [], "id": ${monitor.lastId}}`);
    await turns(2);
  }
  // An answer that swallows all that follows: time limits end it, and so does closing.
  if (call.settled() === undefined) client.close();
  await untilTrue('the command ends', () => call.settled() !== undefined);
  const settled = call.settled();
  if (settled !== undefined && 'error' in settled) checkOwnError(settled.error);
  client.close();
  await untilTrue('waiting for an event ends', () => event.settled() !== undefined);
  const waited = event.settled();
  if (waited !== undefined && 'error' in waited) checkOwnError(waited.error);
  return byInput !== undefined && 'value' in byInput ? 'accepted' : 'rejected';
}
