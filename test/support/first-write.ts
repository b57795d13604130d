// Writes that wait for a thaw, and when they reached the disk on the guest's own clock: on a busy host its time alone
// says how long a guest was held. They live in the guest, and so survive a pause or a save of it.
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Guest } from '../../src/testing/index.js';

/** A guest, or a domain of libvirt. */
export type Runs = Pick<Guest, 'exec' | 'start'>;

// One process for each directory. It tells (to tmpfs) when it tries, and when the write was durable.
const PROBE = `
use strict; use Fcntl; use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);
my ($out, @dirs) = @ARGV;
for my $dir (@dirs) {
  next if fork;
  open(my $tell, '>>', $out) or die; $tell->autoflush(1);
  print $tell "begun $dir\\n";
  sysopen(my $file, "$dir/first-write", O_WRONLY | O_CREAT | O_DSYNC) or die "$dir: $!";
  syswrite($file, "x" x 512) == 512 or die "$dir: $!";
  printf $tell "%.6f %s\\n", clock_gettime(CLOCK_MONOTONIC), $dir;
  exit 0;
}
`;

/** Names the writes, so that they can be asked for in a guest restored from the one they were begun in. */
export interface FirstWrites {
  readonly file: string;
  readonly directories: readonly string[];
}

/** Begins a durable write in each directory, each in a process of its own. */
export async function beginWrites(guest: Runs, directories: readonly string[]): Promise<FirstWrites> {
  const file = `/run/first-write-${randomUUID()}`;
  await guest.start(['/usr/bin/perl', '-MIO::Handle', '-e', PROBE, file, ...directories]);
  await guest.exec(`until [ "$(grep -c begun ${file})" = ${directories.length} ]; do sleep 0.02; done 2>/dev/null`);
  return { file, directories };
}

/** Seconds of CLOCK_MONOTONIC of the guest at which each write that is done was done. */
export async function writesDone(guest: Runs, { file }: FirstWrites): Promise<readonly number[]> {
  const { stdout } = await guest.exec(['/bin/cat', file]);
  return stdout
    .split('\n')
    .filter((line) => /^\d/.test(line))
    .map((line) => Number(line.split(' ')[0]));
}

/** Waits for the last of them. Throws after `timeoutMs` of the host. */
export async function lastWrite(guest: Runs, writes: FirstWrites, timeoutMs: number): Promise<number> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const done = await writesDone(guest, writes);
    if (done.length === writes.directories.length) return Math.max(...done);
    if (performance.now() > end)
      throw new Error(`${done.length} of ${writes.directories.length} writes were done within ${timeoutMs} ms`);
    await sleep(50);
  }
}

/** Seconds of CLOCK_MONOTONIC of the guest (it is never suspended, so the same as /proc/uptime). */
export async function guestSeconds(guest: Runs): Promise<number> {
  return Number((await guest.exec(['/bin/cat', '/proc/uptime'])).stdout.split(' ')[0]);
}
