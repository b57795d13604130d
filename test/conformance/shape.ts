// The shape of an answer whose values are the machine's: each member's path and the types found there, sorted, `[]` for
// any item of a list, `?` behind what not every object of its kind has. An error's shape is its class.
import { MessageParser } from '../../src/wire/message-parser.js';
import { withPlainNumbers } from '../../src/wire/value.js';

export function shapeOf(answer: string): string {
  const messages = new MessageParser().feed(Buffer.from(answer, 'latin1'));
  return messages
    .map((message) => {
      if (message.kind !== 'value') return 'no JSON';
      const found = new Map<string, Kinds>();
      visit('', withPlainNumbers(message.value), found);
      return [...found]
        .map(
          ([path, { types, times, parents }]) =>
            `${path}${times < parents() ? '?' : ''}: ${[...types].sort().join(' ')}`,
        )
        .sort()
        .join('\n');
    })
    .join('\n');
}

// A whole number beyond 2^53 is a bigint here, and a number to everybody else.
const typeName = (value: unknown): string =>
  value === null ? 'null' : Array.isArray(value) ? 'list' : typeof value === 'bigint' ? 'number' : typeof value;

interface Kinds {
  readonly types: Set<string>;
  times: number;
  readonly parents: () => number;
}

function visit(path: string, value: unknown, found: Map<string, Kinds>, parents = (): number => 1): void {
  const kinds = found.get(path) ?? { types: new Set<string>(), times: 0, parents };
  found.set(path, kinds);
  kinds.times++;
  kinds.types.add(typeName(value));
  if (Array.isArray(value)) for (const item of value) visit(`${path}[]`, item, found, () => 0);
  else if (typeof value === 'object' && value !== null) {
    for (const [name, member] of Object.entries(value)) {
      visit(path === '' ? name : `${path}.${name}`, member, found, () => kinds.times);
    }
  }
}

/**
 * Undefined if `ours` is a shape the recorded one allows: equal types where both have a path; what was always there is
 * there, and nothing else, if what it is in is. Else what is wrong.
 */
export function misfit(recorded: string, ours: string): string | undefined {
  const theirs = paths(recorded);
  const mine = paths(ours);
  for (const [path, { types, isOptional }] of theirs) {
    const found = mine.get(path);
    if (found === undefined) {
      if (!isOptional && !path.endsWith('[]') && mine.has(parentOf(path))) return `${path} is not there`;
    } else if (found.types.some((type) => !types.includes(type))) {
      return `${path}: expected ${types.join(' or ')}, found ${found.types.join(' ')}`;
    }
  }
  for (const path of mine.keys()) {
    if (!theirs.has(path) && !path.endsWith('[]') && theirs.has(parentOf(path))) return `${path} is too many`;
  }
  return undefined;
}

const parentOf = (path: string): string => path.replace(/(^|\.)[^.[]+$|\[\]$/, '');

function paths(shape: string): Map<string, { readonly types: readonly string[]; readonly isOptional: boolean }> {
  return new Map(
    shape.split('\n').map((line) => {
      const at = line.lastIndexOf(': ');
      const path = line.slice(0, at);
      return [path.replace(/\?$/, ''), { types: line.slice(at + 2).split(' '), isOptional: path.endsWith('?') }];
    }),
  );
}
