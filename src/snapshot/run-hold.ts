// `hold`: a storage command cuts while applications and filesystems of this guest are held. It is started before, behind
// a gate, since a fork of ours while everything is frozen would keep it waiting for nothing.
import { execa } from 'execa';
import { constants } from 'node:os';
import { Writable } from 'node:stream';
import { lasted, satisfies, type ConsistencyLevel, type FreezeReport } from '../consistency.js';
import { unlessAborted } from '../deadline.js';
import { CutError, describeError } from '../errors.js';
import type { SnapshotMachine } from './machine.js';
import { Requester, type Hold } from './requester.js';
import type { Signals } from './run-exec.js';
import { refuseOthers } from './same-filesystems.js';
import { readSources } from './sources.js';
import { tellWriters } from './tell-writers.js';

const GATE_FD = 3;
/** A gate that closes without a word is one of an attempt that failed. */
const GATE_SCRIPT = `IFS= read -r go <&${GATE_FD} || exit 125; exec ${GATE_FD}<&-; exec "$@"`;
/** Renewed this often within one lease. */
const RENEWALS = 3;

export interface HoldCommandRequest {
  readonly paths: readonly string[];
  readonly words: readonly string[];
  readonly leaseMs: number;
  readonly require: ConsistencyLevel | 'auto';
}

export interface HoldResult {
  readonly exitCode: number;
  readonly report: FreezeReport;
}

/**
 * Throws a QuiesceError if the guest could not be held, a CutError if the agent sees other filesystems at the mount points
 * than we do: the command was not run then. Throws a CutError if the hold did not last as long as the command, however that
 * ended, or if the level is below the one required once all is let go.
 */
export async function runHold(
  machine: SnapshotMachine,
  { paths, words, leaseMs, require }: HoldCommandRequest,
  signals: Signals,
): Promise<HoldResult> {
  const { options } = machine;
  const { table } = await options.look('own');
  const filesystems = new Set(readSources(paths, table, 'trees').flatMap(({ filesystem }) => filesystem ?? []));
  if (filesystems.size === 0) throw new CutError('E_SOURCE', `nothing that can be held lies at ${paths.join(', ')}`);
  await using requester = await Requester.connect(options.agentSocket);
  const child = startGated(words);
  let hold: Hold;
  try {
    const mountpoints = [...filesystems].map(({ mountpoint }) => mountpoint);
    const name = `fsfreeze-snapshot hold, pid ${process.pid}`;
    const holding = requester.hold({ requester: name, mountpoints, leave: [], leaseMs, require });
    // After a signal the end of the connection ends the hold, however far it is.
    hold = await unlessAborted(holding, signals.abort, () => {
      return new CutError('E_INTERRUPTED', 'interrupted: the command was not run');
    });
    // Nothing was done yet: the end of the connection is the thaw.
    refuseOthers(hold.report, [...filesystems]);
  } catch (error) {
    child.close();
    await child.exit;
    throw error;
  }
  child.open();
  const stop = signals.forward(child.kill);
  const renewing = setInterval(() => {
    // What the report says of the lease counts, and a renewal that fails ends in it.
    hold.renew(leaseMs).catch(() => undefined);
  }, leaseMs / RENEWALS);
  let exitCode: number;
  try {
    exitCode = await child.exit;
  } finally {
    clearInterval(renewing);
    stop();
  }
  const report = await hold.thaw();
  if (!lasted(report))
    throw new CutError('E_HOLD_LOST', `the hold did not last as long as the command: ${report.evidence.join('; ')}`, {
      facts: { exitCode, report },
    });
  if (require !== 'auto' && !satisfies(report.level, require))
    throw new CutError(
      'E_BELOW_REQUIRED',
      `expected level ${require} to the end, reached ${report.level}: ${report.evidence.join('; ')}`,
      { facts: { exitCode, report } },
    );
  const isGood = exitCode === 0 && report.level === 'application';
  await tellWriters(machine, hold.session, isGood ? 'ok' : 'failed', signals.abort);
  return { exitCode, report };
}

function startGated(words: readonly string[]) {
  const child = execa('/bin/sh', ['-c', GATE_SCRIPT, 'sh', ...words], {
    stdio: ['inherit', 'inherit', 'inherit', 'pipe'],
    buffer: false,
    reject: false,
    cleanup: false,
    // execa would kill it 5 s after a SIGTERM that is only passed on: it may take its time to end.
    forceKillAfterDelay: false,
  });
  const gate = child.stdio[GATE_FD];
  if (!(gate instanceof Writable)) throw new Error('the gate of the command is no pipe');
  gate.on('error', () => undefined);
  return {
    open: (): void => {
      gate.end('go\n');
    },
    close: (): void => {
      gate.end();
    },
    kill: (signal: NodeJS.Signals): void => {
      child.kill(signal);
    },
    exit: child.then(({ exitCode, signal, originalMessage }) => {
      if (exitCode !== undefined) return exitCode;
      if (signal !== undefined) return 128 + constants.signals[signal];
      throw new CutError('E_PROGRAM', `the command could not be started: ${describeError(originalMessage)}`);
    }),
  };
}
