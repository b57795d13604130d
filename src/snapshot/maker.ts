// Which machine made something, and in which run of it: whoever sees a disk sees its tags, a host those of its guests.
import { readValue } from '../linux/kernel-values.js';

/** What is not known is absent, and then nothing is ours. */
export interface Maker {
  readonly machine?: string;
  /** The kernel's id of this start of the machine. */
  readonly boot?: string;
}

/** A machine without an id of its own has this in place of it (machine-id(5)). */
const NO_ID = 'uninitialized';

/** This machine, now. Never throws. */
export function thisMaker(): Maker {
  const machine = [readValue('/etc/machine-id'), readValue('/sys/class/dmi/id/product_uuid')].find(
    (id) => id !== undefined && id !== NO_ID,
  );
  const boot = readValue('/proc/sys/kernel/random/boot_id');
  return { ...(machine === undefined ? {} : { machine }), ...(boot === undefined ? {} : { boot }) };
}

/**
 * Why something that no notes tell of is not to be removed, if that is so: another machine's, or made since this start
 * of ours, which every run of ours outlives in its notes. `made`: as its marks have it.
 */
export function whyNotOurs(made: Maker, now: Maker): string | undefined {
  if (made.machine === undefined || now.machine === undefined || made.machine !== now.machine)
    return `it was made by machine ${made.machine ?? 'unknown'}, and this is ${now.machine ?? 'unknown'}`;
  if (made.boot === now.boot)
    return 'it was made since this start of the machine, by a run that is noted elsewhere (another runtime-dir, a container)';
  return undefined;
}
