// The types of JSON values as they travel: integers keep all their 64 bits, and 1.0 stays distinguishable from 1 (QAPI's
// int takes only the latter).
//
//   JSON integer   number if it is a safe integer, else bigint (-2^63 .. 2^64-1)
//   JSON float     JsonFloat (also integers beyond 64 bits, as in QEMU)
//   JSON object    an object without a prototype: any member name is a plain member

/** A number written with a fraction or an exponent, or an integer beyond 64 bits. */
export class JsonFloat {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

export interface JsonObject {
  [member: string]: JsonValue;
}
export type JsonValue = null | boolean | number | bigint | JsonFloat | string | JsonValue[] | JsonObject;

/** True for `{...}`: not null, not an array, not a JsonFloat. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof JsonFloat);
}

/** The same value with every JsonFloat as a number: for schemas that do not care how a number was written. */
export function withPlainNumbers(value: JsonValue): unknown {
  if (value instanceof JsonFloat) return value.value;
  if (Array.isArray(value)) return value.map(withPlainNumbers);
  if (!isJsonObject(value)) return value;
  const plain = Object.create(null) as Record<string, unknown>;
  for (const [name, member] of Object.entries(value)) plain[name] = withPlainNumbers(member);
  return plain;
}
