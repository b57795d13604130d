// What is sent to Debian's qemu-ga and to ours: data only. Each exchange is bytes (latin1 text, so that \xff is the
// byte 0xFF), in the pieces in which they are written. The runner ends each with a resync of its own.

export interface Exchange {
  readonly name: string;
  readonly sends: readonly string[];
  /** `values`: members may come in another order, and those named in `apart` are not compared. Default: bytes. */
  readonly compare?: 'values';
  readonly apart?: readonly string[];
}

const one = (name: string, text: string): Exchange => ({ name, sends: [text] });
const bytewise = (name: string, text: string): Exchange => ({ name, sends: Array.from(text) });

/** An exchange per item, named after what is sent. */
const each = (family: string, texts: readonly string[]): readonly Exchange[] =>
  texts.map((text) => one(`${family}: ${JSON.stringify(text)}`, text));

const request = (execute: string, args?: string, rest = ''): string =>
  `{"execute": "${execute}"${args === undefined ? '' : `, "arguments": ${args}`}${rest}}`;

const framing: readonly Exchange[] = [
  one('no newline', request('guest-ping')),
  one('newline', `${request('guest-ping')}\n`),
  one('newlines inside', '\n{\r\n"execute"\n:\t"guest-ping"\n}\n'),
  one('two back to back', request('guest-ping') + request('guest-ping', undefined, ', "id": 2')),
  one('three on three lines', [1, 2, 3].map((id) => request('guest-sync', `{"id": ${id}}`)).join('\n')),
  one('nothing but white space', ' \t\r\n '),
  bytewise('byte by byte', request('guest-sync', '{"id": -9223372036854775808}', ', "id": "\xc3\xa9"')),
  bytewise('byte by byte, two', request('guest-ping') + request('guest-ping', undefined, ', "id": [1.5, null]')),
  one('single quotes', `{'execute':'guest-ping'}`),
  one('single quotes with a double one in them', `{'execute':'guest-ping', 'id': 'say "x"'}`),
  one('empty arguments', request('guest-ping', '{}')),
  { name: 'cut in a string', sends: ['{"execute": "gue', 'st-ping"', '}'] },
  { name: 'cut in a keyword and a number', sends: ['{"execute": "guest-ping", "id": [tr', 'ue, 12', '34, 1', 'e2]}'] },
  { name: 'cut in an escape', sends: ['{"execute": "guest-ping", "id": "\\u00', 'e9\\', 'n"}'] },
  { name: 'cut in a UTF-8 sequence', sends: ['{"execute": "guest-ping", "id": "\xe2', '\x82', '\xac"}'] },
];

const resync: readonly Exchange[] = [
  one('0xFF alone', '\xff'),
  one('0xFE alone', '\xfe'),
  one('0xFF 0xFF', '\xff\xff'),
  one('0xFF and delimited', `\xff${request('guest-sync-delimited', '{"id": 123}')}`),
  one('delimited with an id', request('guest-sync-delimited', '{"id": 5}', ', "id": "x"')),
  one('delimited, then ping', request('guest-sync-delimited', '{"id": 5}') + request('guest-ping')),
  one('delimited that fails, then ping', request('guest-sync-delimited', '{"id": "5"}') + request('guest-ping')),
  one('0xFF in a string', `{"execute":"gue\xff${request('guest-sync-delimited', '{"id": 5}')}`),
  one('0xFF in a keyword', 'tru\xff'),
  one('0xFF in a number', '12\xff'),
  one('0xFF after an open object', '{"execute": \xff'),
  one('0xFF after open lists', '[[[[\xff'),
  one('0xFF in an escape', '"\\\xff'),
  one('0xFE in a string', '"ab\xfe"'),
  one('NUL', '\0'),
  one('NUL in a string', '"ab\0cd"'),
  one('ESC', '\x1b'),
  one('bell in a string', '"a\x07b"'),
  one('newline in a string', '"a\nb"'),
  one('TAB in a string', '"a\tb"'),
  one('DEL in a string', '{"execute":"guest-ping","id":"a\x7fb"}'),
  one('TAB while skipping', '?\t?[1]'),
  one('newline while skipping', '? ?\n"x"'),
  one('carriage return while skipping', '? ?\r?'),
  one('half a request left behind', '{"execute": "guest-ping", "id": [1, {"a": '),
  one('quote left behind', '"'),
];

