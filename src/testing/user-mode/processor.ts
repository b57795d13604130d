// Chooses the processor that a user-mode guest runs on. It gets one for itself: its kernel and its processes, which are the
// host's, take turns at every system call, and across two processors everything was measured to take twice as long.
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { cacheDirectory } from '../cache.js';

/**
 * The number of a processor that we may run on and that the fewest other guests have; one of them at random if there are
 * several, since somebody else may be choosing now. Undefined where the machine does not tell.
 */
export async function quietProcessor(): Promise<number | undefined> {
  const guests = await runningGuests();
  const taken = (await Promise.all(guests.map(async (pid) => await allowedProcessors(pid)))).filter(
    (processors) => processors.length === 1,
  );
  const load = (processor: number): number => taken.filter(([only]) => only === processor).length;
  const allowed = await allowedProcessors('self');
  const least = Math.min(...allowed.map(load));
  const quiet = allowed.filter((processor) => load(processor) === least);
  return quiet[Math.floor(Math.random() * quiet.length)];
}

/** The process ids of the guests that have marked a kernel of the cache as theirs; also of some that are gone. */
async function runningGuests(): Promise<readonly string[]> {
  const kernels = path.join(cacheDirectory(), 'kernels');
  const names = await readdir(kernels).catch(() => []);
  const users = names.map(async (name) => await readdir(path.join(kernels, name, 'users')).catch(() => []));
  return (await Promise.all(users)).flat();
}

/** Source of the list's form: proc_pid_status(5), Cpus_allowed_list. */
async function allowedProcessors(pid: string): Promise<readonly number[]> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1] ?? '';
  return list.split(',').flatMap((range) => {
    const [first = NaN, last = first] = range.split('-').map(Number);
    return Array.from({ length: Math.max(0, last - first + 1) || 0 }, (_, index) => first + index);
  });
}
