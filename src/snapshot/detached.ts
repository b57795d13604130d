// Starts a holder in a session of its own, for callers that can only call something before and something after.
import { execa } from 'execa';
import { Timer } from '../deadline.js';

/** Between the end of its output and the end of the process, if it ended for that. */
const END_GRACE_MS = 500;

export interface Started {
  /** What it said on standard output until its tree was there, or it ended. */
  readonly said: string;
  /** Absent while it holds. */
  readonly exitCode?: number;
}

/**
 * `words`: program and arguments. Waits until it closes its standard output: by then the tree is there. `complain` gets
 * what it says on standard error meanwhile.
 */
export async function startDetached(
  [file = '', ...args]: readonly string[],
  complain: (text: string) => void,
): Promise<Started> {
  const child = execa(file, args, {
    // Its own are pipes that end with us: a caller who reads all that we say does not wait for its end as well.
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
    cleanup: false,
    buffer: false,
    reject: false,
    cwd: '/',
  });
  let said = '';
  child.stdout.on('data', (data: Buffer) => {
    said += data.toString();
  });
  child.stderr.on('data', (data: Buffer) => {
    complain(data.toString());
  });
  await new Promise((resolve) => child.stdout.once('close', resolve));
  const timer = new Timer();
  const ended = await Promise.race([child, timer.after(END_GRACE_MS, undefined)]);
  timer.clear();
  if (ended !== undefined) return { said, exitCode: ended.exitCode ?? 1 };
  child.stderr.destroy();
  child.unref();
  return { said };
}
