// What passes for an object in arguments, and when arguments are looked at: before a sync can overtake.
import { describe, expect, test } from 'vitest';
import * as v from 'valibot';
import { defined } from '../../../src/defined.js';
import { checkArguments } from '../../../src/qga/argument-texts.js';
import { members, uint64 } from '../../../src/qga/command.js';
import { JsonFloat } from '../../../src/wire/value.js';

const schema = members({ items: v.array(members({ name: v.string() })), size: v.optional(uint64) });
const check = (items: unknown, size?: unknown) => () =>
  checkArguments(schema, { items, ...defined({ size }) } as never);

describe('an object in the arguments', () => {
  test.each([[[]], [new JsonFloat(1.5)], [null], ['text'], [7]])('is not %j', (item) => {
    expect(check([item])).toThrow("Invalid parameter type for 'items[0]', expected: object");
  });

  test('is one without the member', () => {
    expect(check([{}])).toThrow("Parameter 'items[0].name' is missing");
    expect(check([{ name: 'a' }])()).toEqual({ items: [{ name: 'a' }] });
  });

  test("has QAPI's words for a uint64", () => {
    expect(check([], 'a')).toThrow("Parameter 'size' expects uint64");
    expect(check([], 2n ** 64n - 1n)()).toEqual({ items: [], size: 2n ** 64n - 1n });
  });
});
