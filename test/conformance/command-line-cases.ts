import { defined } from '../../src/defined.js';
// Command lines for the real agents and ours, each a script of a shell in a chamber: data only. `agent` runs the agent
// to its end, `start` leaves it running as $pid; `wait_for` waits for a file; both folders for state are empty at first.

export interface CommandLineCase {
  readonly name: string;
  readonly script: string;
  /** `/etc/qemu/qemu-ga.conf`; without it there is none. */
  readonly conf?: string;
  /** For the lists in qga/README.md: the option or key it is about. */
  readonly about: string;
}

const line = (about: string, words: string, conf?: string): CommandLineCase => ({
  name: conf === undefined ? `agent ${words}` : `agent ${words} # ${conf.replaceAll('\n', '; ')}`,
  script: `agent ${words}`,
  about,
  ...defined({ conf }),
});
const lines = (about: string, ...all: readonly string[]): readonly CommandLineCase[] =>
  all.map((words) => line(about, words));
const confs = (about: string, words: string, ...all: readonly string[]): readonly CommandLineCase[] =>
  all.map((conf) => line(about, words, conf));

const everyKey = [
  '[general]',
  'daemon=true',
  'method=unix-listen',
  'path=/run/conf.sock',
  'logfile=/run/conf.log',
  'pidfile=/run/conf.pid',
  'fsfreeze-hook=/run/conf-hook',
  'statedir=/run/conf-state',
  'verbose=true',
  'retry-path=true',
  'block-rpcs=guest-a,guest-b',
].join('\n');

const noFreeze = '-b guest-fsfreeze-freeze,guest-fsfreeze-freeze-list,guest-fsfreeze-thaw';
const socket = '-m unix-listen -p /run/a.sock';
const script = (about: string, name: string, text: string, conf?: string): CommandLineCase => ({
  about,
  name,
  script: text,
  ...defined({ conf }),
});

