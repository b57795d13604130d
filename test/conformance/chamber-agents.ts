// An agent in a chamber, spoken to: once with everything blocked that is not read-only, so that bytes of all kinds can
// be sent; once with nothing blocked, where the gate lets only requests through that change nothing.
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ByteStream } from '../../src/transport/byte-stream.js';
import { connectUnixSocket } from '../../src/transport/unix-socket.js';
import { canary, checkRequest, noSuchArgument } from './argument-gate.js';
import { openChamber, type ChamberAgent } from './chamber.js';
import { commandFamilies } from './command-exchanges.js';
import { converse, type Conversation } from './conversation.js';
import { families, type Exchange } from './exchanges.js';
import { blockAllBut } from './harmless.js';

/** An agent, and what it must be told besides. */
export interface Subject {
  readonly agent: ChamberAgent;
  readonly options: readonly string[];
}

/** An exchange this long tells nothing a shorter one does not, and would make a transcript slow to replay. */
const longestBytes = 4 * 1024 * 1024;

/** What is recorded and replayed, by the name of its transcript. */
export const recordedFamilies: Readonly<Record<string, readonly Exchange[]>> = Object.fromEntries(
  Object.entries({ ...families, ...commandFamilies }).map(([family, exchanges]) => [
    family,
    exchanges.filter(({ sends }) => sends.reduce((sum, text) => sum + text.length, 0) <= longestBytes),
  ]),
);

/** Whether an agent must have everything blocked that is not read-only before it is sent this family. */
const needsBlocks = (family: string): boolean => Object.hasOwn(families, family);

/** Says what each exchange was answered, in order, each family in an agent of its own. */
export async function* answers(
  subject: Subject,
  wanted: readonly (readonly [string, readonly Pick<Exchange, 'name' | 'sends'>[]])[],
): AsyncGenerator<{ readonly family: string; readonly name: string; readonly answer: string }> {
  const blocked = blockAllBut(await namesOf(subject), subject.agent.command.join(' '));
  for (const blocks of [true, false]) {
    const chosen = wanted.filter(([family]) => needsBlocks(family) === blocks);
    if (chosen.length === 0) continue;
    await using talk = await speakTo(subject, blocks ? blocked : []);
    if (!blocks) await checkStrictness(talk.conversation);
    for (const [family, exchanges] of chosen) {
      for (const exchange of exchanges) {
        yield { family, name: exchange.name, answer: await talk.conversation.exchange(exchange) };
      }
    }
  }
}

async function namesOf({ agent }: Subject): Promise<readonly string[]> {
  await using chamber = await openChamber(agent.rootfs);
  const { stdout } = await chamber.run([...agent.command, '-b', 'help']);
  return stdout.split('\n').filter(Boolean);
}

interface Talk extends AsyncDisposable {
  readonly conversation: Conversation;
}

async function speakTo({ agent, options }: Subject, blocked: readonly string[]): Promise<Talk> {
  const socket = '/run/qga.sock';
  const words = ['-m', 'unix-listen', '-p', socket, '-t', '/run', ...options];
  const blocks = blocked.length === 0 ? [] : ['-b', blocked.join(',')];
  const chamber = await openChamber(agent.rootfs, [...agent.command, ...words, ...blocks]);
  try {
    const path = `${chamber.root}${socket}`;
    for (let tries = 0; !existsSync(path); tries++) {
      if (tries === 200) throw new Error(`${agent.command.join(' ')} did not listen within 10 s: ${chamber.output()}`);
      await sleep(50);
    }
    const stream: ByteStream = await connectUnixSocket(path, 5000);
    const conversation = blocked.length > 0 ? converse(stream) : converse(stream, gate);
    return {
      conversation,
      async [Symbol.asyncDispose]() {
        await stream.close();
        await chamber[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await chamber[Symbol.asyncDispose]();
    throw error;
  }
}

function gate(bytes: Uint8Array): void {
  checkRequest(Buffer.from(bytes).toString('latin1').replace(/^\xff/, ''));
}

/** Throws unless an argument that no command has keeps a command from being called. */
async function checkStrictness(conversation: Conversation): Promise<void> {
  const answer = await conversation.exchange({ name: 'canary', sends: [canary] });
  if (!answer.includes(`Parameter '${noSuchArgument}' is unexpected`)) {
    throw new Error(`expected an error about '${noSuchArgument}', found ${answer}: nothing is sent to this agent`);
  }
}

/** `7.2` of `QEMU Guest Agent 7.2.22`. */
export async function versionOf({ agent }: Pick<Subject, 'agent'>): Promise<string> {
  await using chamber = await openChamber(agent.rootfs);
  return (await chamber.run([...agent.command, '-V'])).stdout.trim();
}

/** Why no chamber can be made here; undefined if one can. */
export function chamberLack(): string | undefined {
  for (const program of ['busybox', 'socat', 'flock', 'getent', 'ip', 'unshare', 'setpriv', 'nsenter', 'ldd']) {
    try {
      execFileSync('sh', ['-c', `command -v ${program}`], { stdio: 'ignore' });
    } catch {
      return `needs ${program}`;
    }
  }
  return undefined;
}
