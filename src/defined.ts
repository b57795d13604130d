// Leaves optional properties out where there is no value, as exactOptionalPropertyTypes asks: `...defined({ a, b })`.

/** The properties of `values` that are not undefined. */
export function defined<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}
