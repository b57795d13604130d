// Starts QEMU for a guest, connects to its monitor and asks for its forwarded ports.
import { setTimeout as sleep } from 'node:timers/promises';
import * as v from 'valibot';
import { Deadline } from '../../deadline.js';
import { BridgeError, UnreachableError } from '../../errors.js';
import { QmpClient } from '../../qmp/client.js';
import type { Reverter } from '../../reverter.js';
import { guestPaths } from '../guest-folder.js';
import type { GuestImage } from '../guest-image.js';
import { startMachine } from '../machine-process.js';
import { machineArguments, type Machine } from './machine.js';
import { QemuGuest } from './qemu-guest.js';
import { QEMU } from './qemu-version.js';

const MONITOR_LIMIT_MS = 20_000;

export interface Launch {
  readonly image: GuestImage;
  readonly machine: Machine;
  readonly dir: string;
  /** Wait for a state instead of booting. */
  readonly incoming: boolean;
  /** Run once when QEMU has ended. */
  readonly atEnd: Reverter;
}

/**
 * Starts QEMU and connects to its monitor. The guest is not waited for. Throws UnreachableError with QEMU's output when it
 * ends at once.
 */
export async function launch({ image, machine, dir, incoming, atEnd }: Launch): Promise<QemuGuest> {
  const paths = guestPaths(dir);
  const process = await startMachine([QEMU, ...machineArguments(machine, paths, incoming)], paths.logPath);
  try {
    const early = process.ended.then(async () => {
      throw new UnreachableError('E_QEMU_ENDED', `QEMU ended at once: ${await process.output()}`);
    });
    const monitor = await Promise.race([connectMonitor(paths.fixtureQmpPath), early]);
    early.catch(() => undefined); // from now on a lost monitor tells it
    const ports = await forwardedPorts(monitor, machine.ports);
    atEnd.push('monitor', () => {
      monitor.close();
    });
    return new QemuGuest({ image, paths, machine, process, monitor, ports, atEnd });
  } catch (cause) {
    await process.kill();
    throw cause;
  }
}

/** Connects again until somebody listens: a QEMU that was just started has not made its sockets yet. */
async function connectMonitor(socket: string): Promise<QmpClient> {
  const deadline = new Deadline(MONITOR_LIMIT_MS);
  for (;;) {
    try {
      return await QmpClient.connect(socket, { timeoutMs: MONITOR_LIMIT_MS });
    } catch (cause) {
      const isNobodyThere = cause instanceof UnreachableError && cause.code === 'E_MONITOR';
      if (!isNobodyThere || deadline.passed) throw cause;
      await sleep(5);
    }
  }
}

/** QEMU took a free port for each `hostfwd=...:0`; only its human monitor tells which. */
async function forwardedPorts(monitor: QmpClient, wanted: readonly number[]): Promise<ReadonlyMap<number, number>> {
  const text = v.parse(v.string(), await monitor.execute('human-monitor-command', { 'command-line': 'info usernet' }));
  const lines = text.matchAll(/TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+(\d+)/g);
  const ports = new Map([...lines].map(([, host, guest]) => [Number(guest), Number(host)] as const));
  const missing = wanted.filter((port) => !ports.has(port));
  if (missing.length > 0) throw new BridgeError('E_HOSTFWD', `no forwarded port ${missing.join(', ')}: ${text}`);
  return ports;
}
