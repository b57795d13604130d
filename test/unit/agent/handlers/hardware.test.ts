import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, test } from 'vitest';
import { hardwareHandlers } from '../../../../src/agent/handlers/hardware.js';
import { context, madeUpGuest, type MadeUpGuest } from '../../../support/guest-sources.js';

let guest: MadeUpGuest;
let handlers: ReturnType<typeof hardwareHandlers>;
beforeEach(() => {
  guest = madeUpGuest();
  handlers = hardwareHandlers(guest.sources);
});

const cpu = (name: string): string => `sys/devices/system/cpu/${name}`;
const memory = (name: string): string => `sys/devices/system/memory/${name}`;
function plant(): void {
  guest.write(cpu('cpu0/topology'), '');
  for (const number of [1, 2, 10]) guest.write(cpu(`cpu${number}/online`), number === 2 ? '0\n' : '1\n');
  guest.write(cpu('cpufreq/x'), '');
  guest.write(cpu('cpuidle/x'), '');
  guest.write(memory('block_size_bytes'), '8000000\n');
  for (const [number, state, removable] of [
    [0, 'online', '0'],
    [2, 'offline', '1'],
    [33, 'going-offline', '1'],
  ] as const) {
    guest.write(memory(`memory${number}/state`), `${state}\n`);
    guest.write(memory(`memory${number}/removable`), `${removable}\n`);
  }
  guest.write(memory('memory5/phys_index'), '00000005\n');
}
const read = (path: string): string => readFileSync(join(guest.root, path), 'utf8');
const setVcpus = (...vcpus: { 'logical-id': number; online: boolean }[]) =>
  handlers['guest-set-vcpus']({ vcpus }, context);
const setBlocks = (...blocks: { 'phys-index': number | bigint; online: boolean }[]) =>
  handlers['guest-set-memory-blocks']({ 'mem-blks': blocks }, context);

test('shows processors, those without a switch as on', () => {
  plant();
  expect(handlers['guest-get-vcpus']({}, context)).toEqual([
    { 'logical-id': 0, online: true, 'can-offline': false },
    { 'logical-id': 1, online: true, 'can-offline': true },
    { 'logical-id': 2, online: false, 'can-offline': true },
    { 'logical-id': 10, online: true, 'can-offline': true },
  ]);
});

test('switches processors, up to the first that fails', () => {
  plant();
  expect(setVcpus({ 'logical-id': 2, online: true }, { 'logical-id': 1, online: false })).toBe(2);
  expect(read(cpu('cpu2/online'))).toMatch(/^1/);
  expect(read(cpu('cpu1/online'))).toMatch(/^0/);
  expect(setVcpus({ 'logical-id': 0, online: true }, { 'logical-id': 0, online: false })).toBe(1);
  expect(setVcpus()).toBe(0);
  expect(() => setVcpus({ 'logical-id': 0, online: false })).toThrow(`logical processor #0 can't be offlined`);
  expect(() => setVcpus({ 'logical-id': 99, online: true })).toThrow(
    /^open\(".*\/cpu\/cpu99\/"\): No such file or directory$/,
  );
});

test('shows memory blocks and their size', () => {
  plant();
  expect(handlers['guest-get-memory-blocks']({}, context)).toEqual([
    { 'phys-index': 0, online: true, 'can-offline': false },
    { 'phys-index': 2, online: false, 'can-offline': true },
    { 'phys-index': 5, online: true, 'can-offline': false },
    { 'phys-index': 33, online: false, 'can-offline': true },
  ]);
  expect(handlers['guest-get-memory-block-info']({}, context)).toEqual({ size: 134217728n });
});

test('has no memory blocks where the kernel has none', () => {
  expect(handlers['guest-get-memory-blocks']({}, context)).toEqual([]);
  expect(() => handlers['guest-get-memory-block-info']({}, context)).toThrow('No such file or directory');
  expect(setBlocks({ 'phys-index': 0, online: true })).toEqual([
    { 'phys-index': 0, response: 'operation-not-supported', 'error-code': 2 },
  ]);
  mkdirSync(join(guest.root, memory('')), { recursive: true });
  expect(() => handlers['guest-get-memory-blocks']({}, context)).toThrow('guest reported zero memory blocks!');
});

test('switches memory blocks, and says of each how it went', () => {
  plant();
  expect(
    setBlocks(
      { 'phys-index': 2, online: true },
      { 'phys-index': 0, online: true },
      { 'phys-index': 77, online: true },
      { 'phys-index': 5, online: false },
      { 'phys-index': 5, online: true },
    ),
  ).toEqual([
    { 'phys-index': 2, response: 'success' },
    { 'phys-index': 0, response: 'success' },
    { 'phys-index': 77, response: 'not-found', 'error-code': 2 },
    { 'phys-index': 5, response: 'operation-not-supported', 'error-code': 2 },
    { 'phys-index': 5, response: 'success' },
  ]);
  expect(read(memory('memory2/state'))).toMatch(/^online/);
});
