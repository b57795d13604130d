import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { fileHandlers } from '../../../../src/agent/handlers/files.js';
import { context, madeUpGuest, type MadeUpGuest } from '../../../support/guest-sources.js';

let guest: MadeUpGuest;
let files: ReturnType<typeof fileHandlers>;
let mayWrite: boolean;
const make = () => fileHandlers({ ...guest.sources, mayWrite: () => mayWrite });
beforeEach(() => {
  guest = madeUpGuest();
  mayWrite = true;
  files = make();
});
afterEach(async () => {
  await files.close();
});

const b64 = (text: string): string => Buffer.from(text).toString('base64');
const open = async (name: string, mode = 'r') =>
  await files.handlers['guest-file-open']({ path: join(guest.root, name), mode }, context);
const read = async (handle: number | bigint, count?: number | bigint) =>
  await files.handlers['guest-file-read']({ handle, count }, context);
const write = async (handle: number | bigint, text: string, count?: number) =>
  await files.handlers['guest-file-write']({ handle, 'buf-b64': b64(text), count }, context);
const seek = async (handle: number | bigint, offset: number | bigint, whence: number | 'set' | 'cur' | 'end') =>
  await files.handlers['guest-file-seek']({ handle, offset, whence }, context);
const close = async (handle: number | bigint) => await files.handlers['guest-file-close']({ handle }, context);

test('reads in pieces up to the end of the file', async () => {
  guest.write('f', 'hello world');
  const handle = await open('f');
  expect(handle).toBe(1000n);
  expect(await read(handle, 5)).toEqual({ count: 5, 'buf-b64': b64('hello'), eof: false });
  expect(await read(handle, 0)).toEqual({ count: 0, 'buf-b64': '', eof: false });
  expect(await read(handle)).toEqual({ count: 6, 'buf-b64': b64(' world'), eof: true });
  expect(await read(handle)).toEqual({ count: 0, 'buf-b64': '', eof: true });
  expect(await seek(handle, -5n, 'end')).toEqual({ position: 6n, eof: false });
  expect(await seek(handle, 1, 1)).toEqual({ position: 7n, eof: false });
  expect(await read(handle, 2)).toMatchObject({ 'buf-b64': b64('or') });
  expect(await close(handle)).toEqual({});
  await expect(read(handle)).rejects.toThrow(`handle '1000' has not been found`);
});

test('writes at once, at its position, and where asked to the end', async () => {
  const handle = await open('f', 'w+');
  expect(statSync(join(guest.root, 'f')).mode & 0o777).toBe(0o666);
  expect(await write(handle, 'hello world')).toEqual({ count: 11, eof: false });
  expect(readFileSync(join(guest.root, 'f'), 'utf8')).toBe('hello world');
  await seek(handle, 0, 'set');
  expect(await write(handle, 'HELLO', 4)).toEqual({ count: 4, eof: false });
  const appending = await open('f', 'ab');
  expect(await seek(appending, 0, 'cur')).toEqual({ position: 0n, eof: false });
  await write(appending, '!');
  expect(await seek(appending, 0, 'cur')).toEqual({ position: 12n, eof: false });
  expect(readFileSync(join(guest.root, 'f'), 'utf8')).toBe('HELLo world!');
  expect(await files.handlers['guest-file-flush']({ handle }, context)).toEqual({});
});

test.each(['r', 'rb', 'w', 'wb', 'a', 'ab', 'r+', 'rb+', 'r+b', 'w+', 'wb+', 'w+b', 'a+', 'ab+', 'a+b'])(
  'knows the mode %s',
  async (mode) => {
    guest.write('f', 'x');
    await close(await open('f', mode));
  },
);

test.each(['', 'x', 'rw', 'r++', 'br', 'r b', 'rbb', 'r+b+'])('does not know the mode %j', async (mode) => {
  await expect(open('f', mode)).rejects.toThrow(`invalid file open mode '${mode}'`);
});

