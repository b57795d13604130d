// Runs a command in a mount namespace of its own, in which the snapshots lie over the original paths. A shell of
// unshare(1) mounts and then becomes the command: same process, so that signals reach it, with the three standard
// descriptors and no other.
import { constants } from 'node:os';
import { Duplex } from 'node:stream';
import { execa } from 'execa';
import { CutError } from '../errors.js';
import { unlessAborted, withLimit } from '../deadline.js';
import { shellWord } from '../shell-word.js';
import { SEARCH_PATH } from './program.js';
import { asNamed, type PrivateStep, type PrivateTree } from './tree.js';

/**
 * The descriptor on which the shell says that all is mounted, and waits until it may become the command; it is closed
 * before it does.
 */
const GATE_FD = 3;
/** A mount that takes longer waits for somebody who does not answer. */
const MOUNT_LIMIT_MS = 60_000;
const SAID_CHARACTERS = 2_000;

/**
 * Succeeds if no link leads elsewhere between two words, a folder and the rest of a path. A subshell: a program for each
 * path takes its time. What the path leads to is not looked at: root may not look into what a user's process serves.
 */
const NO_LINKS = `no_links() (
	[ ! -L "$1$2" ] && cd -P "$1/" && base=\${PWD%/} && cd -P "$1\${2%/*}/" && [ "\${PWD%/}" = "$base\${2%/*}" ]
)`;

/** More of the command's environment; undefined takes one away. */
export type Environment = Readonly<Record<string, string | undefined>>;

export interface Command {
  readonly pid: number;
  /** All is mounted, and it waits for this. A gate that closes without it, since we died, is an end with 125. */
  readonly begin: () => void;
  /** Ends when the command has: its exit code, or 128 + the number of the signal that ended it. */
  readonly exit: Promise<number>;
  readonly kill: (signal: NodeJS.Signals) => void;
}

/** The lines of the shell: all or nothing. */
export function scriptOf({ steps, root }: PrivateTree, path: string | undefined): string {
  const into = root === undefined ? 'cd "$PWD" 2>/dev/null || cd /' : 'wd=$PWD; cd /';
  const become =
    root === undefined
      ? 'exec "$@"'
      : `exec "$chroot" ${shellWord(root)} /bin/sh -c 'cd "$0" 2>/dev/null || cd /; exec "$@"' "$wd" "$@"`;
  return [
    'set -e',
    NO_LINKS,
    ...steps.map((step) => lineOf(step)),
    // The command's PATH need not lead to it.
    ...(root === undefined ? [] : ['chroot=$(command -v chroot)']),
    into,
    `printf ready >&${GATE_FD}`,
    `IFS= read -r go <&${GATE_FD} || exit 125`,
    `exec ${GATE_FD}>&-`,
    'set +e',
    // The mounts were done with a PATH of our own.
    path === undefined ? 'unset PATH' : `PATH=${shellWord(path)}`,
    become,
  ].join('\n');
}

function lineOf(step: PrivateStep): string {
  const at = step.kind === 'no-links' ? '' : shellWord(step.at);
  switch (step.kind) {
    case 'mount': {
      const words = (options: readonly string[]): string =>
        ['mount', ...asNamed(step.device), '-t', step.type, '-o', options.join(','), step.device, step.at]
          .map((word) => shellWord(word))
          .join(' ');
      const { options, otherwise } = step;
      return otherwise === undefined ? words(options) : `${words(options)} 2>/dev/null || ${words(otherwise)}`;
    }
    case 'bind': {
      const bind = `mount --${step.whole === true ? 'r' : ''}bind ${shellWord(step.from)} ${at}`;
      return step.ifThere === true ? `[ ! -e ${at} ] || ${bind}` : bind;
    }
    case 'move':
      return `mount --move ${shellWord(step.from)} ${at}`;
    case 'no-links': {
      const [base, rest] = [step.base, step.path.slice(step.base.length)].map((word) => shellWord(word));
      const words = shellWord(`${step.path}: a link has come to be there`);
      return `no_links ${base} ${rest} 2>/dev/null || { printf '%s\\n' ${words} >&2; exit 1; }`;
    }
    case 'keep': {
      const from = shellWord(step.from);
      // Not looked at: root may not look into what a user's process serves, and what a dead server has never answers.
      return `mkdir ${at}; mount --bind ${from} ${at} 2>/dev/null || { rmdir ${at}; : >${at}; mount --bind ${from} ${at}; }`;
    }
    case 'read-only':
      return `mount -o remount,bind,ro ${at}`;
    case 'folder':
      return `mount -t tmpfs -o mode=0755,size=1m tmpfs ${at}`;
    case 'make':
      return `mkdir -p ${at}`;
    case 'unmount':
      return `umount ${at}`;
  }
}

/**
 * Gives the command once everything is mounted; it runs when it is let begin. Throws a CutError if it is not mounted, or
 * if `abort` comes first, and a DeadlineError after a minute; nothing is mounted then, but for what a mount(8) that does
 * not end keeps.
 */
export async function startCommand(
  tree: PrivateTree,
  words: readonly string[],
  environment: Environment = {},
  abort?: AbortSignal,
): Promise<Command> {
  const child = execa(
    'unshare',
    ['--mount', '--propagation', 'private', '--', '/bin/sh', '-c', scriptOf(tree, process.env['PATH']), 'sh', ...words],
    {
      // PATH is the command's own again once all is mounted; everything else it inherits.
      env: { ...environment, PATH: SEARCH_PATH },
      stdio: ['inherit', 'inherit', 'inherit', 'pipe'],
      buffer: false,
      reject: false,
      cleanup: false,
      // execa would kill it 5 s after a SIGTERM that is only passed on: it may take its time to end.
      forceKillAfterDelay: false,
    },
  );
  let said = '';
  const gate = child.stdio[GATE_FD];
  if (!(gate instanceof Duplex)) throw new Error('the gate of the command is no pipe');
  const ready = new Promise<boolean>((resolve) => {
    gate.on('data', (data: Buffer) => {
      said = (said + data.toString()).slice(0, SAID_CHARACTERS);
      if (said === 'ready') resolve(true);
    });
    gate.on('error', () => undefined);
    gate.once('close', () => {
      resolve(false);
    });
  });
  const exit = child.then(({ exitCode, signal, originalMessage }) => {
    if (exitCode !== undefined) return exitCode;
    if (signal === undefined) throw new CutError('E_PROGRAM', `unshare: ${originalMessage ?? 'it could not be run'}`);
    return 128 + constants.signals[signal];
  });
  exit.catch(() => undefined);
  const mounted = unlessAborted(ready, abort, () => {
    return new CutError('E_INTERRUPTED', 'interrupted: the command was not started');
  });
  let isReady: boolean;
  try {
    isReady = await withLimit('mounting the snapshots over the original paths', MOUNT_LIMIT_MS, mounted);
  } catch (error) {
    child.kill('SIGKILL');
    gate.destroy();
    throw error;
  }
  if (!isReady || child.pid === undefined) {
    const code = await exit;
    throw new CutError('E_MOUNT', `the snapshots could not be mounted over the original paths: exit code ${code}`);
  }
  return {
    pid: child.pid,
    exit,
    begin: () => {
      gate.end('go\n');
    },
    kill: (signal) => {
      child.kill(signal);
    },
  };
}
