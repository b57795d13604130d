import { expect, test } from 'vitest';
import { definitionAt } from '../../../../src/host/vm/definition.js';
import { parsePlace } from '../../../../src/host/vm/place.js';

test('nothing is kept of a plain QEMU, and nothing is changed', async () => {
  const definition = definitionAt(parsePlace('/run/qmp.sock'));
  expect(definition.textName).toBeUndefined();
  expect(await definition.savedState()).toEqual([]);
  await definition.redefine([{ from: '/a', to: '/b', format: 'raw' }]);
});
