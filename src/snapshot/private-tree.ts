// Runs a command in a mount namespace of its own, in which the snapshots lie over the original paths. A shell of
// unshare(1) mounts and then becomes the command: same process, so that signals reach it, with the three standard
// descriptors and no other.
import { constants } from 'node:os';
import { Readable } from 'node:stream';
import { execa } from 'execa';
import { CutError } from '../errors.js';
import { shellWord } from '../shell-word.js';
import { SEARCH_PATH } from './program.js';
import type { PrivateStep, PrivateTree } from './tree.js';

/** The descriptor on which the shell says that all is mounted; it is closed before the command is. */
const READY_FD = 3;
const SAID_CHARACTERS = 2_000;

export interface Command {
  readonly pid: number;
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
      : `exec chroot ${shellWord(root)} /bin/sh -c 'cd "$0" 2>/dev/null || cd /; exec "$@"' "$wd" "$@"`;
  return [
    'set -e',
    ...steps.map((step) => lineOf(step)),
    into,
    `printf ready >&${READY_FD}`,
    `exec ${READY_FD}>&-`,
    'set +e',
    // The mounts were done with a PATH of our own.
    path === undefined ? 'unset PATH' : `PATH=${shellWord(path)}`,
    become,
  ].join('\n');
}

function lineOf(step: PrivateStep): string {
  const at = shellWord(step.at);
  switch (step.kind) {
    case 'mount': {
      const words = (options: readonly string[]): string =>
        `mount -t ${shellWord(step.type)} -o ${shellWord(options.join(','))} ${shellWord(step.device)} ${at}`;
      return step.otherwise === undefined
        ? words(step.options)
        : `${words(step.options)} 2>/dev/null || ${words(step.otherwise)}`;
    }
    case 'bind': {
      const bind = `mount --${step.whole === true ? 'r' : ''}bind ${shellWord(step.from)} ${at}`;
      return step.ifThere === true ? `[ ! -e ${at} ] || ${bind}` : bind;
    }
    case 'keep': {
      const from = shellWord(step.from);
      return `if [ -d ${from} ]; then mkdir ${at}; else : >${at}; fi; mount --bind ${from} ${at}`;
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
 * Gives the command once everything is mounted. Throws a CutError with what mount(8) said if it is not; nothing is
 * mounted then.
 */
export async function startCommand(tree: PrivateTree, words: readonly string[]): Promise<Command> {
  const child = execa(
    'unshare',
    ['--mount', '--propagation', 'private', '--', '/bin/sh', '-c', scriptOf(tree, process.env['PATH']), 'sh', ...words],
    {
      // PATH is the command's own again once all is mounted; everything else it inherits.
      env: { PATH: SEARCH_PATH },
      stdio: ['inherit', 'inherit', 'inherit', 'pipe'],
      buffer: false,
      reject: false,
      cleanup: false,
    },
  );
  let said = '';
  const pipe = child.stdio[READY_FD];
  if (!(pipe instanceof Readable)) throw new Error('what the shell says is no pipe');
  const ready = new Promise<boolean>((resolve) => {
    pipe.on('data', (data: Buffer) => {
      said = (said + data.toString()).slice(0, SAID_CHARACTERS);
    });
    pipe.once('close', () => {
      resolve(said === 'ready');
    });
  });
  const exit = child.then(({ exitCode, signal, originalMessage }) => {
    if (exitCode !== undefined) return exitCode;
    if (signal === undefined) throw new CutError('E_PROGRAM', `unshare: ${originalMessage ?? 'it could not be run'}`);
    return 128 + constants.signals[signal];
  });
  exit.catch(() => undefined);
  if (!(await ready) || child.pid === undefined) {
    const code = await exit;
    throw new CutError('E_MOUNT', `the snapshots could not be mounted over the original paths: exit code ${code}`);
  }
  return {
    pid: child.pid,
    exit,
    kill: (signal) => {
      child.kill(signal);
    },
  };
}
