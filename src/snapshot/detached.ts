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

/** `words`: program and arguments. Waits until it closes its standard output: by then the tree is there. */
export async function startDetached([file = '', ...args]: readonly string[]): Promise<Started> {
  const child = execa(file, args, {
    stdio: ['ignore', 'pipe', 'inherit'],
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
  await new Promise((resolve) => child.stdout.once('close', resolve));
  const timer = new Timer();
  const ended = await Promise.race([child, timer.after(END_GRACE_MS, undefined)]);
  timer.clear();
  if (ended !== undefined) return { said, exitCode: ended.exitCode ?? 1 };
  child.unref();
  return { said };
}
