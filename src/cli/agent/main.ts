#!/usr/bin/env node
// fsfreeze-agent: starts the agent from its settings, and takes signals and failures to a way out that thaws first.
// Exit codes are qemu-ga's: 0 after SIGTERM or SIGINT, 1 for everything it cannot start or go on with. Under our unit
// (--service) there is one more, for an error that no start anew will mend.
import { release } from 'node:os';
import { resolve } from 'node:path';
import { defined } from '../../defined.js';
import { startAgent, type Agent } from '../../agent/agent.js';
import { coordinatorOptions } from '../../agent/freeze-options.js';
import { checkKernel } from '../../agent/oldest-kernel.js';
import { recoverPredecessor } from '../../agent/recovery.js';
import { withLimit } from '../../deadline.js';
import { writePidFile } from '../../agent/pid-file.js';
import { explainTakenPort, hasStuckPredecessor } from '../../agent/taken-port.js';
import { describeError, UsageError } from '../../errors.js';
import { createCoordinator } from '../../freeze/coordinator.js';
import { createLogger, type HeldLogger } from '../../log.js';
import { checkConfiguration } from './check-config.js';
import { describeCheck } from './check-text.js';
import { daemonize, readiness } from './daemonize.js';
import { readInvocation } from './options.js';
import type { Settings } from './settings.js';
import { tellDistribution, tellLeftFolders, tellUnknownCommands } from './tell-settings.js';
import { watched } from './watched.js';

/** For the thaw after a failure of our own. The freezer thaws anyway when this process has gone. */
const LAST_THAW_LIMIT_MS = 3000;

/** Signals that end the agent, after the thaw. */
const endingSignals = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2'] as const;
type EndingSignal = (typeof endingSignals)[number];
/**
 * Exit codes of signals that end qemu-ga as they end any program: those by which a shell tells of it. Left to Node,
 * SIGUSR1 opens a debugger on 127.0.0.1, by which any user of the machine would be root.
 */
const exitCodes: Readonly<Partial<Record<EndingSignal, number>>> = { SIGHUP: 129, SIGUSR1: 138, SIGUSR2: 140 };

/** The units' RestartPreventExitStatus: sysexits.h's EX_CONFIG, which systemd shows by that name. */
const BAD_CONFIGURATION = 78;
/**
 * Under our unit, an agent that could not start ends this late. systemd before 254 cannot slow down, and gives up for
 * good after 30 starts in a minute (StartLimitBurst=): with this pause there are fewer. One that dies is still replaced
 * at once.
 */
const PAUSE_BEFORE_NEXT_START_MS = 2500;
const isGiven = (option: string): boolean => process.argv.slice(2).includes(option);

/** Undefined but in the daemon that `-d` has started. */
const daemon = readiness(process.env);

async function main(): Promise<void> {
  const invocation = readInvocation(process.argv.slice(2));
  if (invocation.kind === 'print') {
    if (invocation.errorText !== undefined) process.stderr.write(invocation.errorText);
    process.stdout.write(invocation.text);
    process.exitCode = invocation.exitCode;
    return;
  }
  if (invocation.kind === 'check') {
    const check = checkConfiguration(invocation.settings, invocation.configurationFile);
    process.stdout.write(invocation.json ? `${JSON.stringify(check)}\n` : describeCheck(check));
    process.exitCode = check.exitCode;
    return;
  }
  const { settings } = invocation;
  checkKernel(release());
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
  const rooted = seenFromHere(settings);
  process.chdir('/');
  const pidFile = await writePidFile(rooted.pidfile);
  process.once('exit', () => {
    pidFile.release();
  });
  await serve(rooted, openLog(rooted));
}

// A daemon works in the root, but what it was given is seen from where it was called, as in qemu-ga 10.
function seenFromHere(settings: Settings): Settings {
  const { activated, path, pidfile, logfile } = settings;
  return {
    ...settings,
    pidfile: resolve(pidfile),
    ...(logfile === undefined ? {} : { logfile: resolve(logfile) }),
    ...(activated === undefined && path !== undefined ? { path: resolve(path) } : {}),
  };
}

