// Every command with arguments that are missing, too many and of the wrong type, from the table of signatures; and as
// it should be called, where that changes nothing. What would change something carries an argument that no command has
// (argument-gate.ts): QEMU names what is missing or of the wrong type before it names that one.
import { changesNothing, noSuchArgument } from './argument-gate.js';
import type { Exchange } from './exchanges.js';
import { signatures, type QapiType, type Signature } from './qapi-signatures.js';

type Members = Readonly<Record<string, string>>;

/** One of each type, as text: what is sent keeps its spelling. */
const samples: Readonly<Record<string, string>> = {
  null: 'null',
  integer: '7',
  string: '"text"',
  boolean: 'true',
  number: '1.5',
  array: '[]',
  object: '{}',
};

const object = (members: Members): string =>
  `{${Object.entries(members)
    .map(([name, value]) => `"${name}": ${value}`)
    .join(', ')}}`;

const request = (name: string, members: Members): string => `{"execute": "${name}", "arguments": ${object(members)}}`;

const bare = (name: string): string => name.replace(/^\*/, '');
const isOptional = (name: string): boolean => name.startsWith('*');

function good(type: QapiType): string {
  if (typeof type === 'string') return samples[type] ?? '';
  if ('list' in type) return `[${good(type.list)}]`;
  if ('struct' in type) return object(goodMembers(type.struct));
  return type.good;
}

/** The ones that must be there. */
function goodMembers(types: Readonly<Record<string, QapiType>>): Members {
  return Object.fromEntries(
    Object.entries(types)
      .filter(([name]) => !isOptional(name))
      .map(([name, type]) => [name, good(type)]),
  );
}

/** What is wrong with a value of this type, by name. */
function bad(type: QapiType): readonly (readonly [string, string])[] {
  if (typeof type === 'string') {
    const wrong = Object.entries(samples).filter(
      ([name]) => name !== type && !(type === 'integer' && name === 'number'),
    );
    const more = type === 'integer' ? ['1.5', '9223372036854775808', '-9223372036854775809', '"7"'] : [];
    return [...wrong, ...more.map((value) => [value, value] as const)];
  }
  if ('list' in type) {
    const wrong = Object.entries(samples).filter(([name]) => name !== 'array');
    const item = bad(type.list).map(([name, value]) => [`item ${name}`, `[${value}]`] as const);
    const second = bad(type.list)
      .slice(0, 1)
      .map(([name, value]) => [`second item ${name}`, `[${good(type.list)}, ${value}]`] as const);
    return [...wrong, ...item, ...second];
  }
  if ('struct' in type) {
    const members = goodMembers(type.struct);
    const wrong = Object.entries(samples).filter(([name]) => name !== 'object');
    const inside = Object.entries(type.struct).flatMap(([name, inner]) =>
      bad(inner)
        .slice(0, 3)
        .map(([what, value]) => [`${bare(name)} ${what}`, object({ ...members, [bare(name)]: value })] as const),
    );
    const lacking = Object.keys(members).map((name) => [`without ${name}`, object(without(members, name))] as const);
    return [...wrong, ...inside, ...lacking, ['with another member', object({ ...members, other: '1' })]];
  }
  return type.bad.map((value) => [value, value] as const);
}

function without(members: Members, name: string): Members {
  return Object.fromEntries(Object.entries(members).filter(([other]) => other !== name));
}

function exchangesOf({ name, args, readOnly }: Signature): readonly Exchange[] {
  const required = goodMembers(args);
  const tail: Members = changesNothing.has(name) ? {} : { [noSuchArgument]: '0' };
  const one = (what: string, members: Members): Exchange => ({
    name: `${name} ${what}`,
    sends: [request(name, { ...members, ...tail })],
  });
  const all = Object.fromEntries(Object.entries(args).map(([key, type]) => [bare(key), good(type)]));
  return [
    ...(readOnly ? [{ ...one('as it is', {}), ...comparison(name) }] : []),
    { name: `${name} with an argument too many`, sends: [request(name, { ...required, [noSuchArgument]: '0' })] },
    ...(Object.keys(all).length > Object.keys(required).length
      ? [{ name: `${name} with all and one too many`, sends: [request(name, { ...all, [noSuchArgument]: '0' })] }]
      : []),
    ...Object.keys(required).map((key) => one(`without ${key}`, without(required, key))),
    ...Object.entries(args).flatMap(([key, type]) =>
      bad(type).map(([what, value]) => one(`${bare(key)} ${what}`, { ...required, [bare(key)]: value })),
    ),
  ];
}

/** What these answer is another machine's, or another second's. */
const ofTheMachine: ReadonlySet<string> = new Set([
  'guest-get-time',
  'guest-info',
  'guest-get-vcpus',
  'guest-get-disks',
  'guest-get-memory-blocks',
  'guest-get-memory-block-info',
  'guest-get-osinfo',
  'guest-get-diskstats',
  'guest-get-cpustats',
  'guest-get-load',
  'guest-network-get-interfaces',
  'guest-network-get-route',
]);