const ids: readonly Exchange[] = [
  ...['7', 'null', 'true', 'false', '"a"', '""', '[]', '{}', '{"a": [1, "\xc3\xa9"]}', '[[[]], {}]'],
  ...['9223372036854775807', '-9223372036854775808', '9223372036854775808', '18446744073709551615'],
  ...['18446744073709551616', '-9223372036854775809', '0', '-0', '9007199254740993'],
  ...['1.0', '1e2', '-0.0', '0.1', '1.5e-7', '123456789.125', '1e16', '1e17', '1e300', '1e-5', '0.0001', '1E+2'],
  ...['100000000000000000000000000000000000', '2.5E-310', '1e999', '12345678901234567.5'],
  ...['"\\u0000"', '"\\u001f"', '"\\u007f"', '"\\u00e9"', '"\\u20ac"', '"\\ud83d\\ude00"', '"\xf0\x9f\x98\x80"'],
  ...['"\\"\\\\\\/\\b\\f\\n\\r\\t\\\'"', '"\xc0\x80"', '"/"', '"<>&\'"', '{"": 1}', '{"__proto__": 1}'],
  ...['{"b": 1, "a": 2}', '{"id": {"id": {"id": 1}}}'],
].map((id) => one(`id ${JSON.stringify(id)}`, request('guest-ping', undefined, `, "id": ${id}`)));

const idsOnErrors: readonly Exchange[] = [
  one('id on an unknown command', request('nope', undefined, ', "id": "a"')),
  one('id on a bad argument', request('guest-ping', '{"foo": 1}', ', "id": 7')),
  one('id without execute', '{"id": 3}'),
  one('id with an unexpected member', '{"execute": "guest-ping", "foo": 1, "id": [2]}'),
];

const integers: readonly Exchange[] = [
  ...['0', '-0', '1', '-1', '9007199254740993', '9223372036854775807', '-9223372036854775808'],
  ...['9223372036854775808', '-9223372036854775809', '18446744073709551616', '1.0', '1e2', '1.5', '"1"', 'null'],
  ...['true', '[]', '{}'],
].map((id) => one(`sync ${id}`, request('guest-sync', `{"id": ${id}}`)));

const syntax: readonly Exchange[] = [
  ...each('bare', ['hello ', 'nul ', 'True', 'NaN', '"x"', '42 ', '-', '- ', '+1', '01 ', '0x1 ', '1. ', '.5', '1e ']),
  ...each('bare', ['0e1 ', '1e+ ', '-01 ', '1.e5 ', '--1', '%d', '%', '/* x */', '#', '`', '~', '\x80', '\xe9', 'é ']),
  ...each('structure', ['}', ']', ',', ':', '{]', '[}', '[1 2]', '[1,]', '[,1]', '[1,,2]', '{,}', '{"a"}', '{"a":}']),
  ...each('structure', ['{"a" 1}', '{"a":1,}', '{"a":1 "b":2}', '{"a":1]}', '[{]}', '[[}', '{"a":[1}]', '{a:1}']),
  ...each('structure', ['{1:2}', '{null:1}', '{foo:1}', '{{"a":1}:2}', '{[]:1}', '{"a"::1}', '{"a":1:2}', ']]]]']),
  ...each('structure', ['{"a":1,"a":2}', '{"a":1,"a":foo}', '{"a":{"b":01}}', '{"id":01}', '[1, 01, 2]', '{"a":?}']),
  ...each('structure', [
    '[foo, bar]',
    '["\\x", foo]',
    '[1, foo bar, 2]',
    '{"execute": "guest-ping", }',
    '[[[[[1,]]]]]',
  ]),
  ...each('strings', ['"\\x"', '"\\"', '"\\u12"', '"\\u12g4"', '"\\uzzzz"', '"\\ud800"', '"\\udc00"', '"\\ud800x"']),
  ...each('strings', [
    '"\\ud800\\u0041"',
    '"\\ud800\\ud800"',
    '"\\ud800\\n"',
    '"\\ud800\\u12"',
    '"\\ufffe"',
    '"\\uffff"',
  ]),
  ...each('strings', ['"\\ufdd0"', '"\\ud83f\\udffe"', '"\xff"', '"\x80"', '"\xc3"', '"\xc3(\xa9"', '"\xe2\x82"']),
  ...each('strings', [
    '"\xed\xa0\x80"',
    '"\xc0\x81"',
    '"\xf4\x90\x80\x80"',
    '"\xef\xbf\xbe"',
    '"\xf8\x88\x80\x80\x80"',
  ]),
  ...each('strings', [
    '"\xe0\x80\xaf"',
    "'a\\'b'",
    "'a\"b'",
    "'a",
    '"a\'b"',
    '"\\u00"',
    '"\\U0041"',
    '"\xfd\xbf\xbf\xbf\xbf\xbf"',
  ]),
  ...each('stray text', [
    '{"execute":"gu\xc3\xa9st\x01',
    '"\xe2\x82\x01',
    '"\xf0\x9f\x98\x80\x01',
    '"\xc3\x01',
    '"\xc0\x80\x01',
  ]),
  one('a keyword too long for the message', `${'a'.repeat(2000)} `),
];

