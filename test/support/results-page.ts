// Makes src/cli/bridge/RESULTS.md, the page on what the host tool prints with --json, of the schemas.
import * as v from 'valibot';
import { runDiskSchema } from '../../src/cli/bridge/results/backups.js';
import { errorCodeSchema, failureSchema, problemSchema } from '../../src/cli/bridge/results/failure.js';
import {
  layerSchema,
  fileStateSchema,
  manifestDiskSchema,
  recordedSchema,
} from '../../src/cli/bridge/results/manifest.js';
import { overlaySizeSchema } from '../../src/cli/bridge/results/overlay-size.js';
import { reportSchema, spanSchema } from '../../src/cli/bridge/results/report.js';
import { resultSchemas } from '../../src/cli/bridge/results/results.js';
import { hostCodes } from '../../src/error-codes.js';

interface Schema {
  readonly type: string;
  readonly entries?: Readonly<Record<string, Schema>>;
  readonly item?: Schema;
  readonly wrapped?: Schema;
  readonly value?: Schema;
  readonly options?: readonly (Schema | string | number)[];
  readonly literal?: unknown;
}

/** Objects that several results have: described once. */
const shared: readonly (readonly [string, Schema])[] = [
  ['Manifest', recordedSchema],
  ['Disk of a manifest', manifestDiskSchema],
  ['Disk of a backup', runDiskSchema],
  ['Layer', layerSchema],
  ['File state', fileStateSchema],
  ['Report of the guest', reportSchema],
  ['Span', spanSchema],
  ['Overlay size', overlaySizeSchema],
  ['Problem', problemSchema],
];

const INTRODUCTION = `# What \`--json\` prints

Made of the schemas in \`results/\`; a test compares it with them (\`vitest -u\` writes it anew).

With \`--json\` the last line of standard output is one JSON object: the result of the command, or its failure. \`snapshot watch\` prints an object per event, as long as it runs; \`backup run\` and \`backup restore --start\` tell how far they are by objects before the last one (\`event\`, \`current\` and \`total\` in bytes, \`bytesPerSecond\`, \`leftMs\`). A member marked _optional_ may be absent; programs should pass over members that they do not know, since later versions may add some.`;

export function resultsPage(): string {
  const results = Object.entries(resultSchemas).map(([name, schema]) => section(`\`${name}\``, schema));
  return [
    INTRODUCTION,
    '## Results',
    ...results,
    '## Failure',
    'Printed in the place of a result by any command.',
    membersOf(failureSchema).join('\n'),
    '## Objects of several results',
    ...shared.map(([name, schema]) => section(name, schema)),
    '## Error codes',
    Object.entries(hostCodes)
      .map(([code, meaning]) => `- \`${code}\`: ${meaning}`)
      .join('\n'),
    '',
  ]
    .join('\n\n')
    .replace(/\n+$/, '\n');
}

function section(title: string, schema: Schema): string {
  return `### ${title}\n\n${objectLines(schema, title).join('\n')}`;
}

function objectLines(schema: Schema, own: string): string[] {
  const like = shared.find(([name, other]) => name !== own && isLike(schema, other));
  if (like === undefined) return membersOf(schema);
  const [name, { entries = {} }] = like;
  const more = membersOf(schema, (key, entry) => entries[key] !== entry);
  return [`All members of a ${linkTo(name)}${more.length === 0 ? '.' : ', and:\n'}`, ...more];
}

/** It has every member of the other one, some of them with another meaning. */
function isLike({ entries }: Schema, other: Schema): boolean {
  const names = Object.keys(other.entries ?? {});
  return entries !== undefined && names.length > 3 && names.every((name) => name in entries);
}

function membersOf(schema: Schema, wanted: (key: string, entry: Schema) => boolean = () => true, depth = 0): string[] {
  return Object.entries(schema.entries ?? {})
    .filter(([key, entry]) => wanted(key, entry))
    .flatMap(([key, entry]) => {
      const optional = entry.type === 'optional';
      const inner = entry.wrapped ?? entry;
      const meaning = meaningOf(entry) ?? meaningOf(inner);
      // Words that the meaning explains are not listed twice.
      const isTold = wordsOf(inner).length > 0 && wordsOf(inner).every((word) => meaning?.includes(word) === true);
      const type = isTold ? 'string' : typeOf(inner);
      const head = `${'  '.repeat(depth)}- \`${key}\` (${type}${optional ? ', optional' : ''})`;
      return [`${head}${meaning === undefined ? '' : `: ${meaning}`}`, ...below(inner, depth + 1)];
    });
}

/** Members of the objects in it, unless they are described elsewhere. */
function below(schema: Schema, depth: number): string[] {
  const inner = schema.item ?? (schema.type === 'record' ? schema.value : undefined) ?? schema;
  if (sharedName(inner) !== undefined) return [];
  if (inner.type === 'union') {
    return (inner.options ?? []).flatMap((each) =>
      typeof each === 'object' && sharedName(each) === undefined ? membersOf(each, undefined, depth) : [],
    );
  }
  const like = shared.find(([, other]) => isLike(inner, other));
  return membersOf(inner, (key, entry) => like?.[1].entries?.[key] !== entry, depth);
}

function typeOf(schema: Schema): string {
  const name = sharedName(schema);
  if (name !== undefined) return linkTo(name);
  if (schema === (errorCodeSchema as Schema)) return '[code](#error-codes)';
  switch (schema.type) {
    case 'array':
      return `list of ${typeOf(schema.item ?? { type: 'unknown' })}`;
    case 'record':
      return `object by name, of ${typeOf(schema.value ?? { type: 'unknown' })}`;
    case 'picklist':
      if (schema.options?.every((option) => typeof option === 'number') === true) return 'number';
      return wordsOf(schema).join(', ');
    case 'literal':
      return `\`${String(schema.literal)}\``;
    case 'union':
      return (schema.options ?? []).map((each) => typeOf(each as Schema)).join(' or ');
    case 'variant':
      return 'object';
    case 'strict_object': {
      const like = shared.find(([, other]) => isLike(schema, other));
      return like === undefined ? 'object' : `${linkTo(like[0])} and more`;
    }
    default:
      return schema.type;
  }
}

/** By its entries: a meaning that is given to the whole makes another schema of it. */
function sharedName({ entries }: Schema): string | undefined {
  return entries === undefined ? undefined : shared.find(([, other]) => other.entries === entries)?.[0];
}

const wordsOf = ({ options = [] }: Schema): string[] =>
  options.flatMap((option) => (typeof option === 'object' ? [] : [`\`${option}\``]));

const linkTo = (name: string): string => `[${name.toLowerCase()}](#${name.toLowerCase().replaceAll(' ', '-')})`;

function meaningOf(schema: Schema): string | undefined {
  return v.getDescription(schema as unknown as v.GenericSchema);
}
