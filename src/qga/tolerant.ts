// Makes a schema lenient, for reading what an agent of another version sends: members that are not known are dropped instead
// of refused. The schemas of src/consistency.ts are strict where their values are written (manifests, our own replies).
import * as v from 'valibot';

interface Parts {
  readonly type: string;
  readonly entries: v.ObjectEntries;
  readonly item: v.GenericSchema;
  readonly wrapped: v.GenericSchema;
}

/** The same schema with every strict object in it, at any depth of objects, lists and optional members, made lenient. */
export function tolerant<S extends v.GenericSchema>(schema: S): S {
  return loosen(schema) as S;
}

function loosen(schema: v.GenericSchema): v.GenericSchema {
  const parts = schema as unknown as Parts;
  switch (parts.type) {
    case 'strict_object':
    case 'object':
      return v.object(Object.fromEntries(Object.entries(parts.entries).map(([name, entry]) => [name, loosen(entry)])));
    case 'array':
      return v.array(loosen(parts.item));
    case 'optional':
      return v.optional(loosen(parts.wrapped));
    default:
      return schema;
  }
}
