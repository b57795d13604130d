// What the oracle has to know of an application: how it is started, written to, read and checked in a guest. Lines are for
// the guest's shell, as root.
import type { GuestImage } from '../../src/testing/index.js';
import type { Source } from './load/source.js';

/** In the guest, on tmpfs: the load and its log, sockets. Nothing of it is on a disk that is cut. */
export const MEMORY = '/run/oracle';
/** On the root disk, and on the data disk: an application with files on both is broken by disks that are cut apart. */
export const ON_ROOT = '/var/lib/oracle';
export const ON_DATA = '/srv/data/oracle';

/** One after the other of a client's operations on one table, database file or server. */
export interface Stream extends Source {
  /** Whether its writer lets nobody write; otherwise it says that the application recovers what it acknowledged. */
  readonly held: boolean;
  /** Prints what is there: a line `CLIENT NUMBER` for each operation. */
  readonly contents: string;
}

export interface Engine {
  readonly name: string;
  readonly streams: readonly Stream[];
  /** Prints which version it is. */
  readonly version: string;
  /** Makes its files, once in an image. */
  readonly install: string;
  /** Starts it, and ends when it answers. On a copy this is what recovers it. */
  readonly start: string;
  /** Makes its tables anew, and empty. */
  readonly reset: string;
  /** The engine's own checker of files that no server has open; prints what it finds and fails then. */
  readonly checkFiles?: string;
  /** The engine's own checker; prints what it finds and fails then. */
  readonly check: string;
  /** The writer that speaks for it, and a hook in its place whose hold is gone when it has ended. */
  readonly lost?: { readonly writer: string; readonly hook: string };
}

export type EngineFor = (image: GuestImage) => Engine;

/** Starts a server as a unit, and waits for `ready`; fails with the server's last words when it ends instead. */
export function startServer(unit: string, command: string, ready: string): string {
  return `systemctl reset-failed ${unit} 2>/dev/null
systemd-run --quiet --unit=${unit} --property=LimitNOFILE=10000 ${command} || exit 1
until ${ready} >/dev/null 2>&1; do
  systemctl is-active -q ${unit} || { journalctl -o cat --no-pager -u ${unit} | tail -n 12; exit 1; }
  sleep 0.05
done`;
}
