// Reads the job of a domain, and how its last one ended: `virsh domjobinfo --rawstats`, lines of `name: number`. A domain
// has one job at a time, for all its disks together. Specification: virsh(1); libvirt's virDomainJobType,
// virDomainJobOperation.
import type { Virsh } from './virsh.js';

const ASK_MS = 30_000;
const BACKUP = '9';
/** virDomainJobType: bounded, unbounded. */
const running = ['1', '2'];
const COMPLETED = '3';
const CANCELLED = '5';

export interface RunningJob {
  /** Bytes. */
  readonly current: number;
  readonly total: number;
  readonly elapsedMs: number;
}

/** The job that is under way; undefined if there is none. Throws what Virsh.run does. */
export async function runningJob(virsh: Virsh): Promise<RunningJob | undefined> {
  const stats = await statsOf(virsh, []);
  if (!running.includes(stats.get('Job type') ?? '')) return undefined;
  const number = (name: string): number => Number(stats.get(name) ?? 0);
  return { current: number('disk_processed'), total: number('disk_total'), elapsedMs: number('time_elapsed') };
}

export interface EndedJob {
  /** Why it is no success; undefined if it is one. */
  readonly why: string | undefined;
  readonly elapsedMs: number;
  /** Bytes. */
  readonly total: number;
}

/** How the last job ended, if that was a backup. Throws what Virsh.run does. */
export async function endedBackup(virsh: Virsh): Promise<EndedJob | undefined> {
  const stats = await statsOf(virsh, ['--completed', '--keep-completed', '--anystats']);
  if (stats.get('operation') !== BACKUP) return undefined;
  return {
    why: whyNoSuccess(stats),
    elapsedMs: Number(stats.get('time_elapsed') ?? 0),
    total: Number(stats.get('disk_total') ?? 0),
  };
}

function whyNoSuccess(stats: ReadonlyMap<string, string>): string | undefined {
  const type = stats.get('Job type');
  const success = stats.get('success');
  if (type === COMPLETED && success === '1') return undefined;
  if (stats.has('errmsg')) return stats.get('errmsg');
  if (type === CANCELLED) return 'somebody ended it';
  return `expected job type ${COMPLETED} and success 1, found ${type ?? 'none'} and ${success ?? 'none'}`;
}

/**
 * Why the job that ended cannot be the one that was seen last and had so many bytes to copy, for people; undefined if it can.
 * Both times are by libvirt's clock, which may be set: so the time seen last counts, not the longest.
 */
export function whyAnother(ended: EndedJob, seen: RunningJob | undefined, leastBytes: number): string | undefined {
  const elapsedMs = seen?.elapsedMs ?? 0;
  const least = Math.max(leastBytes, seen?.total ?? 0);
  if (ended.elapsedMs >= elapsedMs && ended.total >= least) return undefined;
  return `expected one of at least ${least} bytes and ${elapsedMs} ms, found one of ${ended.total} bytes and ${ended.elapsedMs} ms`;
}

async function statsOf(virsh: Virsh, words: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const text = await virsh.run('domjobinfo', ['--rawstats', ...words], ASK_MS);
  return new Map(
    text.split('\n').flatMap((line): [string, string][] => {
      const at = line.indexOf(':');
      return at === -1 ? [] : [[line.slice(0, at).trim(), line.slice(at + 1).trim()]];
    }),
  );
}
