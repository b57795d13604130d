// The programs in Perl that torture -- in-guest runs in its guests. They act and note by the guest's own clock: the way
// from the host to the guest takes longer than what is looked at.

/** There while a writer is held. */
export const HELD = '/run/fsb-lab-held';

/** Accompanies each session, and is how the instants of a hold are known. */
export const LAB_WRITER = `#!/bin/sh
# fsfreeze-writer: phases=freeze thaw
# fsfreeze-writer: guarantee=none
case $1 in freeze) : >${HELD};; thaw) rm -f ${HELD};; esac
`;

/** Durable writes to each directory, one after another, each noted once it is done; and a note of time itself. */
export const WRITES = `
use strict; use Fcntl; use IO::Handle; use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC sleep);
my ($out, @dirs) = @ARGV;
for my $dir ('', @dirs) {
  next if fork;
  open(my $tell, '>', "$out/" . ($dir eq '' ? 'time' : $dir =~ s,/,_,gr)) or die; $tell->autoflush(1);
  my $file;
  if ($dir ne '') { sysopen($file, "$dir/torture", O_WRONLY | O_CREAT | O_DSYNC) or die "$dir: $!" }
  while (1) {
    if ($file) { sysseek($file, 0, 0); syswrite($file, "x" x 512) == 512 or die "$dir: $!" }
    printf $tell "%.4f\\n", clock_gettime(CLOCK_MONOTONIC);
    sleep 0.05;
  }
}
`;

/** One number, durably to the first directory, then to the second; then it is noted. */
export const ORDERED = `
use strict; use Fcntl; use IO::Handle; use Time::HiRes 'usleep';
my ($out, @dirs) = @ARGV;
open(my $tell, '>', $out) or die; $tell->autoflush(1);
my @files = map { sysopen(my $file, "$_/order", O_WRONLY | O_CREAT | O_DSYNC) or die "$_: $!"; $file } @dirs;
for (my $number = 1; ; $number++) {
  for my $file (@files) { sysseek($file, 0, 0); syswrite($file, sprintf("%09d\\n", $number)) == 10 or die "$!" }
  print $tell "$number\\n";
  usleep 5000; # the guest has one processor
}
`;

/**
 * STRIKE ACT FROM DELAY_US COMMAND...: runs the command, and tells a line of JSON.
 *
 * watch  does nothing: how long it takes, and when the writer was held
 * kill   SIGKILL that long after its start, or after the hold began
 * stop   stops its lvm while a device is suspended, for that long
 */
export const STRIKE = `
use strict; use POSIX ':sys_wait_h'; use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC usleep);
my ($act, $from, $delay, @words) = @ARGV;
my ($begun, $over, $code) = (now(), 0, -1);
my $pid = fork;
if ($pid == 0) {
  open(STDIN, '<', '/dev/null'); open(STDOUT, '>', '/run/fsb-strike.out'); open(STDERR, '>', '/run/fsb-strike.err');
  exec @words or die;
}
# As who makes a cut does: it would never run within, on the one processor.
setpriority(0, 0, -20);
sub now { clock_gettime(CLOCK_MONOTONIC) }
sub over { $over ||= waitpid($pid, WNOHANG) == $pid and $code = $? >> 8 || $? & 127 && 128 + ($? & 127); $over }
sub text { my ($file) = glob($_[0]) or return ''; open(my $in, '<', $file) or return ''; local $/; <$in> // '' }
sub held { -e '${HELD}' }
sub frozen { -e '/run/fsfreeze-bridge/frozen' }
sub where {
  return frozen() ? 'frozen' : 'writers held' if held();
  return text('/run/fsfreeze-bridge/snapshots/*/journal.json') =~ /"state": "([a-z]+)"/ ? $1 : 'before';
}
sub suspended { for (glob '/sys/block/dm-*/dm/suspended') { return 1 if text($_) =~ /1/ } 0 }
sub lvm {
  for (glob '/proc/[0-9]*/stat') { return $1 if text($_) =~ /^(\\d+) \\(lvm\\) \\S $pid / }
  undef;
}
my %told = (act => $act);
if ($act eq 'watch') {
  until (over()) { if (held()) { $told{heldAt} //= now() - $begun; $told{heldTo} = now() - $begun } usleep 500 }
} elsif ($act eq 'kill') {
  if ($from eq 'hold') { until (held() or over()) { usleep 500 } }
  my $end = now() + $delay / 1e6;
  until (over() or now() >= $end) { usleep 300 }
  $told{where} = over() ? 'after' : where();
  kill 'KILL', $pid;
  $told{at} = now();
} else {
  until (held() or over()) { usleep 500 }
  my $lvm = lvm();
  until (over() or !defined $lvm or !held()) {
    if (suspended()) {
      kill 'STOP', $lvm;
      usleep 1000 until text("/proc/$lvm/stat") =~ /\\) [TZX]/ or !-e "/proc/$lvm";
      if (suspended()) { $told{where} = 'suspended'; usleep $delay; $told{at} = now(); kill 'CONT', $lvm; last }
      kill 'CONT', $lvm;
    }
    usleep 100;
  }
}
until (over()) { usleep 1000 }
$told{took} = now() - $begun; $told{code} = $code;
print '{' . join(',', map { my $v = $told{$_}; qq("$_":) . ($v =~ /^-?[\\d.]+(e-?\\d+)?$/ ? $v + 0 : qq("$v")) } sort keys %told) . "}\\n";
`;
