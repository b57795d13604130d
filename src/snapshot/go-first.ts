// While all applications wait for a cut, those who make it go before everybody else: each device that LVM makes within
// it has udev start programs, and they kept a single processor for longer than the cut itself.
import { getPriority, setPriority } from 'node:os';

/** The first of all, as nice(2) counts. */
const FIRST_NICE = -20;

/** The process `pid` goes first, until what is returned is called. Never throws: where it may not, a cut takes longer. */
export function goFirst(pid: number): () => void {
  const before = attempt(() => getPriority(pid));
  attempt(() => {
    setPriority(pid, FIRST_NICE);
  });
  return () => {
    if (before !== undefined)
      attempt(() => {
        setPriority(pid, before);
      });
  };
}

/** A container may forbid it, and a process may have ended. */
function attempt<T>(act: () => T): T | undefined {
  try {
    return act();
  } catch {
    return undefined;
  }
}
