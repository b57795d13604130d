// What a database booted from a cut holds, against what the load on the host knows.
import { bootGuest } from '../../src/testing/index.js';
import type { DiskFile } from '../../src/testing/disks.js';
import type { QemuGuest } from '../../src/testing/index.js';
import { committedIds, type Transaction } from './load.js';

/** The disks of a cut: what QEMU calls the layers below the overlays. */
export interface Cut {
  readonly root: DiskFile;
  readonly data: DiskFile;
}

const START_LIMIT_S = 90;

/** Boots a guest from a cut under overlays of its own: the cut stays as it is. */
export async function bootCut({ root, data }: Cut): Promise<QemuGuest> {
  return await bootGuest({ bases: { root, data } });
}

/**
 * Undefined once the server accepts connections; why it refuses when it does. Throws if it does neither in time: that
 * says nothing of the data.
 */
export async function refusalOf(guest: QemuGuest): Promise<string | undefined> {
  const { unit, binaries } = guest.image.postgresql;
  const script = `systemctl start --no-block ${unit}; n=0
    until ${binaries}/pg_isready -q -h 127.0.0.1; do
      n=$((n+1)); [ $n -lt ${START_LIMIT_S * 4} ] || exit 2
      ! systemctl is-failed -q ${unit} || exit 1
      sleep 0.25
    done`;
  const { exitCode } = await guest.exec(script, { timeoutMs: START_LIMIT_S * 2000, check: false });
  if (exitCode === 0) return undefined;
  // The journal begins with this boot; the server's own log came with the cut.
  const log = await guest.exec(`journalctl -b -o cat --no-pager -u ${unit} | grep -aE 'PANIC|FATAL' | tail -n 1`);
  const words = log.stdout.trim();
  if (exitCode !== 1 || words === '')
    throw new Error(`PostgreSQL neither started nor said why not: exit code ${exitCode}`);
  return words;
}

export interface Contents {
  /** Acknowledged before `fromMs`, and not there. */
  readonly missing: number;
  /** There, although begun after `untilMs` or unknown to the load. */
  readonly foreign: number;
  /** Acknowledged before `fromMs`. */
  readonly acknowledgedBefore: number;
}

/** Compares a database with the transactions the load remembers, around a cut made between `fromMs` and `untilMs`. */
export async function compareContents(
  port: number,
  transactions: readonly Transaction[],
  fromMs: number,
  untilMs: number,
): Promise<Contents> {
  const there = await committedIds(port);
  const before = transactions.filter(({ acknowledgedMs = Infinity }) => acknowledgedMs < fromMs);
  const possible = new Set(transactions.filter(({ sentMs }) => sentMs <= untilMs).map(({ id }) => id));
  return {
    missing: before.filter(({ id }) => !there.has(id)).length,
    foreign: [...there].filter((id) => !possible.has(id)).length,
    acknowledgedBefore: before.length,
  };
}

/** What pg_amcheck says against the database's tables and indexes; empty if nothing. */
export async function amcheckFaults(guest: QemuGuest): Promise<string> {
  const command = `runuser -u postgres -- ${guest.image.postgresql.binaries}/pg_amcheck --all --install-missing --heapallindexed 2>&1`;
  const { exitCode, stdout } = await guest.exec(command, { timeoutMs: 120_000, check: false });
  return exitCode === 0 ? '' : `pg_amcheck exits ${exitCode}: ${stdout}`;
}