function comparison(name: string): Pick<Exchange, 'compare' | 'apart'> {
  if (!ofTheMachine.has(name)) return {};
  // Serials are from udev's database there, from sysfs here.
  return { compare: 'values', ...(name === 'guest-get-disks' ? { apart: ['serial'] } : {}) };
}

const one = (name: string, text: string): Exchange => ({ name, sends: [text] });
const call = (name: string, args: string): string => `{"execute": "${name}", "arguments": ${args}}`;

/** Good types, and nothing there: what the commands themselves say. */
const refused: readonly Exchange[] = [
  one('open a file that is not there', call('guest-file-open', '{"path": "/nonexistent/file"}')),
  one('open it to write', call('guest-file-open', '{"path": "/nonexistent/file", "mode": "w"}')),
  one('open it to append and read', call('guest-file-open', '{"path": "/nonexistent/file", "mode": "a+b"}')),
  ...['zz', '', 'R', 'rw', 'r++', 'rt', 'rb+', 'r+b', 'wb', 'ab', 'w+', 'rbx'].map((mode) =>
    one(`open it with mode "${mode}"`, call('guest-file-open', `{"path": "/nonexistent/file", "mode": "${mode}"}`)),
  ),
  one('open a folder that is not there', call('guest-file-open', '{"path": "/nonexistent/"}')),
  one('close a handle nobody opened', call('guest-file-close', '{"handle": 1}')),
  one('flush a handle nobody opened', call('guest-file-flush', '{"handle": -1}')),
  one('read a handle nobody opened', call('guest-file-read', '{"handle": 1}')),
  one('read a handle nobody opened, too much', call('guest-file-read', '{"handle": 1, "count": 50331649}')),
  one('read a handle nobody opened, less than nothing', call('guest-file-read', '{"handle": 1, "count": -1}')),
  one('write to a handle nobody opened', call('guest-file-write', '{"handle": 1, "buf-b64": "eA=="}')),
  one('write no base64 to a handle nobody opened', call('guest-file-write', '{"handle": 1, "buf-b64": "!"}')),
  ...['"set"', '"cur"', '"end"', '0', '1', '2', '3', '-1'].map((whence) =>
    one(
      `seek on a handle nobody opened, whence ${whence}`,
      call('guest-file-seek', `{"handle": 1, "offset": 0, "whence": ${whence}}`),
    ),
  ),
  ...['0', '-1', '99999999', '9223372036854775807'].map((pid) =>
    one(`status of process ${pid}, which was never started`, call('guest-exec-status', `{"pid": ${pid}}`)),
  ),
  one('ssh keys of a user who is not there', call('guest-ssh-get-authorized-keys', '{"username": "nobody-here"}')),
  one('ssh keys of a user without any', call('guest-ssh-get-authorized-keys', '{"username": "root"}')),
  one('ssh keys of no name', call('guest-ssh-get-authorized-keys', '{"username": ""}')),
];

const envelopes: readonly Exchange[] = signatures
  .filter(({ readOnly }) => readOnly)
  .flatMap(({ name }) => [
    one(`${name} with an id`, `{"execute": "${name}", "id": "a", "arguments": {"${noSuchArgument}": 0}}`),
    one(`${name} with arguments that are a list`, `{"execute": "${name}", "arguments": []}`),
  ]);

const family = (...prefixes: readonly string[]): readonly Exchange[] =>
  signatures.filter(({ name }) => prefixes.some((prefix) => name.startsWith(prefix))).flatMap(exchangesOf);

/** By the name of their transcript. */
export const commandFamilies: Readonly<Record<string, readonly Exchange[]>> = {
  'commands-channel': family('guest-sync', 'guest-ping', 'guest-info'),
  'commands-fsfreeze': family('guest-fsfreeze', 'guest-fstrim', 'guest-get-fsinfo', 'guest-get-disk'),
  'commands-file': family('guest-file'),
  'commands-exec': family('guest-exec'),
  'commands-power': family('guest-shutdown', 'guest-suspend', 'guest-get-time', 'guest-set-time'),
  'commands-hardware': family('guest-get-vcpus', 'guest-set-vcpus', 'guest-get-mem', 'guest-set-mem', 'guest-get-dev'),
  'commands-system': family(
    'guest-get-host',
    'guest-get-users',
    'guest-get-timezone',
    'guest-get-osinfo',
    'guest-get-cpu',
    'guest-get-load',
  ),
  'commands-network': family('guest-network'),
  'commands-users': family('guest-set-user', 'guest-ssh'),
  'commands-refused': refused,
  'commands-envelope': envelopes,
};
