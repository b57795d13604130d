// The agent in this process, on sockets of its own in a scratch folder, over a coordinator that is played by the test.
// Made for each test of the file that imports this, and ended after it.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach } from 'vitest';
import { startAgent, type Agent, type AgentOptions } from '../../src/agent/agent.js';
import { createLogger, type HeldLogger } from '../../src/log.js';
import { connectAgent, type AgentClient } from './agent-client.js';

export interface AgentInProcess {
  readonly folder: string;
  readonly logger: HeldLogger;
  /** Starts an agent with a channel `host` and a channel `local`. */
  start(options: Pick<AgentOptions, 'createCoordinator'> & Partial<AgentOptions>): Promise<void>;
  connect(channel: 'host' | 'local'): Promise<AgentClient>;
  /** What is in the log. */
  log(): string;
  /** Ends all connections. */
  disconnect(): void;
  /** Stops the agent, if one runs. */
  stop(): Promise<void>;
}

export function agentInProcess(): AgentInProcess {
  let folder: string;
  let logger: HeldLogger;
  let agent: Agent | undefined;
  const clients: AgentClient[] = [];
  const tested: AgentInProcess = {
    get folder() {
      return folder;
    },
    get logger() {
      return logger;
    },
    async start(options) {
      agent = await startAgent({
        channel: { method: 'unix-listen', path: join(folder, 'host'), retry: false },
        localSocket: join(folder, 'local'),
        compat: '10.2',
        blockRpcs: [],
        allowRpcs: [],
        plainLeaseMs: 60_000,
        runtimeDir: join(folder, 'run'),
        writerFolders: [],
        logger,
        ...options,
      });
    },
    async connect(channel) {
      const client = await connectAgent(join(folder, channel));
      clients.push(client);
      return client;
    },
    log: () => readFileSync(join(folder, 'log'), 'utf8'),
    disconnect() {
      for (const client of clients.splice(0)) client[Symbol.dispose]();
    },
    async stop() {
      const running = agent;
      agent = undefined;
      await running?.stop();
    },
  };
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'fsb-agent-'));
    logger = createLogger('info', join(folder, 'log'));
  });
  afterEach(async () => {
    tested.disconnect();
    await tested.stop();
    logger.close();
    rmSync(folder, { recursive: true });
  });
  return tested;
}
