// Tunes V8 for programs that wait most of the time. An agent that has started up: quick when it is called after weeks of
// rest, and small meanwhile. A holder of snapshots: small while a backup reads them.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/**
 * The code that freezes and thaws is called once or twice and then rests for hours; the garbage of many calls must not
 * stay. Measured with Node 24 and 2,000 plain freezes: 82 MiB of private memory before, 27 with these.
 * - A function gets machine code when it is first called, and not after some hundred calls.
 * - The optimising compilers stay out. They keep 6 MiB of memory of their own for good, and 10 more of their program.
 *   They work beside every freeze while applications wait: without them the second freeze takes 6 ms of processor time
 *   natively instead of 11, and in an emulator the worst of 30 is 1.2 of their median instead of 2.0. Without them a
 *   table of 40,000 mounts is read in 90 ms instead of 50.
 * - The young generation stays at the 1 MiB it starts with: it grew to 52 MiB, which nothing gives back to a busy guest.
 */
const small = ['--no-opt', '--no-maglev', '--semi-space-growth-factor=1'];
const flags = ['--always-sparkplug', ...small];

/**
 * Sets the flags from now on. They are not on the command line: Node's own modules come compiled, but not for a V8 with
 * other flags than its defaults, and starting up took twice as long (in a guest without KVM 4.5 s instead of 2.2).
 */
export function tuneForRareCalls(): void {
  for (const flag of flags) setFlagsFromString(flag);
}

/**
 * Sets the flags of a program that does its work once and then waits for another one, for hours. It gets no machine code
 * at its first calls: that takes 1 MiB, and would only stay.
 */
export function tuneForOneCall(): void {
  for (const flag of small) setFlagsFromString(flag);
}

/** After start-up or a session nobody is in a hurry. The next freeze then finds room for all that it makes. */
const YOUNG_AFTER_MS = 200;
/** By then start-up has taken its last steps, and a requester that freezes again at once is here. */
const ALL_AFTER_MS = 5000;

const WHOLE = { type: 'major', flavor: 'last-resort' } as const;
/** By then what the program waits for has been started. */
const WAITS_AFTER_MS = 1000;
/** It looks each second at what it has made, and the garbage of 6 s was 2 MiB. */
const AGAIN_MS = 10_000;

type Collect = (options: object) => void;

/**
 * Gives memory back that is no longer used, once there has been nothing to do for a while. The function that is
 * returned says that a rest begins; an earlier rest counts no more. Nothing is collected while `isBusy`; when that
 * ends, another rest is to begin. Keeps no process alive.
 *
 * V8 itself collects when memory is asked for. An agent at rest asks for none and kept 2 to 4 MiB of its start-up, and
 * 25 of many freezes. One that freezes would be stopped for it while applications wait, every third time, for 1 ms, or
 * 4 to 30 in an emulator. Here a collection takes less than 1 ms at first and later some 10.
 */
export function collectAtRest(isBusy: () => boolean): () => void {
  let timers: readonly NodeJS.Timeout[] = [];
  const later = (options: object, afterMs: number): NodeJS.Timeout =>
    setTimeout(() => {
      if (!isBusy()) collector()({ ...options, execution: 'sync' });
    }, afterMs).unref();
  return () => {
    for (const timer of timers) clearTimeout(timer);
    timers = [later({ type: 'minor' }, YOUNG_AFTER_MS), later(WHOLE, ALL_AFTER_MS)];
  };
}

/** Gives memory back a second from now, and again every 10 s, in some 10 ms. Keeps no process alive. */
export function collectWhileWaiting(): void {
  const collect = (): void => {
    collector()({ ...WHOLE, execution: 'sync' });
  };
  setTimeout(collect, WAITS_AFTER_MS).unref();
  setInterval(collect, AGAIN_MS).unref();
}

let made: Collect | undefined;

// A context that was made before the flag has no `gc`. One is kept: 200 KiB, made in half a millisecond.
function collector(): Collect {
  setFlagsFromString('--expose-gc');
  made ??= runInNewContext('globalThis.gc') as Collect;
  return made;
}
