// Lists by kind where our answers to fuzzed bytes differ from qemu-ga 7.2's and shall. A kind that is met no more is stale,
// and fails the conformance test. `matches` is given a line of each side.
import { isDeepStrictEqual } from 'node:util';
import { MessageParser } from '../../src/wire/message-parser.js';
import { withPlainNumbers } from '../../src/wire/value.js';

export interface AcceptedKind {
  readonly name: string;
  readonly why: string;
  /** An input that shows it; sent before all others. */
  readonly example: string;
  readonly matches: (real: string, ours: string) => boolean;
}

export const acceptedKinds: readonly AcceptedKind[] = [
  {
    name: 'order of members',
    why: 'members come out in the order of a hash table there, in the order of the request here; JSON has none',
    example: '{"execute": "guest-ping", "id": {"b": 1, "a": 2}}',
    matches: (real, ours) => isDeepStrictEqual(read(real), read(ours)),
  },
  {
    name: 'numbers beyond a double',
    why: '`inf` is no JSON and would break every client; a number that reads back as infinity is',
    example: '{"execute": "guest-ping", "id": [1e400, 1]}',
    matches: (real, ours) => real.includes('inf') && isDeepStrictEqual(read(withoutInf(real)), read(ours)),
  },
  {
    name: 'which of two wrong members is named',
    why: 'a request that is wrong twice gets one of its two errors: there by a hash table, here by the order of members',
    example: '{"execute": 5, "-arguments": []}',
    matches: (real, ours) => isSameApart(withoutInf(real), ours, ['desc']) && isPair(envelope, real, ours),
  },
  {
    name: 'which of two unexpected arguments is named',
    why: 'as above',
    example: '{"execute": "guest-sync", "arguments": {"id": 1, "foo": 1, "bar": 2}}',
    matches: (real, ours) => isSameApart(withoutInf(real), ours, ['desc']) && isPair(unexpected, real, ours),
  },
  {
    name: 'what the agent is',
    why: 'guest-info gives another version, and the commands there are',
    example: '{"execute": "guest-info"}',
    matches: (real, ours) => isSameApart(withoutInf(real), ours, ['version', 'supported_commands']),
  },
  {
    name: 'filesystems: serial from sysfs, a later count of bytes',
    why: 'serials are from udev there, from sysfs here where udev does not run; both look at a filesystem in use',
    example: '{"execute": "guest-get-fsinfo"}',
    matches: (real, ours) =>
      ours.includes('"mountpoint"') && isSameApart(withoutInf(real), ours, ['serial', 'used-bytes']),
  },
];

const envelope = /"desc": "QMP input (member '.*' (is unexpected|must be an? (string|object))|lacks member 'execute')"/;
const unexpected = /"desc": "Parameter '.*' is unexpected"/;

const isPair = (text: RegExp, real: string, ours: string): boolean => text.test(real) && text.test(ours);

function isSameApart(real: string, ours: string, members: readonly string[]): boolean {
  const found = read(real);
  return found.length > 0 && isDeepStrictEqual(without(found, members), without(read(ours), members));
}

const withoutInf = (line: string): string => line.replace(/(?<=[:[,] |\[)(-?)inf(?=[,\]}])/g, '$11e999');

/** The values of a line. */
function read(line: string): readonly unknown[] {
  return new MessageParser()
    .feed(Buffer.from(`${line}\n`, 'latin1'))
    .map((message) => (message.kind === 'value' ? withPlainNumbers(message.value) : message.desc));
}

function without(value: unknown, names: readonly string[]): unknown {
  if (Array.isArray(value)) return value.map((item) => without(item, names));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([name]) => !names.includes(name))
      .map(([name, member]) => [name, without(member, names)]),
  );
}
