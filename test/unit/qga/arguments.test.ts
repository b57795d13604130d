// What is told about bad arguments, in QEMU's words; and that the declarations, the schema file and guest-info agree.
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { checkArguments } from '../../../src/qga/argument-texts.js';
import { commands, commandNames, type CommandName } from '../../../src/qga/commands.js';
import { whyDisabled, type Policy } from '../../../src/qga/server.js';
import { MessageParser } from '../../../src/wire/message-parser.js';
import type { JsonObject } from '../../../src/wire/value.js';

function parsed(json: string): JsonObject {
  const [message] = new MessageParser().feed(Buffer.from(json));
  if (message?.kind !== 'value') throw new Error(`not JSON: ${json}`);
  return message.value as JsonObject;
}
const check = (name: CommandName, json: string): unknown => checkArguments(commands[name].args, parsed(json));

describe('arguments', () => {
  test.each<[CommandName, string, string]>([
    ['guest-sync', '{}', `Parameter 'id' is missing`],
    ['guest-sync', '{"id": "x", "foo": 1}', `Invalid parameter type for 'id', expected: integer`],
    ['guest-sync', '{"id": 1.0}', `Invalid parameter type for 'id', expected: integer`],
    ['guest-sync', '{"id": 1, "foo": 1}', `Parameter 'foo' is unexpected`],
    ['guest-sync', '{"id": 1, "constructor": 1}', `Parameter 'constructor' is unexpected`],
    ['guest-fsfreeze-freeze-list', '{"mountpoints": "/"}', `Invalid parameter type for 'mountpoints', expected: array`],
    [
      'guest-fsfreeze-freeze-list',
      '{"mountpoints": ["/", 1]}',
      `Invalid parameter type for 'mountpoints[1]', expected: string`,
    ],
    [
      'guest-fsfreeze-freeze-list',
      '{"mountpoints": null}',
      `Invalid parameter type for 'mountpoints', expected: array`,
    ],
    ['bridge-freeze', '{"require": "best"}', `Parameter 'require' does not accept value 'best'`],
    ['bridge-freeze', '{"require": 1}', `Invalid parameter type for 'require', expected: string`],
    ['bridge-freeze', '{"disks": [{"serial": "a"}, 1]}', `Invalid parameter type for 'disks[1]', expected: object`],
    [
      'bridge-freeze',
      '{"disks": [{"pci-address": 4}]}',
      `Invalid parameter type for 'disks[0].pci-address', expected: string`,
    ],
    [
      'bridge-freeze',
      `{"requester": "${'é'.repeat(200)}"}`,
      `Parameter 'requester' expects at most 256 bytes, found 400`,
    ],
    ['bridge-freeze', '{"disks": []}', `Parameter 'disks' expects 1 or more disks, found 0`],
    ['bridge-freeze', '{"disks": [{"dev": "/dev/vda"}]}', `Parameter 'disks[0].dev' is unexpected`],
    ['bridge-freeze', '{"disks": [{"dev": 1}], "mountpoints": 1}', `Parameter 'disks[0].dev' is unexpected`],
    ['bridge-freeze', '{"lease-ms": -5}', `Parameter 'lease-ms' expects 1 or more milliseconds, found -5`],
    [
      'bridge-freeze',
      '{"lease-ms": 9007199254740993}',
      `Parameter 'lease-ms' expects 1 or more milliseconds, found 9007199254740993`,
    ],
    ['bridge-renew', '{"lease-ms": 5}', `Parameter 'session' is missing`],
    [
      'bridge-critical',
      '{"session": "s", "on": true, "bound-ms": 0}',
      `Parameter 'bound-ms' expects 1 or more milliseconds, found 0`,
    ],
    [
      'bridge-critical',
      '{"session": "s", "on": true, "bound-ms": 60001}',
      `Parameter 'bound-ms' expects at most 60000 milliseconds, found 60001`,
    ],
    ['bridge-freeze', '{"ends-with-channel": 1}', `Invalid parameter type for 'ends-with-channel', expected: boolean`],
  ])('%s %s', (name, json, text) => {
    expect(() => check(name, json)).toThrow(text);
  });

  test('have their defaults', () => {
    expect(check('bridge-freeze', '{}')).toEqual({
      'lease-ms': 10_000,
      require: 'auto',
      'ends-with-channel': false,
    });
    expect(check('bridge-critical', '{"session": "s", "on": true}')).toMatchObject({ 'bound-ms': 30_000 });
  });
});

describe('what may run', () => {
  const whileFrozen = ['guest-sync-delimited', 'guest-sync', 'guest-ping', 'guest-info', 'guest-fsfreeze-status'];
  const bridge = ['bridge-renew', 'bridge-thaw', 'bridge-critical', 'bridge-status'];

  test.each(['10.2', '7.2'] as const)('while frozen (%s) is the list, whatever is blocked', (compat) => {
    const policy: Policy = { compat, blocked: new Set(['guest-ping']), isFrozen: () => true };
    const allowed = commandNames.filter((name) => whyDisabled(policy, name) === undefined);
    expect([...allowed].sort()).toEqual([...whileFrozen, 'guest-fsfreeze-thaw', ...bridge].sort());
    expect(whyDisabled(policy, 'guest-get-time')).toBe(
      `Command guest-get-time has been disabled: ${compat === '7.2' ? 'the agent is in frozen state' : 'the command is not allowed'}`,
    );
  });

  test('else is what is not blocked, and only what is allowed', () => {
    const blocked = new Set(['guest-sync']);
    const isFrozen = (): boolean => false;
    expect(whyDisabled({ compat: '7.2', blocked, isFrozen }, 'guest-sync')).toBe(
      'Command guest-sync has been disabled',
    );
    const policy: Policy = { compat: '10.2', blocked, allowed: new Set(['guest-sync', 'guest-ping']), isFrozen };
    const allowed = commandNames.filter((name) => whyDisabled(policy, name) === undefined);
    expect(allowed).toEqual(['guest-ping']);
  });
});

describe('qga/qapi-schema.json', () => {
  const schema = readFileSync(new URL('../../../qga/qapi-schema.json', import.meta.url), 'utf8');
  const declared = [...schema.matchAll(/\{ 'command': '([a-z-]+)'/g)].map(([, name]) => name);

  test('declares the bridge commands, each documented', () => {
    expect(declared.sort()).toEqual(commandNames.filter((name) => name.startsWith('bridge-')).sort());
    for (const name of declared) expect(schema).toContain(`# @${name}:\n`);
  });

  test.each(commandNames.filter((name) => name.startsWith('bridge-')))('has the arguments of %s', (name) => {
    const [, data = ''] = new RegExp(`'command': '${name}',\\s*'data': \\{([^}]*)\\}`).exec(schema) ?? [];
    const names = [...data.matchAll(/'\*?([a-z-]+)':/g)].map(([, member]) => member);
    expect(names).toEqual(Object.keys(commands[name].args.entries));
    for (const [member, entry] of Object.entries(commands[name].args.entries)) {
      expect(data.includes(`'*${member}'`)).toBe((entry as { type: string }).type === 'optional');
    }
  });
});
