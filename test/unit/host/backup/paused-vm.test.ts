// What is told of a VM that QEMU paused while it was backed up.
import { expect, test } from 'vitest';
import { checkContinued } from '../../../../src/host/backup/paused-vm.js';

test('an error with the way out if it is paused still, a line if it runs again', () => {
  const told: string[] = [];
  const tell = (text: string): void => void told.push(text);
  expect(() => {
    checkContinued('still-paused', tell);
  }).toThrow('"cont" in its monitor');
  checkContinued(undefined, tell);
  expect(told).toEqual([]);
  checkContinued('continued', tell);
  expect(told).toEqual(['QEMU had paused the VM, since a write of its guest failed: it runs again']);
});
