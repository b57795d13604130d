// Watches whether a guest takes writes, over time and on its own clock: one process for each directory writes durably every
// 50 ms, and tells (to tmpfs) when each write was done. That is light enough not to disturb what is measured.
import { randomUUID } from 'node:crypto';
import type { Runs } from './first-write.js';

const RECORDER = `
use strict; use Fcntl; use IO::Handle; use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC sleep);
my ($out, @dirs) = @ARGV;
for my $dir (@dirs) {
  next if fork;
  sysopen(my $file, "$dir/write-gaps", O_WRONLY | O_CREAT | O_DSYNC) or die "$dir: $!";
  open(my $tell, '+>', "$out" . ($dir =~ s,/,_,gr)) or die;
  $tell->autoflush(1);
  my ($last, $longest) = (clock_gettime(CLOCK_MONOTONIC), 0);
  while (1) {
    sysseek($file, 0, 0); syswrite($file, "x" x 512) == 512 or die "$dir: $!";
    my $now = clock_gettime(CLOCK_MONOTONIC);
    $longest = $now - $last if $now - $last > $longest;
    $last = $now;
    seek($tell, 0, 0); printf $tell "%014.3f %09.3f\\n", $last, $longest;
    sleep 0.05;
  }
}
`;

export interface WriteGaps extends AsyncDisposable {
  /** Seconds of the guest without a write on the directory where it is longest: now, and the longest that is over. */
  now(): Promise<{ readonly openS: number; readonly longestS: number }>;
}

/** Begins to write in each directory, until it is disposed or the guest ends. */
export async function recordWrites(guest: Runs, directories: readonly string[]): Promise<WriteGaps> {
  const out = `/run/write-gaps-${randomUUID()}`;
  const recorder = await guest.start(['/usr/bin/perl', '-e', RECORDER, out, ...directories]);
  const ready = `until [ "$(cat ${out}* 2>/dev/null | wc -l)" = ${directories.length} ]; do sleep 0.02; done`;
  await guest.exec(ready);
  return {
    async now() {
      const { stdout } = await guest.exec(`cat /proc/uptime ${out}*`);
      const [uptime = '', ...lines] = stdout.trim().split('\n');
      const at = Number(uptime.split(' ')[0]);
      const rows = lines.map((line) => line.split(' ').map(Number));
      if (rows.length !== directories.length) throw new Error(`writes are not recorded any more: ${stdout}`);
      return {
        openS: Math.max(...rows.map(([last = NaN]) => at - last)),
        longestS: Math.max(...rows.map(([, longest = NaN]) => longest)),
      };
    },
    [Symbol.asyncDispose]: async () => {
      await recorder.kill();
    },
  };
}
