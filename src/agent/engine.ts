// V8 as an agent needs it, once it has started up: quick when it is called after weeks of rest, and small meanwhile.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

const afterMs = 2000;

/**
 * From now on a function gets machine code when it is first called, and not after some hundred calls: what freezes and
 * thaws is called once or twice. Not on the command line: Node's own modules come compiled, but for V8 with other flags
 * than its defaults they do not, and starting up took twice as long (in a guest without KVM 4.5 s instead of 2.2).
 */
export function compileAtFirstCall(): void {
  setFlagsFromString('--always-sparkplug');
}

/**
 * An agent rests after a second of starting up, and V8 leaves that second's garbage where it is: 2 to 4 MiB of the 19 it
 * keeps dirty in a guest (Node 24, measured). One collection gives it back. Once, a little later; takes some 10 ms then.
 * Keeps no process alive.
 */
export function collectStartUpGarbage(mayPause: () => boolean): void {
  setTimeout(() => {
    if (!mayPause()) return;
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('globalThis.gc') as ((options: object) => void) | undefined;
    collect?.({ type: 'major', execution: 'sync', flavor: 'last-resort' });
  }, afterMs).unref();
}
