// Faults at a named moment: a process of the guest killed or stopped, a disk stalled. The guest has methods to pause and
// kill it as a whole, socket-proxy.ts has the faults of a connection, and the host tool is the test's own child. A moment
// is a shell condition in the guest, polled there without a pause, so that a fault hits it within about a millisecond and
// needs no answer from the program under test.
import * as v from 'valibot';
import { BridgeError } from '../errors.js';
import type { Guest } from './guest.js';
import type { QemuGuest } from './qemu/qemu-guest.js';

/** Names a process of the guest: the main process of a unit, or the number in a file. */
export type ProcessName = { readonly unit: string } | { readonly pidFile: string };

/** Its process id. Throws BridgeError `E_NO_PROCESS` when it does not run. */
export async function guestPid(guest: Pick<Guest, 'exec'>, name: ProcessName): Promise<number> {
  const command =
    'unit' in name
      ? ['/bin/systemctl', 'show', '--value', '--property=MainPID', name.unit]
      : ['/bin/cat', name.pidFile];
  const { stdout } = await guest.exec(command);
  const pid = Number.parseInt(stdout, 10);
  if (!(pid > 0)) throw new BridgeError('E_NO_PROCESS', `${JSON.stringify(name)}: no such process in the guest`);
  return pid;
}

export type FaultSignal = 'KILL' | 'STOP' | 'CONT' | 'TERM';

/** Sends a signal now. Throws when the process is gone. */
export async function signalGuest(guest: Pick<Guest, 'exec'>, pid: number, signal: FaultSignal): Promise<void> {
  await guest.exec(['/bin/kill', '-s', signal, String(pid)]);
}

/** A fault or an observation that waits for its moment. */
export interface Armed {
  /**
   * Resolves when the moment came and the fault was done. Throws BridgeError `E_FAULT_MISSED` when the moment did not
   * come in time, or the fault could not be done: a test that goes on then has tested nothing.
   */
  readonly fired: Promise<void>;
}

const MARKER = '/run/fsfreeze-bridge/frozen';

/**
 * Moments that the freezer's marker shows (qga/freezer/README.md). When writers are held, only a writer knows: let one
 * of the test's own make a file under /run, and take `[ -e FILE ]`.
 */
export const MOMENTS = {
  /** The first filesystem is about to be frozen, or is. */
  freezing: `[ -e ${MARKER} ]`,
  /** Every FIFREEZE has returned, and at least one filesystem is frozen. */
  frozen:
    '{ any=; { read -r head && while read -r state rest; do' +
    ' case $state in frozen) any=1;; refused) ;; *) any=; break;; esac; done;' +
    ` } <${MARKER} && [ -n "$any" ]; }`,
} as const;

/**
 * Arms a watcher in the guest: as soon as `condition` holds (a line for /bin/sh, best of its built-ins alone: `[ -e F ]`),
 * `action` is run there, at once and without a fork if it is built in (`kill -KILL 123`). Resolves when the watcher runs.
 */
export async function armInGuest(
  guest: Guest,
  condition: string,
  action: string,
  { timeoutMs = 30_000 }: { readonly timeoutMs?: number } = {},
): Promise<Armed> {
  const ready = `/run/fsb-armed-${crypto.randomUUID()}`;
  // The limit is a shell of its own that kills the watcher: asking for the time would fork at each turn.
  const script = [
    `me=$$; ( sleep ${timeoutMs / 1000}; kill -KILL $me ) >/dev/null 2>&1 & limit=$!`,
    `: >${ready}`,
    `until ${condition}; do :; done 2>/dev/null`,
    action,
    'code=$?; kill $limit; exit $code',
  ].join('\n');
  const watcher = await guest.start(script);
  const fired = (async () => {
    const { exitCode, stderr } = await watcher.wait(timeoutMs + 10_000);
    await guest.exec(['/bin/rm', '-f', ready]);
    if (exitCode !== 0) {
      const why = exitCode === 137 ? `not within ${timeoutMs} ms` : `then ${action}: exit code ${exitCode}: ${stderr}`;
      throw new BridgeError('E_FAULT_MISSED', `moment "${condition}" in the guest: ${why}`);
    }
  })();
  fired.catch(() => undefined); // whoever armed it looks at it when the act is over
  await guest.exec(`until [ -e ${ready} ]; do :; done`);
  return { fired };
}

/** Arms a signal for a process of the guest: resolved to a process id now, sent at the moment. */
export async function armSignal(
  guest: Guest,
  condition: string,
  name: ProcessName,
  signal: FaultSignal,
  options?: { readonly timeoutMs?: number },
): Promise<Armed> {
  return await armInGuest(guest, condition, `kill -${signal} ${await guestPid(guest, name)}`, options);
}

const Blocks = v.array(v.looseObject({ qdev: v.optional(v.string()) }));

/**
 * Stalls the writes of a disk (one byte per second; reads and flushes go on) until the result is disposed.
 * QEMU lifts throttling while it drains, so a cut or a pause lets the waiting writes through.
 */
export async function stallDisk(
  guest: QemuGuest,
  name: string,
): Promise<AsyncDisposable & { readonly device: string }> {
  guest.requires('monitor');
  const { device } = guest.disk(name);
  const blocks = v.parse(Blocks, await guest.monitor.execute('query-block'));
  const id = blocks.find(({ qdev }) => qdev === device || qdev?.startsWith(`/machine/peripheral/${device}/`))?.qdev;
  if (id === undefined) throw new BridgeError('E_NO_DISK', `QEMU has no block device for ${device}`);
  const limit = async (bytesPerSecond: number) => {
    const none = { bps: 0, bps_rd: 0, iops: 0, iops_rd: 0, iops_wr: 0 };
    await guest.monitor.execute('block_set_io_throttle', { id, ...none, bps_wr: bytesPerSecond });
  };
  await limit(1);
  return {
    device,
    [Symbol.asyncDispose]: async () => {
      await limit(0);
    },
  };
}
