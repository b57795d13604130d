// What a database booted from a cut holds, against what the load on the host knows.
import { bootGuest } from '../../src/testing/boot.js';
import type { DiskFile } from '../../src/testing/disks.js';
import type { Guest } from '../../src/testing/guest.js';
import { committedIds, type Transaction } from './load.js';

/** The disks of a cut: what QEMU calls the layers below the overlays. */
export interface Cut {
  readonly root: DiskFile;
  readonly data: DiskFile;
}

const START_LIMIT_S = 90;
const UNIT = 'postgresql@15-main.service';

/** Boots a guest from a cut under overlays of its own: the cut stays as it is. */
export async function bootCut({ root, data }: Cut): Promise<Guest> {
  return await bootGuest({ bases: { root, data } });
}

/**
 * Undefined once the server accepts connections; why it refuses when it does. Throws if it does neither in time: that
 * says nothing of the data.
 */
export async function refusalOf(guest: Guest): Promise<string | undefined> {
  const script = `n=0
    until /usr/lib/postgresql/15/bin/pg_isready -q -h 127.0.0.1; do
      n=$((n+1)); [ $n -lt ${START_LIMIT_S * 4} ] || exit 2
      ! systemctl is-failed -q ${UNIT} || exit 1
      sleep 0.25
    done`;
  const { exitCode } = await guest.exec(script, { timeoutMs: START_LIMIT_S * 2000, check: false });
  if (exitCode === 0) return undefined;
  // The journal begins with this boot; the server's own log came with the cut.
  const log = await guest.exec(`journalctl -b -o cat --no-pager -u ${UNIT} | grep -aE 'PANIC|FATAL' | tail -n 1`);
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
export async function amcheckFaults(guest: Guest): Promise<string> {
  const command =
    'runuser -u postgres -- /usr/lib/postgresql/15/bin/pg_amcheck --all --install-missing --heapallindexed 2>&1';
  const { exitCode, stdout } = await guest.exec(command, { timeoutMs: 120_000, check: false });
  return exitCode === 0 ? '' : `pg_amcheck exits ${exitCode}: ${stdout}`;
}
