#!/usr/bin/env node
// fsfreeze-agent: settings to agent, signals and failures to a way out that thaws first. Exit codes are qemu-ga's: 0
// after SIGTERM or SIGINT, 1 for everything it cannot start or go on with.
import { startAgent, type Agent } from '../../agent/agent.js';
import { coordinatorOptions } from '../../agent/freeze-options.js';
import { recover } from '../../agent/recovery.js';
import { withLimit } from '../../deadline.js';
import { describeError } from '../../errors.js';
import { createCoordinator } from '../../freeze/coordinator.js';
import { createLogger, type HeldLogger } from '../../log.js';
import { readInvocation, type Settings } from './options.js';

/** For a thaw after a failure of our own: the freezer thaws anyway when we are gone. */
const lastThawLimitMs = 3000;

async function main(): Promise<void> {
  const invocation = readInvocation(process.argv.slice(2));
  if (invocation.kind === 'print') {
    if (invocation.errorText !== undefined) process.stderr.write(invocation.errorText);
    process.stdout.write(invocation.text);
    process.exitCode = invocation.exitCode;
    return;
  }
  const { settings } = invocation;
  const logger = createLogger(settings.verbose ? 'debug' : settings.bridge['log-level'], settings.logfile);
  await serve(settings, logger);
}

async function serve(settings: Settings, logger: HeldLogger): Promise<void> {
  const { bridge, compat, blockRpcs, allowRpcs, method, path, retryPath: retry } = settings;
  const { log } = logger;
  const signalled = new Promise<string>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.once(signal, resolve);
  });
  const freezeOptions = coordinatorOptions(settings, log);
  // What a predecessor froze may be what the log lies on.
  logger.hold();
  const { thawed: recovered } = await recover(freezeOptions, log);
  if (recovered === undefined) logger.release();
  const localSocket = bridge['local-socket'] ?? `${bridge['runtime-dir']}/agent.sock`;
  const agent = await startAgent({
    channel: { method, path, retry },
    ...(localSocket === 'none' ? {} : { localSocket }),
    compat,
    blockRpcs,
    allowRpcs,
    policy: bridge.policy,
    ...(bridge['also-allow'] === undefined ? {} : { alsoAllow: bridge['also-allow'] }),
    plainLeaseMs: bridge['lease-ms'],
    runtimeDir: bridge['runtime-dir'],
    ...(recovered === undefined ? {} : { recovered }),
    writerFolders: freezeOptions.writerFolders,
    logger,
    createCoordinator: (wiring) => createCoordinator({ ...freezeOptions, ...wiring }),
  });
  for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
    process.on(event, (error: unknown) => {
      log.fatal({ event, error: error instanceof Error ? error.stack : String(error) }, 'failed, thawing');
      void endAfterFailure(agent);
    });
  }
  const end = await Promise.race([signalled, agent.lost]);
  if (end instanceof Error) log.error({ error: describeError(end) }, 'host channel lost');
  else log.info({ signal: end }, 'ending');
  await agent.stop();
  logger.close();
  process.exit(end instanceof Error ? 1 : 0);
}

// Lines held back are lost if the thaw is: writing them to a frozen filesystem would block for ever.
async function endAfterFailure(agent: Agent): Promise<void> {
  try {
    await withLimit('the thaw after a failure', lastThawLimitMs, agent.stop());
  } catch {
    // The connection to the freezer closes with us, and then it thaws.
  }
  process.exit(1);
}

main().catch((error: unknown) => {
  process.stderr.write(`fsfreeze-agent: ${describeError(error)}\n`);
  process.exit(1);
});
