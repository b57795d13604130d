// Checks arguments, and tells a peer in QEMU's words why they do not fit. It is told the first thing wrong, in QEMU's order:
// members as declared, and only then the unexpected ones (qapi/qobject-input-visitor.c).
import * as v from 'valibot';
import { RemoteError } from '../rpc/errors.js';
import type { JsonObject } from '../wire/value.js';
import type { ArgsSchema } from './command.js';

/** The arguments with their defaults filled in. Throws a RemoteError with QEMU's text for the first thing wrong. */
export function checkArguments<S extends ArgsSchema>(schema: S, args: JsonObject): v.InferOutput<S> {
  const result = v.safeParse(schema, args);
  if (result.success) return result.output;
  throw new RemoteError('GenericError', argumentText(result.issues[0]));
}

/** QAPI's name of each type we declare. */
const typeNames: Readonly<Record<string, string>> = {
  string: 'string',
  array: 'array',
  boolean: 'boolean',
  number: 'number',
  picklist: 'string',
  strict_object: 'object',
};

function argumentText(issue: v.BaseIssue<unknown>): string {
  const name = parameterName(issue.path ?? []);
  switch (issue.type) {
    case 'strict_object':
      // valibot has one type of issue for three faults: not an object, a member missing, a member too many.
      if (issue.expected === 'never') return `Parameter '${name}' is unexpected`;
      if (issue.expected !== 'Object') return `Parameter '${name}' is missing`;
      break;
    case 'picklist':
      if (typeof issue.input === 'string') return `Parameter '${name}' does not accept value '${issue.input}'`;
      break;
    case 'check':
      return `Parameter '${name}' ${issue.message}, found ${String(issue.input)}`;
    case 'min_length':
    case 'max_bytes':
      return `Parameter '${name}' ${issue.message}, found ${issue.received}`;
    case 'custom':
      // QAPI has other words for this one type.
      if (issue.message === 'uint64') return `Parameter '${name}' expects uint64`;
      return wrongType(name, issue.message);
  }
  return wrongType(name, typeNames[issue.type] ?? issue.type);
}

const wrongType = (name: string, expected: string): string =>
  `Invalid parameter type for '${name}', expected: ${expected}`;

/** The member as QEMU writes it: `disks[0].serial`. */
function parameterName(path: readonly v.IssuePathItem[]): string {
  return path
    .map(({ key }, at) => (typeof key === 'number' ? `[${key}]` : at === 0 ? String(key) : `.${String(key)}`))
    .join('');
}
