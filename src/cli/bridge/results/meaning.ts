// What a member of a result means, beside its schema: for RESULTS.md, the page that users read.
import * as v from 'valibot';
import { finite } from '../../../consistency.js';

/** The schema, with one line of meaning and unit. */
export function is<S extends v.GenericSchema>(schema: S, meaning: string): S {
  return v.pipe(schema, v.description(meaning)) as unknown as S;
}

/** The same for a member that may be absent. */
export function maybe<S extends v.GenericSchema>(schema: S, meaning: string): v.OptionalSchema<S, undefined> {
  return v.optional(is(schema, meaning), undefined);
}

export const texts = (meaning: string): v.ArraySchema<v.StringSchema<undefined>, undefined> =>
  is(v.array(v.string()), meaning);
export const text = (meaning: string): v.StringSchema<undefined> => is(v.string(), meaning);
export const flag = (meaning: string): v.BooleanSchema<undefined> => is(v.boolean(), meaning);
export const bytes = (meaning: string): typeof finite => is(finite, `${meaning} (bytes)`);

/** Entries that are declared elsewhere, each with its meaning. */
export function described<E extends v.ObjectEntries>(entries: E, meanings: Readonly<Record<keyof E, string>>): E {
  const named = Object.entries(entries).map(([name, entry]) => [name, is(entry, meanings[name] ?? '')]);
  return Object.fromEntries(named) as E;
}