export const commandLineCases: readonly CommandLineCase[] = [
  ...lines('-V', '-V', '--version', '--vers', '-vV', '-V -x', '-m pigeon -V', '-V -b help'),
  ...lines(
    'getopt',
    '-x',
    '-vx',
    '--nope',
    '--nope=1',
    '--verbose=1',
    '--ver',
    '-m',
    '--method',
    '-s install',
    '-D -m',
  ),
  ...lines('getopt', '--fsfreeze', '--d', '-p', '-x -V', '- -D', 'extra words -D', '-D extra', '-D -- -v', '-- -D -V'),
  ...lines('-b', '-b help', "-b '?'", '-bhelp', '--block-rpcs=help', '--block-rpcs help', "-b '?' -x", '-x -b help'),
  ...lines('-b', '-b guest-a -D', '-b guest-a,guest-b -D', '-b guest-a -b guest-b -D', '-b "" -D', '-b a,,b -D'),
  ...lines('-b', '-b "a b, c" -D', '-b "a;b" -D', '--blacklist=guest-a -D', '-b help,guest-a -D', '-b guest-a -b help'),
  ...lines(
    '-a',
    '-a guest-ping -D',
    '--allow-rpcs=guest-ping,guest-info -D',
    '-a guest-ping -b guest-ping -D',
    '-a help',
  ),
  ...lines(
    '-D',
    '-D',
    '--dump-conf',
    '--dump',
    '-DD',
    '-vD',
    '-Dv',
    '-rD',
    '-vrdD',
    '-D -d',
    '--daemon -D',
    '--retry -D',
  ),
  ...lines(
    '-m',
    '-D -m unix-listen',
    '-D -munix-listen',
    '-Dmunix-listen',
    '-D --method=isa-serial',
    '-D --meth vsock-listen',
  ),
  ...lines(
    '-m',
    '-D -m pigeon',
    '-D -m ""',
    '-m isa-serial -m unix-listen -D',
    '-m pigeon',
    '-m unix-listen',
    '-m vsock-listen',
  ),
  ...lines(
    '-p',
    '-D -p /x',
    '-D -p/x',
    '-D --path=/x',
    '-D --path /x',
    '-D -vp/x',
    '-D -p -v',
    '-D -p ""',
    '-D -p a -p b',
  ),
  ...lines('-l', '-D -l /x.log', '-D --logfile=/x.log', '-l /nonexistent/x.log -m unix-listen -p /run/a.sock'),
  ...lines('-f', '-D -f /x.pid', '-D --pidfile=/x.pid'),
  ...lines(
    '-F',
    '-D -F',
    '-D -F/h',
    '-D -F /h',
    '-D --fsfreeze-hook',
    '-D --fsfreeze-hook=/h',
    '-D --fsfreeze-hook /h',
  ),
  ...lines('-F', '-D -vF/h', '-DFv', '-D -F -F/h', '-D -F/h -F', '-D --fsfreeze-hook='),
  ...lines('-t', '-D -t /s', '-D --statedir=/s', '-D -t /s -f /x.pid'),
  ...lines('-c', '-c /etc/qemu/qemu-ga.conf -D', '-c /nonexistent.conf -D', '--config=/nonexistent.conf -D', '-c'),
  ...confs('-c', '-c /etc/qemu/qemu-ga.conf -D', '[general]\nverbose=true\n'),
  script(
    '$QGA_CONF',
    '$QGA_CONF names a file',
    'printf "[general]\\npath=/named\\n" > /run/named; QGA_CONF=/run/named agent -D',
    '[general]\npath=/usual\n',
  ),
  script('$QGA_CONF', '$QGA_CONF names no file', 'QGA_CONF=/run/named agent -D', '[general]\npath=/usual\n'),
  script('$QGA_CONF', '$QGA_CONF is empty', 'QGA_CONF= agent -D', '[general]\npath=/usual\n'),
  script(
    '-c',
    '-c and $QGA_CONF',
    'printf "[general]\\npath=/named\\n" > /run/named; QGA_CONF=/nonexistent agent -c /run/named -D',
  ),
  ...confs(
    'configuration',
    '-D',
    '',
    '# only a comment\n',
    everyKey,
    `${everyKey}\n[other]\nx=y\n`,
    '[general]',
    '[other]\npath=/x\n',
  ),
  ...confs(
    'configuration',
    '-D',
    '[general]\nunknown=1\ndaemonize=true\n',
    '[general]\npath=/a\npath=/b\n',
    '[general]\npath=\n',
  ),
  ...confs(
    'configuration',
    '-D',
    '[general]\npath = /a b \n',
    '[general]\npath=/a\\sb\\tc\\\\d\n',
    '[general]\npath=/a\\qb\n',
  ),
  ...confs(
    'configuration',
    '-D',
    '[general]\npath=/a # b\n',
    '[general]\n[general]\npath=/twice\n',
    ' [general]\n path=/x\n',
  ),
  ...confs(
    'configuration',
    '-D',
    ...['TRUE', 'yes', '1', '0', '', 'true ', 'truex', '2'].map((value) => `[general]\nverbose=${value}\n`),
  ),
  ...confs(
    'configuration',
    '-D',
    'path=/x\n',
    '[general\npath=/x\n',
    '[general]\nnothing\n',
    '[general]\n=x\n',
    '[general]\n;path=/x\n',
  ),
  ...confs(
    'configuration',
    '-D',
    '[general]\nblock-rpcs=a,b\n',
    '[general]\nblock-rpcs=a;b\n',
    '[general]\nblock-rpcs=\n',
  ),
  ...confs(
    'configuration',
    '-D',
    '[general]\nblacklist=a,b\n',
    '[general]\nblock-rpcs=help\n',
    '[general]\nfsfreeze-hook=\n',
  ),
  ...confs(
    'configuration',
    '-D -b c -m isa-serial -p /cli -l /cli.log -f /cli.pid -F/cli-hook -t /cli -v -r',
    everyKey,
  ),
  ...confs('configuration', '-D -F', everyKey),
  ...confs('configuration', '-D -v -r', '[general]\nverbose=false\nretry-path=false\n'),
  ...confs('configuration', '-D -a c', '[general]\nallow-rpcs=a,b\n'),
  ...confs('configuration', '-V', '[general]\nverbose=maybe\n', 'no key file'),
  ...confs('configuration', '-b help -x', 'no key file'),
  ...lines(
    '-p',
    '-m virtio-serial -p /nonexistent',
    '-m isa-serial -p /nonexistent',
    '',
    '-p /nonexistent/a.sock -m unix-listen',
  ),
  ...lines('-m', '-m vsock-listen -p nonsense', '-m vsock-listen -p 1'),
  script('signals', 'SIGTERM ends it', `start ${socket} ${noFreeze}; wait_for /run/a.sock; kill -TERM $pid; wait $pid`),
  script('signals', 'SIGINT ends it', `start ${socket} ${noFreeze}; wait_for /run/a.sock; kill -INT $pid; wait $pid`),
  script('signals', 'SIGHUP', `start ${socket} ${noFreeze}; wait_for /run/a.sock; kill -HUP $pid; wait $pid`),
  ...['USR1', 'USR2'].map((name) =>
    script(
      'signals',
      `SIG${name}`,
      `start ${socket} ${noFreeze}; wait_for /run/a.sock; kill -${name} $pid; { wait $pid; } 2> /dev/null; echo exit $?`,
    ),
  ),
  script(
    'signals',
    'SIGPIPE is ignored',
    `start ${socket} ${noFreeze}; wait_for /run/a.sock; kill -PIPE $pid; ask /run/a.sock; kill -TERM $pid; wait $pid`,
  ),
  script(
    '-m',
    'the socket it leaves',
    `start ${socket} ${noFreeze}; wait_for /run/a.sock; kill -TERM $pid; wait $pid; ls /run | grep sock`,
  ),
  script(
    '-m',
    'a stale socket is replaced',
    `start ${socket} ${noFreeze}; wait_for /run/a.sock; kill -KILL $pid; wait $pid; start ${socket} ${noFreeze}; sleep 1; ask /run/a.sock; kill -TERM $pid; wait $pid`,
  ),
  script(
    '-m',
    'another agent is on the socket',
    `start ${socket} ${noFreeze}; wait_for /run/a.sock; first=$pid; limited ${socket} ${noFreeze} -t /tmp -f /tmp/p; kill -TERM $first; wait $first`,
  ),
  script(
    '-p',
    'the method and the path of the file',
    `start ${noFreeze}; wait_for /run/b.sock; ask /run/b.sock; kill -TERM $pid; wait $pid`,
    '[general]\nmethod=unix-listen\npath=/run/b.sock\n',
  ),
  script(
    '-b',
    'names of no command are taken without a word',
    `start ${socket} ${noFreeze},guest-nope -b 'guest-get-time, guest-get-timezone' -b ''; wait_for /run/a.sock; ask /run/a.sock; kill -TERM $pid; wait $pid`,
  ),
  script(
    '-a',
    'names of no command are allowed without a word',
    `limited ${socket} ${noFreeze} -a guest-ping,guest-nope`,
  ),
  script(
    '-v',
    'it tells what it does on standard error',
    `start ${socket} ${noFreeze} -v; wait_for /run/a.sock; ask /run/a.sock; kill -TERM $pid; wait $pid`,
  ),
  script(
    '-h',
    'every option is in the help',
    `for word in -h --help -vh; do agent $word > /run/h; echo exit $?; done; for option in method path logfile pidfile fsfreeze-hook statedir verbose version daemonize block-rpcs allow-rpcs dump-conf retry-path config help; do grep -q -e "--$option" /run/h || echo "no $option"; done`,
  ),
  script(
    '-f',
    'no pid file without -d',
    `start ${socket} ${noFreeze} -f /run/p; wait_for /run/a.sock; ls /run/p; kill -TERM $pid; wait $pid`,
  ),
  script(
    '-l',
    'nothing is said when all is well',
    `start ${socket} ${noFreeze} -l /run/l; wait_for /run/a.sock; ask /run/a.sock; kill -TERM $pid; wait $pid; cat /run/l`,
  ),
  script(
    '-r',
    'a path that cannot be opened is tried again',
    `start -r -m isa-serial -p /nonexistent ${noFreeze} -l /run/l; sleep 1; kill -0 $pid && echo still there; kill -TERM $pid; wait $pid`,
  ),
  script(
    '-r',
    'a path that comes into being',
    `start -r -m unix-listen -p /run/late/a.sock ${noFreeze} -l /run/l; sleep 1; mkdir /run/late; sleep 6; ask /run/late/a.sock; kill -TERM $pid; wait $pid`,
  ),
  script(
    '-d',
    '-d serves, and leaves its pid',
    `agent -d ${socket} ${noFreeze} -f /run/p; echo exit $?; wait_for /run/a.sock; wait_for /run/p; ask /run/a.sock; kill -0 $(cat /run/p) && echo alive; tail -c 1 /run/p | od -An -tx1; kill -TERM $(cat /run/p); sleep 1; ls /run/p`,
  ),
  script(
    '-d',
    'the pid file of -d by default',
    `agent -d ${socket} ${noFreeze} -t /run; echo exit $?; wait_for /run/qemu-ga.pid; kill -0 $(cat /run/qemu-ga.pid) && echo alive; kill -TERM $(cat /run/qemu-ga.pid)`,
  ),
  script(
    '-d',
    'a daemon in its surroundings',
    `agent -d ${socket} ${noFreeze} -f /run/p; wait_for /run/a.sock; wait_for /run/p; sleep 1; p=$(cat /run/p); readlink /proc/$p/cwd; for i in 0 1 2; do readlink /proc/$p/fd/$i; done; awk '{print "its own session:", $6 == $1}' /proc/$p/stat; ls -l /run/p /run/a.sock | cut -c1-10; kill -TERM $p`,
  ),
  script(
    '-d',
    'names that do not begin at the root',
    `cd /tmp; agent -d -m unix-listen -p b.sock ${noFreeze} -f p -l l; echo exit $?; wait_for /tmp/p; sleep 1; kill -0 $(cat /tmp/p) && echo alive; for f in b.sock p l; do ls /tmp/$f /$f 2> /dev/null; done; kill -TERM $(cat /tmp/p); rm -f /b.sock /l`,
  ),
  script(
    '-d',
    'a second daemon with the pid file of the first',
    `agent -d ${socket} ${noFreeze} -f /run/p; wait_for /run/a.sock; wait_for /run/p; agent -d -m unix-listen -p /run/b.sock ${noFreeze} -f /run/p; echo exit $?; sleep 1; ls /run/b.sock; kill -TERM $(cat /run/p)`,
  ),
  script(
    '-d',
    'a daemon that cannot serve',
    `agent -d -m unix-listen -p /nonexistent/a.sock ${noFreeze} -f /run/p; echo exit $?; sleep 1; ls /run`,
  ),
  script(
    '-d',
    'a daemon that cannot write its pid',
    `agent -d ${socket} ${noFreeze} -f /nonexistent/p; echo exit $?; sleep 1; ls /run`,
  ),
  script(
    '-d',
    'daemon=true in the file',
    `agent ${socket} ${noFreeze} -f /run/p; echo exit $?; wait_for /run/p; kill -TERM $(cat /run/p)`,
    '[general]\ndaemon=true\n',
  ),
  script('-t', 'a state directory that is not there', `limited -t /nonexistent/state ${socket} ${noFreeze}`),
  script(
    '-t',
    'what is left in the state directory',
    `mkdir /run/s; start ${socket} ${noFreeze} -t /run/s; wait_for /run/a.sock; kill -TERM $pid; wait $pid; ls -A /run/s; cat /run/s/qga.state`,
  ),
  script(
    'socket activation',
    'LISTEN_FDS for another process',
    `LISTEN_FDS=1 LISTEN_PID=1 start ${socket} ${noFreeze}; wait_for /run/a.sock; ask /run/a.sock; kill -TERM $pid; wait $pid`,
  ),
  script(
    'socket activation',
    'two sockets',
    'echo > /run/file; LISTEN_FDS=2 activated -m isa-serial 3< /run/file 4< /run/file',
  ),
  script('socket activation', 'no socket after all', 'LISTEN_FDS=0 activated -m isa-serial -p /nonexistent'),
  script('socket activation', 'a descriptor that is none', 'LISTEN_FDS=1 activated -m isa-serial -p /nonexistent'),
  script(
    'socket activation',
    'a descriptor that is a file',
    'echo > /run/file; LISTEN_FDS=1 activated -m isa-serial -p /nonexistent 3< /run/file',
  ),
  script('socket activation', 'a number that is none', 'LISTEN_FDS=one activated -m isa-serial -p /nonexistent'),
];
