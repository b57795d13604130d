// Canonical options (getopt.ts), collected by name.
import { splitList } from '../../agent/keyfile.js';
import type { ListParts } from './dump.js';

const DEFAULT_HOOK = '/etc/qemu/fsfreeze-hook';

/** The last of equal options wins, but lists add up. */
export interface GivenOptions {
  readonly text: ReadonlyMap<string, string>;
  readonly flags: ReadonlySet<string>;
  readonly lists: ReadonlyMap<string, ListParts>;
}

/** @param options `--name` and `--name=value` */
export function collect(options: readonly string[]): GivenOptions {
  const text = new Map<string, string>();
  const flags = new Set<string>();
  const lists = new Map<string, ListParts>();
  for (const option of options) {
    const equals = option.indexOf('=');
    const word = option.slice(2, equals < 0 ? undefined : equals);
    const name = word === 'blacklist' ? 'block-rpcs' : word;
    const value = equals < 0 ? undefined : option.slice(equals + 1);
    if (name === 'fsfreeze-hook') text.set(name, value ?? DEFAULT_HOOK);
    else if (value === undefined) flags.add(name);
    else if (name.endsWith('-rpcs')) lists.set(name, [...(lists.get(name) ?? []), splitList(value)]);
    else text.set(name, value);
  }
  return { text, flags, lists };
}
