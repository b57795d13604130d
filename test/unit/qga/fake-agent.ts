// A guest agent in memory for tests of the client side: our dispatcher with handlers given by the test. `stock` leaves
// out bridge-*, as qemu-ga does.
import { guestAgent, refuse, type Handlers } from '../../../src/qga/server.js';
import { commandNames, type Returns } from '../../../src/qga/commands.js';
import { Dispatcher } from '../../../src/rpc/dispatcher.js';
import type { Operation } from '../../../src/rpc/operation.js';
import type { ByteStream } from '../../../src/transport/byte-stream.js';
import { memoryPair } from '../../../src/transport/memory-pair.js';

export interface FakeAgent {
  readonly stream: ByteStream;
  /** Commands carried out, in order, syncs apart. */
  readonly calls: readonly string[];
  close(): Promise<void>;
}

export interface FakeOptions {
  readonly kind: 'bridge' | 'stock';
  readonly handlers: Partial<Handlers<string>>;
  readonly isFrozen?: () => boolean;
  /** What it says of itself, as an agent of another version does: it has no other commands. */
  readonly info?: Returns<'guest-info'>;
}

export function fakeAgent({ kind, handlers, isFrozen = () => false, info }: FakeOptions): FakeAgent {
  const calls: string[] = [];
  const others = Object.fromEntries(
    commandNames.map((name) => [name, () => refuse(`${name} is not part of this test`)]),
  );
  const policy = { compat: '10.2', blocked: new Set<string>(), isFrozen } as const;
  const agent = guestAgent({ ...others, ...handlers } as Handlers<string>, policy, kind === 'stock' ? '7.2.22' : '0.1');
  const operations = new Map<string, Operation<string>>();
  for (const [name, operation] of agent.operations) {
    if (kind === 'stock' && name.startsWith('bridge-')) continue;
    if (info?.supported_commands.every((command) => command.name !== name) === true) continue;
    operations.set(name, {
      ...operation,
      // A stock agent does one thing after another, whatever comes.
      ...(kind === 'stock' ? { order: 'queued' as const } : {}),
      async call(args, context) {
        if (operation.order !== 'sync') calls.push(name);
        const result = await operation.call(args, context);
        return name === 'guest-info' ? (info ?? onlyKnown(result, operations)) : result;
      },
    });
  }
  const [stream, far] = memoryPair();
  const served = new Dispatcher<string>({ ...agent, operations }).serve(far, 'test');
  return {
    stream,
    calls,
    async close() {
      await stream.close();
      await served;
    },
  };
}

function onlyKnown(info: unknown, operations: ReadonlyMap<string, unknown>): unknown {
  const { supported_commands: commands, ...rest } = info as { supported_commands: { name: string }[] };
  return { ...rest, supported_commands: commands.filter(({ name }) => operations.has(name)) };
}
