// Stands by while a run is held: a shell that waits for our end, and collects what we left if we died. It is started
// before anything is made, and is no process of ours that a terminal or a service manager's stop would end with us.
import { execa } from 'execa';

/** `done` comes only from a run that has put everything right. */
const SCRIPT = 'IFS= read -r word; [ "$word" = done ] || exec "$@"';

export interface Keeper {
  /** Nothing is left of the run. Waits for the shell's end. Never throws. */
  dismiss(): Promise<void>;
  /** Something may be left: it collects what there is, now. */
  leave(): void;
}

/** `self`: the words that start this program. */
export function startKeeper(self: readonly string[], run: string): Keeper {
  const child = execa('/bin/sh', ['-c', SCRIPT, 'sh', ...self, 'gc', '--run', run], {
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
