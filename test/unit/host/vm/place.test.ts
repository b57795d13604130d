import { expect, test } from 'vitest';
import { isSomewhere, nowhere, parsePlace, placeText } from '../../../../src/host/vm/place.js';

test.each([
  ['/run/vm1/qmp.sock', 'socket'],
  ['/run/libvirt:x', 'socket'],
  ['', 'socket'],
  ['libvirt:win 10', 'libvirt'],
  ['libvirt:guest?connect=qemu%3A%2F%2F%2Fsession', 'libvirt'],
])('%j is a place of the kind %s, and is written as it was read', (text, kind) => {
  const place = parsePlace(text);
  expect(place.kind).toBe(kind);
  expect(placeText(place)).toBe(text);
});

test('nowhere is told from a place', () => {
  expect(isSomewhere(nowhere)).toBe(false);
  expect(isSomewhere(parsePlace('/q'))).toBe(true);
  expect(isSomewhere(parsePlace('libvirt:x'))).toBe(true);
});
