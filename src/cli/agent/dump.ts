// Prints for -D qemu-ga's own keys after merging, as a configuration file that reads back to the same.
import { escapeValue } from '../../agent/keyfile.js';

/** A list in the parts that it was put together of, one per option or key. */
export type ListParts = readonly (readonly string[])[];

/** qemu-ga's own keys after merging, in -D's order. */
export interface Merged {
  readonly daemon: boolean;
  readonly method: string;
  readonly path: string | undefined;
  readonly logfile: string | undefined;
  readonly pidfile: string;
  readonly fsfreezeHook: string | undefined;
  readonly statedir: string;
  readonly verbose: boolean;
  readonly retryPath: boolean;
  readonly blockRpcs: ListParts;
  readonly allowRpcs: ListParts;
}

export function dump(merged: Merged): string {
  const line = (key: string, value: string | undefined): string =>
    value === undefined ? '' : `${key}=${escapeValue(value)}\n`;
  // qemu-ga builds each list from the front, so it comes out reversed.
  const list = (parts: ListParts): string => parts.flatMap((names) => names.toReversed()).join(',');
  return [
    '[general]\n',
    line('daemon', String(merged.daemon)),
    line('method', merged.method),
    line('path', merged.path),
    line('logfile', merged.logfile),
    line('pidfile', merged.pidfile),
    line('fsfreeze-hook', merged.fsfreezeHook),
    line('statedir', merged.statedir),
    line('verbose', String(merged.verbose)),
    line('retry-path', String(merged.retryPath)),
    line('block-rpcs', list(merged.blockRpcs)),
    line('allow-rpcs', list(merged.allowRpcs)),
  ].join('');
}