test('says what qemu-ga says', async () => {
  guest.write('f', 'x');
  await expect(open('none')).rejects.toThrow(
    `failed to open file '${guest.root}/none' (mode: 'r'): No such file or directory`,
  );
  await expect(open('.', 'w')).rejects.toThrow('Is a directory');
  await expect(open('f\0')).rejects.toThrow('Invalid argument');
  const handle = await open('f');
  await expect(read(handle, -1)).rejects.toThrow(`value '-1' is invalid for argument count`);
  await expect(read(handle, 48n * 1024n * 1024n + 1n)).rejects.toThrow(
    `value '50331649' is invalid for argument count`,
  );
  await expect(write(handle, 'x')).rejects.toThrow('failed to write to file: Bad file descriptor');
  await expect(seek(handle, -2, 'cur')).rejects.toThrow('failed to seek file: Invalid argument');
  await expect(seek(handle, 0, 7)).rejects.toThrow('invalid whence code 7');
  await expect(read(await open('.'))).rejects.toThrow('failed to read file: Is a directory');
  const both = await open('f', 'r+');
  await expect(write(both, 'ab', 3)).rejects.toThrow(`value '3' is invalid for argument count`);
  await expect(
    files.handlers['guest-file-write']({ handle: both, 'buf-b64': '!!!', count: undefined }, context),
  ).rejects.toThrow('Base64 data contains invalid characters');
});

test('keeps positions beyond what a number holds', async () => {
  guest.write('f', 'x');
  const handle = await open('f');
  const far = 2n ** 62n + 1n;
  expect(await seek(handle, far, 'set')).toEqual({ position: far, eof: false });
  expect(await seek(handle, -1, 'cur')).toEqual({ position: far - 1n, eof: false });
});

test('does not wait for a pipe, and cannot seek in one', async () => {
  execFileSync('mkfifo', [join(guest.root, 'p')]);
  await expect(open('p', 'w')).rejects.toThrow('No such device or address');
  const reader = await open('p');
  const writer = await open('p', 'w');
  await expect(read(reader)).rejects.toThrow('failed to read file: Resource temporarily unavailable');
  await write(writer, 'some');
  expect(await read(reader)).toEqual({ count: 4, 'buf-b64': b64('some'), eof: false });
  await expect(seek(reader, 0, 'set')).rejects.toThrow('failed to seek file: Illegal seek');
});

test('opens for writing only where the policy lets it, and then leaves no file', async () => {
  mayWrite = false;
  guest.write('f', 'x');
  await close(await open('f', 'rb'));
  for (const mode of ['w', 'a', 'r+', 'w+b']) {
    await expect(open('new', mode)).rejects.toThrow(`(mode: '${mode}'): the policy allows reading only`);
  }
  expect(existsSync(join(guest.root, 'new'))).toBe(false);
});

test('opens no more than 32, and closes all at the end', async () => {
  guest.write('f', 'x');
  const open32 = await Promise.all(Array.from({ length: 32 }, () => open('f')));
  await expect(open('f')).rejects.toThrow('32 files are open');
  await close(open32[0] ?? 0);
  await open('f');
  const ours = (): number => readdirSync('/proc/self/fd').filter((fd) => linkOf(fd).startsWith(guest.root)).length;
  expect(ours()).toBe(32);
  await files.close();
  expect(ours()).toBe(0);
});

test('gives no handle twice, even to the next agent', async () => {
  guest.write('f', 'x');
  await open('f');
  const last = await open('f');
  await files.close();
  files = make();
  await expect(read(last)).rejects.toThrow('has not been found');
  expect(await open('f')).toBe(1002n);
});

function linkOf(fd: string): string {
  try {
    return execFileSync('readlink', [`/proc/${process.pid}/fd/${fd}`], { encoding: 'utf8' }).trim();
  } catch {
    return '';
  }
}
