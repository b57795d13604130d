// Stands by while a run is held: a shell that waits for our end, and collects what we left if we died. It is started
// before anything is made, and gets no signal of a terminal. A service manager that kills all of a unit kills it, too:
// gc does it then, at the latest before the next run.
import { execa } from 'execa';

/**
 * `done` comes only from a run that has put everything right. gc touches nothing of one whose holder is still there, and
 * one that ends with something left is for a moment.
 */
const SCRIPT =
  'IFS= read -r word; [ "$word" = done ] && exit; n=0; while [ -d "/proc/$0" ] && [ $n -lt 50 ]; do sleep 0.1; n=$((n + 1)); done; exec "$@"';

export interface Keeper {
  /** Nothing is left of the run. Waits for the shell's end. Never throws. */
  dismiss(): Promise<void>;
  /** Something may be left: it collects what there is, now. */
  leave(): void;
}

/** `self`: the words that start this program. */
export function startKeeper(self: readonly string[], run: string): Keeper {
  const child = execa('/bin/sh', ['-c', SCRIPT, String(process.pid), ...self, 'gc', '--run', run], {
    stdin: 'pipe',
    stdout: 'ignore',
    stderr: 'ignore',
    cwd: '/',
    detached: true,
    cleanup: false,
    reject: false,
  });
  child.stdin.on('error', () => undefined);
  return {
    async dismiss() {
      child.stdin.end('done\n');
      await child;
    },
    leave() {
      child.stdin.end();
      child.unref();
    },
  };
}
