// The freezer as a process: found by its socket, started where no service manager did it, killed when it is silent past
// the lease, and run as `--thaw-marked` for what a dead freezer left. Speaking with it: client.ts.
import { execa } from 'execa';
import { existsSync } from 'node:fs';
import { Deadline, Timer } from '../../deadline.js';
import { describeError, ThawUnconfirmedError, UnreachableError } from '../../errors.js';
import { processStat } from '../../linux/process-stat.js';
import { connectToSocket, type FreezerConnection, type FreezerIdentity } from './client.js';
import type { FreezerEvents } from './exchange.js';
import { markedSessions, markerFiles } from './markers.js';

/**
 * A freezer that the service manager keeps is back within this after its end: RestartSec=0, and what it thaws first.
 */
const UNIT_RETRY_MS = 5_000;
const RETRY_STEP_MS = 50;
/** The first path exists while systemd runs; at the others the freezer's unit is looked for. */
const serviceManagerPaths: ServiceManagerPaths = {
  running: '/run/systemd/system',
  units: ['/etc', '/run', '/usr/lib', '/lib'].map((root) => `${root}/systemd/system/fsfreeze-freezer.service`),
};

/** A freezer that is started waits for a predecessor that is starting, or still thawing. */
const START_LIMIT_MS = 30_000;
/** `--thaw-marked` has bounds of its own of about 10 s for each thing it waits for. */
const THAW_MARKED_LIMIT_MS = 60_000;

export interface ServiceManagerPaths {
  readonly running: string;
  readonly units: readonly string[];
}

export interface FreezerPlaces {
  readonly socketPath: string;
  readonly markerPath: string;
  /** The program; without it nothing is started and nothing thawed by marker. */
  readonly freezerPath: string | undefined;
  /** Default: systemd's. */
  readonly serviceManager?: ServiceManagerPaths;
  /** How long the service manager's freezer is waited for before another is started. Default `UNIT_RETRY_MS`. */
  readonly unitRetryMs?: number;
}

/**
 * Connects; starts the freezer, in a session of its own, if nobody answers. A freezer that the service manager keeps is
 * waited for first: one of ours would be in our control group, and end with it. Throws an UnreachableError.
 */
export async function connectFreezer(places: FreezerPlaces, events: FreezerEvents): Promise<FreezerConnection> {
  const deadline = new Deadline(isManaged(places) ? (places.unitRetryMs ?? UNIT_RETRY_MS) : 0);
  for (;;) {
    try {
      return await connectToSocket(places.socketPath, events);
    } catch (error) {
      if (deadline.passed) {
        if (places.freezerPath === undefined) throw error;
        break;
      }
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_STEP_MS));
  }
  await startFreezer(places, places.freezerPath);
  return await connectToSocket(places.socketPath, events);
}

function isManaged({ serviceManager = serviceManagerPaths }: FreezerPlaces): boolean {
  return existsSync(serviceManager.running) && serviceManager.units.some((path) => existsSync(path));
}

// It goes into the background, in a session of its own, once it serves: its exit is the signal to connect.
async function startFreezer(places: FreezerPlaces, path: string): Promise<void> {
  const { exitCode, stderr, failed } = await run(path, placeWords(places), START_LIMIT_MS);
  const ALREADY_RUNNING = 3;
  if (failed && exitCode !== ALREADY_RUNNING)
    throw new UnreachableError('E_FREEZER', `the freezer ${path} could not be started: ${stderr}`);
}

/**
 * Thaws what a dead freezer left frozen, by its markers. Nothing else may thaw: the descriptors are gone with that
 * freezer. With `session` it returns as soon as no filesystem of that session is marked any more: what hangs of others
 * has time. Throws a ThawUnconfirmedError unless everything marked, or everything of that session, is thawed.
 */
export async function thawMarked(places: FreezerPlaces, session?: string): Promise<void> {
  const { freezerPath, markerPath } = places;
  const isLeft = (): boolean =>
    session === undefined
      ? markerFiles(markerPath).length > 0
      : existsSync(markerPath) || markedSessions(markerPath).some((marked) => marked === '' || marked === session);
  if (markerFiles(markerPath).length === 0) return;
  if (freezerPath === undefined) {
    if (!isLeft()) return;
    throw new ThawUnconfirmedError(
      'E_THAW',
      `the freezer is gone, ${markerPath} says what may still be frozen, and no freezer program is set to thaw it`,
    );
  }
  const running = run(freezerPath, ['--thaw-marked', ...placeWords(places)], THAW_MARKED_LIMIT_MS);
  const timer = new Timer();
  let result: Awaited<ReturnType<typeof run>> | undefined;
  do result = await Promise.race([running, timer.after(RETRY_STEP_MS, undefined)]);
  while (result === undefined && isLeft());
  timer.clear();
  // A service manager may have run it at the same time; what counts is that nothing is marked any more.
  if (result?.failed === true && isLeft())
    throw new ThawUnconfirmedError('E_THAW', `${freezerPath} --thaw-marked: ${result.stderr}`);
}

function placeWords({ socketPath, markerPath }: FreezerPlaces): string[] {
  return ['--socket', socketPath, '--marker', markerPath];
}

// A resident child must be left no pipe to keep open. Only stderr is one, and it is read until the parent exits.
async function run(
  path: string,
  args: readonly string[],
  limitMs: number,
): Promise<{ exitCode: number | undefined; stderr: string; failed: boolean }> {
  const result = await execa(path, [...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
    timeout: limitMs,
    killSignal: 'SIGKILL',
    detached: true,
    cleanup: false,
    reject: false,
    env: {},
    extendEnv: false,
    cwd: '/',
  });
  const { exitCode, failed, stderr } = result;
  const said = stderr.trim().split('\n')[0];
  return { exitCode, failed, stderr: said === undefined || said === '' ? describeError(result) : said };
}

/**
 * Kills a freezer that does not answer, if the process is still the one that said hello: its pid may be another's by
 * now. True if a signal was sent.
 */
export function killFreezer({ pid, startTime }: FreezerIdentity): boolean {
  if (pid <= 1 || pid === process.pid || processStat(pid)?.startTime !== startTime) return false;
  try {
    process.kill(pid, 'SIGKILL');
    return true;
  } catch {
    return false;
  }
}
