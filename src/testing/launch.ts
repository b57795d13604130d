// Starts QEMU for a guest and takes hold of it: monitor, forwarded port, the first answer from inside.
import * as v from 'valibot';
import { BridgeError, UnreachableError } from '../errors.js';
import type { Reverter } from '../reverter.js';
import { Guest } from './guest.js';
import { guestPaths, lastLines } from './guest-folder.js';
import { machineArguments, type Machine } from './machine.js';
import { Monitor } from './monitor.js';
import { startQemu } from './qemu-process.js';

/**
 * Starts QEMU for `machine` and connects to its monitor; with `incoming` it waits for a state. The guest is not waited
 * for. Throws UnreachableError with QEMU's output when it ends at once.
 */
export async function launch(machine: Machine, dir: string, incoming: boolean, atEnd: Reverter): Promise<Guest> {
  const paths = guestPaths(dir);
  const qemu = await startQemu(machineArguments(machine, paths, incoming), paths.logPath);
  try {
    const early = qemu.ended.then(async () => {
      throw new UnreachableError('E_QEMU_ENDED', `QEMU ended at once: ${await qemu.output()}`);
    });
    const monitor = await Promise.race([Monitor.connect(paths.fixtureQmpPath, 20_000), early]);
    early.catch(() => undefined); // from now on a lost monitor tells it
    const postgresPort = await forwardedPort(monitor);
    return new Guest({ paths, machine, qemu, monitor, postgresPort, atEnd });
  } catch (cause) {
    await qemu.kill();
    throw cause;
  }
}

/** Waits for the stock agent of a booting guest; a failure tells what the console said last. */
export async function waitForGuest(guest: Guest, timeoutMs: number): Promise<void> {
  try {
    await guest.stockAgent.waitForPing(timeoutMs);
  } catch (cause) {
    throw new UnreachableError(
      'E_GUEST_SILENT',
      `the guest did not come up within ${timeoutMs} ms; its console: ${await lastLines(guest.consolePath)}`,
      { cause },
    );
  }
}

/** QEMU took a free port for `hostfwd=...:0`; only its human monitor tells which. */
async function forwardedPort(monitor: Monitor): Promise<number> {
  const text = v.parse(v.string(), await monitor.execute('human-monitor-command', { 'command-line': 'info usernet' }));
  const port = /TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s/.exec(text)?.[1];
  if (port === undefined) throw new BridgeError('E_HOSTFWD', `no forwarded port in QEMU's answer: ${text}`);
  return Number(port);
}
