// How a command of the guest-agent protocol is declared: once, under its name. Argument and result types, the
// dispatcher's table, guest-info and the list of what may run while frozen derive from the declaration. The declarations
// are in commands.ts; the contract in prose is qga/qapi-schema.json.
import * as v from 'valibot';
import type { ReplyOrder } from '../rpc/operation.js';
import { JsonFloat } from '../wire/value.js';

export type ArgsSchema = v.StrictObjectSchema<v.ObjectEntries, undefined>;
export type ReturnsSchema = v.GenericSchema;

/** A command's name is its key in the table (commands.ts). */
export interface Command<A extends ArgsSchema = ArgsSchema, R extends ReturnsSchema = ReturnsSchema> {
  /** QEMU's version for guest-*, ours for bridge-*. */
  readonly since: string;
  readonly args: A;
  readonly returns: R;
  /** Allowed while the guest is frozen, whatever the block and allow lists say. */
  readonly whenFrozen: boolean;
  /** The narrowest preset that allows it (policy.ts). */
  readonly policy: PolicyPreset;
  /** False: nothing is sent on success (guest-shutdown and the like). */
  readonly successResponse: boolean;
  readonly order: ReplyOrder;
  /** The reply is preceded by 0xFF. */
  readonly delimited: boolean;
}

/** From narrow to wide: each allows what the ones before it do, and more. */
export const policyPresets = ['freeze-only', 'default', 'full'] as const;
export type PolicyPreset = (typeof policyPresets)[number];

type Rest = Partial<Omit<Command, 'since' | 'args' | 'returns'>>;

/** Declares a command. Unless the declaration says otherwise it is not allowed while frozen, is answered in turn, and is in the preset `default`. */
export function command<A extends ArgsSchema, R extends ReturnsSchema>(
  declaration: { since: string; args: A; returns: R } & Rest,
): Command<A, R> {
  return {
    whenFrozen: false,
    policy: 'default',
    successResponse: true,
    order: 'queued',
    delimited: false,
    ...declaration,
  };
}

/**
 * The schema of an arguments object, or of an object in one. The table of its entries has no prototype: valibot looks names
 * up with `in`, and an argument called `toString` must be unexpected like any other. A list and a number with a fraction
 * are refused, though valibot takes them for objects.
 */
export function members<E extends v.ObjectEntries>(entries: E): v.StrictObjectSchema<E, undefined> {
  const schema: v.StrictObjectSchema<E, undefined> = v.strictObject(
    Object.assign(Object.create(null) as object, entries),
  );
  return {
    ...schema,
    '~run': (dataset, config) =>
      schema['~run'](isObject(dataset.value) ? dataset : { ...dataset, value: null }, config),
  };
}

const isObject = (value: unknown): boolean =>
  typeof value === 'object' && !Array.isArray(value) && !(value instanceof JsonFloat);

export const noArgs = members({});
/** The reply of a command that returns nothing. */
export const nothing = v.object({});

const INT64_MIN = -(2n ** 63n);
const INT64_MAX = 2n ** 63n - 1n;

/** QAPI's `int`: 64 bits, signed. The message is QAPI's name of the type (argument-texts.ts quotes it). */
export const int = v.custom<number | bigint>(
  (value) => (typeof value === 'bigint' ? value >= INT64_MIN && value <= INT64_MAX : Number.isSafeInteger(value)),
  'integer',
);

/** QAPI's `uint64`: takes what `int` takes, and names itself otherwise. */
export const uint64 = v.custom<number | bigint>(
  (value) => (typeof value === 'bigint' ? value >= INT64_MIN && value < 2n ** 64n : Number.isSafeInteger(value)),
  'uint64',
);

/** An int of at least `min` that fits a number. */
export function intFrom(min: number, unit: string): v.GenericSchema<number | bigint, number> {
  return v.pipe(
    int,
    v.check((value) => value >= min && value <= Number.MAX_SAFE_INTEGER, `expects ${min} or more ${unit}`),
    v.transform(Number),
  );
}

/** QAPI's `alternate`: the schema that the input's type asks for; if there is none, a type error that names it. */
export function alternate<S extends v.GenericSchema>(
  name: string,
  branch: (input: unknown) => S | undefined,
): v.LazySchema<S> {
  const none = v.custom<never>(() => false, name);
  return v.lazy((input) => branch(input) ?? (none as unknown as S));
}