/** Somebody reads the log: it was asked for, or it is the journal. */
const isLogRead = ({ verbose, bridge, logfile }: Settings): boolean =>
  verbose || bridge['log-level'] !== undefined || logfile !== undefined || process.env['JOURNAL_STREAM'] !== undefined;

// On standard error nothing is told when all is well, unless it is the journal.
function openLog(settings: Settings): HeldLogger {
  const { verbose, bridge, logfile } = settings;
  return createLogger(verbose ? 'debug' : (bridge['log-level'] ?? (isLogRead(settings) ? 'info' : 'warn')), logfile);
}

async function serve(settings: Settings, ownLogger: HeldLogger): Promise<void> {
  const { bridge, compat, blockRpcs, allowRpcs, method, path, activated, reportVersion, retryPath: retry } = settings;
  const { log } = ownLogger;
  const logger = watched(ownLogger, bridge);
  const signalled = new Promise<EndingSignal>((settle) => {
    // `on`, not `once`: a second signal must not cut the thaw short.
    for (const signal of endingSignals) process.on(signal, settle);
  });
  const freezeOptions = coordinatorOptions(settings, log);
  // The log may lie on a filesystem that a predecessor froze.
  logger.hold();
  tellDistribution(settings, log);
  if (isLogRead(settings)) {
    tellUnknownCommands(settings, log);
    tellLeftFolders(settings, log);
  }
  const { thawed: recovered } = await recoverPredecessor(freezeOptions, log);
  if (recovered === undefined) logger.release();
  const localSocket = bridge['local-socket'] ?? `${bridge['runtime-dir']}/agent.sock`;
  const agent = await startAgent({
    channel: { method, retry, ...defined({ path, activated }) },
    ...defined({ reportVersion, alsoAllow: bridge['also-allow'] }),
    ...(localSocket === 'none' ? {} : { localSocket }),
    compat,
    blockRpcs,
    allowRpcs,
    policy: settings.policy,
    plainLeaseMs: bridge['lease-ms'],
    runtimeDir: bridge['runtime-dir'],
    ...defined({ recovered }),
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
  process.exit(end instanceof Error ? 1 : (exitCodes[end] ?? 0));
}

// Lines held back are lost if the thaw is: writing them to a frozen filesystem would block for ever.
async function endAfterFailure(agent: Agent): Promise<void> {
  try {
    await withLimit('the thaw after a failure', LAST_THAW_LIMIT_MS, agent.stop());
  } catch {
    // The connection to the freezer closes with us, and then it thaws.
  }
  process.exit(1);
}

main().catch((cause: unknown) => {
  const error = explainTakenPort(cause);
  const exitCode = exitCodeOf(error);
  const pauses = exitCode === 1 && isGiven('--service');
  if (pauses) for (const signal of endingSignals) process.once(signal, () => process.exit(exitCodes[signal] ?? 0));
  if (daemon === undefined) process.stderr.write(`fsfreeze-agent: ${describeError(error)}\n`);
  if (isGiven('--check-config') && isGiven('--json')) {
    process.stdout.write(`${JSON.stringify({ exitCode: BAD_CONFIGURATION, error: describeError(error) })}\n`);
  }
  // At the very end: the parent, which waits for this, finds no pid file of ours any more.
  process.once('exit', () => daemon?.failed(describeError(error)));
  if (!pauses) process.exit(exitCode);
  setTimeout(() => process.exit(exitCode), PAUSE_BEFORE_NEXT_START_MS);
});

/** 1, as qemu-ga. For our unit, a wrong call is told apart from a failure that may be over the next time. */
function exitCodeOf(error: unknown): number {
  if (isGiven('--check-config')) return BAD_CONFIGURATION;
  if (!(error instanceof UsageError)) return 1;
  return isGiven('--service') && !hasStuckPredecessor() ? BAD_CONFIGURATION : 1;
}