const envelope: readonly Exchange[] = [
  ...each('envelope', ['[]', '42 ', 'null ', '"s"', 'true ', '1.5 ', '{}', '{"foo": 1}', '{"execute": 5}']),
  ...each('envelope', ['{"execute": null}', '{"execute": ["guest-ping"]}', '{"arguments": {}}', '{"execute": "nope"}']),
  ...each('envelope', ['{"execute": "guest-ping", "arguments": []}', '{"execute": "guest-ping", "arguments": null}']),
  ...each('envelope', ['{"execute": "guest-ping", "arguments": 1}', '{"execute": "guest-ping", "foo": 1}']),
  ...each('envelope', ['{"exec-oob": "guest-ping"}', '{"execute": "guest-ping", "exec-oob": "guest-ping"}']),
  ...each('envelope', ['{"execute": "", "id": 1}', '{"execute": "GUEST-PING"}', '{"execute": "guest-ping "}']),
  ...each('envelope', ['{"execute": "toString"}', '{"execute": "__proto__"}', '{"execute": "qmp_capabilities"}']),
  ...each('envelope', ['{"Execute": "guest-ping"}', '{"execute": "nope", "arguments": []}', '{"execute": "\\u0000"}']),
  ...each('envelope', ['{"execute": "gu\\u0065st-ping"}', '{"execute": "n\\u00f6pe\\n"}', '{"event": "x"}']),
  one('execute wrong and arguments wrong', '{"execute": 5, "arguments": []}'),
];

const names = ['guest-ping', 'guest-info', 'guest-fsfreeze-status', 'guest-get-fsinfo', 'guest-get-osinfo'];
const argumentErrors: readonly Exchange[] = [
  ...[...names, 'guest-get-host-name', 'guest-get-time'].flatMap((name) => [
    one(`${name} with an argument`, request(name, '{"foo": 1}')),
    one(`${name} with a null argument`, request(name, '{"id": null}')),
    one(`${name} with arguments not an object`, request(name, '[]', ', "id": 1')),
  ]),
  ...['guest-sync', 'guest-sync-delimited'].flatMap((name) => [
    one(`${name} without arguments`, request(name)),
    one(`${name} with empty arguments`, request(name, '{}', ', "id": 0')),
    one(`${name} with another argument`, request(name, '{"foo": 1}')),
    one(`${name} with one too many`, request(name, '{"id": 1, "foo": 1}')),
    one(`${name} with a wrong one and one too many`, request(name, '{"foo": 1, "id": "x"}')),
    one(`${name} with two too many`, request(name, '{"id": 1, "foo": 1, "bar": 2}')),
    one(`${name} with toString`, request(name, '{"id": 1, "toString": 1}')),
    one(`${name} with __proto__`, request(name, '{"id": 1, "__proto__": {}}')),
    one(`${name} with a member name of many bytes`, request(name, '{"id": 1, "\xe2\x82\xac": 1}')),
  ]),
  // guest-get-time is the command blocked on both sides.
  one('a blocked command', request('guest-get-time')),
  one('a blocked command with an id', request('guest-get-time', undefined, ', "id": 4')),
];

const results: readonly Exchange[] = [
  one('status', request('guest-fsfreeze-status', undefined, ', "id": "s"')),
  one('host name', request('guest-get-host-name')),
  { ...one('osinfo', request('guest-get-osinfo')), compare: 'values' },
  // Both look at a filesystem in use; and serials are from udev there, from sysfs here where udev does not run.
  { ...one('fsinfo', request('guest-get-fsinfo')), compare: 'values', apart: ['used-bytes', 'serial'] },
];

const nested = (depth: number): string => '['.repeat(depth) + ']'.repeat(depth);
const objects = (depth: number): string => '{"a":'.repeat(depth) + '1' + '}'.repeat(depth);
const limits: readonly Exchange[] = [
  one('nesting 1024', nested(1024)),
  one('nesting 1025', nested(1025)),
  one('nesting 1024 of objects', objects(1024)),
  one('nesting 1025 of objects', objects(1025)),
  one('nesting 1100 of both', '[{"a":'.repeat(550) + '1' + '}]'.repeat(550)),
  one('an id nested 1023', request('guest-ping', undefined, `, "id": ${nested(1023)}`)),
  one('an id of 1 MiB', request('guest-ping', undefined, `, "id": "${'x'.repeat(1024 * 1024)}"`)),
  one('an id of 256 KiB, escaped', request('guest-ping', undefined, `, "id": "${'\xc3\xa9'.repeat(128 * 1024)}"`)),
  one('tokens: 2 Mi', `[${'1,'.repeat(1024 * 1024 - 2)}1 ,1]`),
  one('tokens: 2 Mi and 1', `[${'1,'.repeat(1024 * 1024 - 1)}1 ]`),
  one('token of 64 MiB and more', `"${'x'.repeat(64 * 1024 * 1024)} and more"`),
  one('tokens of 64 MiB together', `["${'x'.repeat(33 * 1024 * 1024)}", "${'y'.repeat(33 * 1024 * 1024)}", 1]`),
  one('1000 requests at once', request('guest-ping').repeat(1000)),
];

/** By the name of their transcript. */
export const families: Readonly<Record<string, readonly Exchange[]>> = {
  framing,
  resync,
  ids: [...ids, ...idsOnErrors],
  integers,
  syntax,
  envelope,
  arguments: argumentErrors,
  results,
  limits,
};

export const exchanges: readonly Exchange[] = Object.values(families).flat();
