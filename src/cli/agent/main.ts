#!/usr/bin/env node
// fsfreeze-agent: settings to agent, signals and failures to a way out that thaws first. Exit codes are qemu-ga's: 0
// after SIGTERM or SIGINT, 1 for everything it cannot start or go on with.
import { startAgent, type Agent } from '../../agent/agent.js';
import { coordinatorOptions } from '../../agent/freeze-options.js';
import { recover } from '../../agent/recovery.js';
import { withLimit } from '../../deadline.js';
import { writePidFile } from '../../agent/pid-file.js';
import { describeError, UsageError } from '../../errors.js';
import { createCoordinator } from '../../freeze/coordinator.js';
import { createLogger, type HeldLogger } from '../../log.js';
import { daemonize, readiness } from './daemonize.js';
import { readInvocation, type Settings } from './options.js';

/** For a thaw after a failure of our own: the freezer thaws anyway when we are gone. */
const lastThawLimitMs = 3000;

/** Only in the daemon that `-d` has started. */
const daemon = readiness(process.env);

async function main(): Promise<void> {
  const invocation = readInvocation(process.argv.slice(2));
  if (invocation.kind === 'print') {
    if (invocation.errorText !== undefined) process.stderr.write(invocation.errorText);
    process.stdout.write(invocation.text);
    process.exitCode = invocation.exitCode;
    return;
  }
  const { settings } = invocation;
  if (settings.daemonize && daemon === undefined) {
    const failure = await daemonize(settings.activated?.fd);
    if (failure !== undefined) throw new UsageError('E_DAEMON', failure);
    return;
  }
  if (daemon === undefined) {
    await serve(settings, openLog(settings));
    return;
  }
  process.umask(0o077);
  process.chdir('/');
  const pidFile = await writePidFile(settings.pidfile);
  process.once('exit', () => {
    pidFile.release();
  });
  await serve(settings, openLog(settings));
}

// Nothing on standard error when all is well, unless it is the journal.
function openLog({ verbose, bridge, logfile }: Settings): HeldLogger {
  const collected = logfile !== undefined || process.env['JOURNAL_STREAM'] !== undefined;
  return createLogger(verbose ? 'debug' : (bridge['log-level'] ?? (collected ? 'info' : 'warn')), logfile);
}

async function serve(settings: Settings, logger: HeldLogger): Promise<void> {
  const { bridge, compat, blockRpcs, allowRpcs, method, path, activated, reportVersion, retryPath: retry } = settings;
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
    channel: { method, path, retry, ...(activated === undefined ? {} : { activated }) },
    ...(reportVersion === undefined ? {} : { reportVersion }),
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
  daemon?.ready();
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
  // SIGHUP ends qemu-ga as it ends any program: here after the thaw.
  process.exit(end instanceof Error ? 1 : end === 'SIGHUP' ? 129 : 0);
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
  if (daemon === undefined) process.stderr.write(`fsfreeze-agent: ${describeError(error)}\n`);
  else daemon.failed(describeError(error));
  process.exit(1);
});
