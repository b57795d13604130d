// Who asks for the snapshot in a cell: our agent client, or the host tool as a process of its own with both of its
// sockets behind proxies. Either one stays at the cut until `goOn`.
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ConsistencyLevel } from '../../../src/consistency.js';
import { consistencyLevelSchema } from '../../../src/consistency.js';
import * as v from 'valibot';
import { describeError } from '../../../src/errors.js';
import { proxySocket, type SocketProxy } from '../../../src/testing/index.js';
import { readResult } from '../../support/bridge-result.js';
import { bridgeProcess, requester as agentClient } from '../../support/agent-guest.js';
import type { Lab } from './lab.js';

/** What the requester knows in the end. */
export interface Attempt {
  /** The level it was told for what it cut; undefined if it was told that there is nothing to use. */
  readonly level: ConsistencyLevel | undefined;
  /** Why there is none, or why it is no better. */
  readonly error: string | undefined;
  readonly exitCode: number | undefined;
  /**
   * While it believed the guest held, by the guest's clock: what it cut then must be what it was told. Of a cut of which
   * only the bounds are known, `from` is the last instant at which it can have been, and `to` the first.
   */
  readonly heldNs: { readonly from: number; readonly to: number } | undefined;
}

export interface Requester extends AsyncDisposable {
  readonly done: Promise<Attempt>;
  /** Lets it go on from the cut. May be called before it has come there, and more than once. */
  goOn(): void;
  /** From now on it will stay at the cut. To be called before the guest is frozen. */
  stayAtCut(): void;
  /** Gives up a freeze that is still waited for: its agent is known to be dead. */
  giveUp(): void;
  /** Resolves when the disks are cut: at once for the client, which cuts nothing. */
  isCut(): Promise<void>;
  /** Of the host tool alone. */
  readonly tool: ToolParts | undefined;
}

export interface ToolParts {
  readonly monitor: SocketProxy;
  readonly channel: SocketProxy;
  kill(signal: 'SIGKILL' | 'SIGSTOP' | 'SIGCONT'): void;
  /** Nobody listens at its sockets any more, as where QEMU is dead. */
  refuse(): Promise<void>;
  /** The kernel has stopped it. */
  isStopped(): Promise<boolean>;
}

export interface RequesterOptions {
  readonly leaseMs: number;
  /** More words for the tool. */
  readonly words?: readonly string[];
}

export async function startClient(lab: Lab, { leaseMs }: RequesterOptions): Promise<Requester> {
  const host = await agentClient(lab.guest, { freezeMs: 25_000, thawTryMs: 4000, thawMs: 40_000 });
  let stays = false;
  const patience = new AbortController();
  let goOn: () => void = () => undefined;
  const going = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  const act = async (): Promise<Attempt> => {
    let heldNs: Attempt['heldNs'];
    try {
      const request = { requester: 'matrix', leaseMs, require: 'crash' } as const;
      const session = await host.coordinator.freeze(request, patience.signal);
      const from = await lab.nowNs();
      if (stays) await going;
      heldNs = { from, to: await lab.nowNs() };
      const { level, error, evidence } = await session.thaw();
      return { level, error: error ?? evidence.at(-1), exitCode: undefined, heldNs };
    } catch (error) {
      return { level: undefined, error: describeError(error), exitCode: undefined, heldNs };
    }
  };
  const done = act();
  return {
    done,
    goOn,
    stayAtCut: () => {
      stays = true;
    },
    giveUp: () => {
      patience.abort();
    },
    isCut: async () => {
      await Promise.resolve();
    },
    tool: undefined,
    [Symbol.asyncDispose]: async () => {
      goOn();
      await host[Symbol.asyncDispose]();
      await done;
    },
  };
}

const Answer = v.looseObject({
  level: v.optional(consistencyLevelSchema),
  timings: v.optional(
    v.looseObject({
      marks: v.looseObject({ cutSentMs: v.optional(v.number()), cutAnsweredMs: v.optional(v.number()) }),
    }),
  ),
  error: v.optional(
    v.looseObject({
      message: v.optional(v.string()),
      facts: v.optional(v.looseObject({ level: v.optional(consistencyLevelSchema) })),
    }),
  ),
});

/** The tool's marks are CLOCK_MONOTONIC of this machine; how late the guest answers is how little is known of its clock. */
async function inGuestTime(lab: Lab, sentMs: number, answeredMs: number): Promise<{ from: number; to: number }> {
  const askedNs = Number(process.hrtime.bigint());
  const guestNs = await lab.nowNs();
  const toldNs = Number(process.hrtime.bigint());
  return { from: guestNs + answeredMs * 1e6 - askedNs, to: guestNs + sentMs * 1e6 - toldNs };
}

const Blocks = v.array(v.looseObject({ inserted: v.optional(v.looseObject({ 'node-name': v.string() })) }));

export async function startTool(lab: Lab, { leaseMs, words = [] }: RequesterOptions): Promise<Requester> {
  const { machine: guest } = lab;
  const monitor = await proxySocket(guest.qmpPath, `${guest.dir}/monitor-proxy.sock`);
  const channel = await proxySocket(guest.qgaPath, `${guest.dir}/channel-proxy.sock`);
  const limits = ['--agent-timeout', '5', '--cut-timeout', '20', '--freeze-timeout', '30', '--thaw-timeout', '15'];
  const create = [
    'snapshot',
    'create',
    '--name',
    lab.nextSet(),
    '--require',
    'crash',
    '--lease',
    String(leaseMs / 1000),
  ];
  const running = bridgeProcess(guest, [...create, ...limits, ...words], { qmp: monitor.path, qga: channel.path });
  const refuse = async (): Promise<void> => {
    await monitor[Symbol.asyncDispose]();
    await channel[Symbol.asyncDispose]();
  };
  let heldNs: Attempt['heldNs'];
  const act = async (): Promise<Attempt> => {
    const { stdout, stderr, exitCode } = await running;
    const answer = v.parse(Answer, readResult(create, stdout) ?? {});
    const level = answer.level ?? answer.error?.facts?.level;
    const { cutSentMs, cutAnsweredMs } = answer.timings?.marks ?? {};
    if (heldNs === undefined && cutSentMs !== undefined && cutAnsweredMs !== undefined && !guest.isOver)
      heldNs = await inGuestTime(lab, cutSentMs, cutAnsweredMs);
    return { level, error: answer.error?.message ?? (stderr === '' ? undefined : stderr), exitCode, heldNs };
  };
  const done = act();
  return {
    done,
    goOn: () => {
      monitor.releaseReplies();
    },
    stayAtCut: () => {
      monitor.holdReplies();
    },
    giveUp: () => undefined, // it sees the port close
    isCut: async () => {
      const from = await lab.nowNs();
      for (;;) {
        const blocks = v.parse(Blocks, await guest.monitor.execute('query-block'));
        if (blocks.some(({ inserted }) => inserted?.['node-name'].startsWith('fsb-') === true)) break;
        await sleep(10);
      }
      heldNs = { from, to: await lab.nowNs() };
    },
    tool: {
      monitor,
      channel,
      kill: (signal) => {
        running.kill(signal);
      },
      refuse,
      isStopped: async () => {
        for (let tries = 0; tries < 100; tries++) {
          const stat = await readFile(`/proc/${running.pid ?? 0}/stat`, 'latin1').catch(() => '');
          if (stat.slice(stat.lastIndexOf(')')).startsWith(') T')) return true;
          await sleep(10);
        }
        return false;
      },
    },
    [Symbol.asyncDispose]: async () => {
      running.kill('SIGKILL');
      await done.catch(() => undefined);
      await refuse();
    },
  };
}
