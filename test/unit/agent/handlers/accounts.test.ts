import {
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
  readdirSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { accountHandlers } from '../../../../src/agent/handlers/accounts.js';
import { loggedIn } from '../../../../src/agent/utmp.js';
import { context, madeUpGuest, type MadeUpGuest, type Tools } from '../../../support/guest-sources.js';

let guest: MadeUpGuest;
let tools: Record<string, Tools[string]>;
let handlers: ReturnType<typeof accountHandlers>;
const make = (compat?: '7.2'): void => {
  tools = {};
  guest = madeUpGuest(tools, compat);
  handlers = accountHandlers(guest.sources);
  const { uid, gid } = statSync(guest.root);
  mkdirSync(join(guest.root, 'home'));
  tools['getent passwd -- ann'] = { stdout: `ann:x:${uid}:${gid}:Ann:${guest.root}/home:/bin/sh\n` };
  tools['getent passwd -- nosuch'] = { exitCode: 2 };
};
beforeEach(() => {
  make();
});

describe('users', () => {
  const record = (type: number, user: string, seconds: number, micros: number): Buffer => {
    const bytes = Buffer.alloc(384);
    bytes.writeInt16LE(type, 0);
    bytes.write(user, 44);
    bytes.writeInt32LE(seconds, 340);
    bytes.writeInt32LE(micros, 344);
    return bytes;
  };

  test('are those with a process, each once with the earliest login', async () => {
    const all = [record(2, 'reboot', 1, 0), record(7, 'root', 1700000000, 250000), record(7, 'ann', 1600000000, 0)];
    all.push(record(7, 'root', 1500000000, 500000), record(8, 'bob', 5, 0), record(7, 'x'.repeat(32), 9, 0));
    guest.write('utmp', Buffer.concat([...all, Buffer.alloc(100)]));
    if (process.arch !== 'x64') return;
    expect(await handlers['guest-get-users']({}, context)).toEqual([
      { user: 'root', 'login-time': 1500000000.5 },
      { user: 'ann', 'login-time': 1600000000 },
      { user: 'x'.repeat(32), 'login-time': 9 },
    ]);
  });

  test('are none without the file', async () => {
    expect(await handlers['guest-get-users']({}, context)).toEqual([]);
  });

  test('on arm64 have wide times', () => {
    const bytes = Buffer.alloc(400);
    bytes.writeInt16LE(7, 0);
    bytes.write('ann', 44);
    bytes.writeBigInt64LE(1600000000n, 344);
    bytes.writeBigInt64LE(500000n, 352);
    expect(loggedIn(bytes, 'arm64')).toEqual([{ user: 'ann', 'login-time': 1600000000.5 }]);
  });
});

describe('a password', () => {
  const set = async (password: string, crypted = false, username = 'ann') =>
    await handlers['guest-set-user-password'](
      { username, password: Buffer.from(password, 'latin1').toString('base64'), crypted },
      context,
    );

  test('is given to chpasswd on its standard input, byte for byte, and nowhere else', async () => {
    tools['chpasswd'] = tools['chpasswd -e'] = {};
    expect(await set('pa:ss\xe9 "word"')).toEqual({});
    await set('$6$hash', true);
    expect(guest.calls).toEqual([
      { words: ['chpasswd'], input: 'ann:pa:ss\xe9 "word"\n' },
      { words: ['chpasswd', '-e'], input: 'ann:$6$hash\n' },
    ]);
    await set('ends\0here');
    expect(guest.calls[2]?.input).toBe('ann:ends\n');
  });

  test('and user that would be another line are refused', async () => {
    tools['chpasswd'] = {};
    await expect(set('x\nroot:y')).rejects.toThrow('forbidden characters in raw password');
    await expect(set('x', false, 'a:b')).rejects.toThrow('forbidden characters in username');
    await expect(set('x', false, 'a\nb')).rejects.toThrow('forbidden characters in username');
    expect(guest.calls).toEqual([]);
  });

  test('that cannot be set is said so, without it', async () => {
    await expect(set('secret')).rejects.toThrow(
      `child process has failed to set user password: failed to exec 'chpasswd': No such file or directory (package passwd, shadow-utils on RHEL)\n`,
    );
    tools['chpasswd'] = { exitCode: 1, output: `chpasswd: line 1: user 'ann' does not exist\n` };
    await expect(set('secret')).rejects.toThrow(`set user password: chpasswd: line 1: user 'ann' does not exist`);
    make('7.2');
    tools['chpasswd'] = { exitCode: 1, output: 'x' };
    await expect(set('secret')).rejects.toThrow(/^child process has failed to set user password$/);
  });
});

describe('SSH keys', () => {
  const file = (): string => join(guest.root, 'home/.ssh/authorized_keys');
  const text = (): string => readFileSync(file(), 'utf8');
  const get = async (username = 'ann') => await handlers['guest-ssh-get-authorized-keys']({ username }, context);
  const add = async (keys: string[], reset = false) =>
    await handlers['guest-ssh-add-authorized-keys']({ username: 'ann', keys, reset }, context);
  const remove = async (keys: string[]) =>
    await handlers['guest-ssh-remove-authorized-keys']({ username: 'ann', keys }, context);

  test('are added once, shown from behind, removed', async () => {
    expect(await add(['algo one', 'algo two', 'algo one'])).toEqual({});
    expect(text()).toBe('algo one\nalgo two\n');
    expect(statSync(file()).mode & 0o777).toBe(0o600);
    expect(statSync(join(guest.root, 'home/.ssh')).mode & 0o777).toBe(0o700);
    await add(['algo two', 'algo three']);
    expect(text()).toBe('algo one\nalgo two\nalgo three\n');
    expect(await get()).toEqual({ keys: ['algo three', 'algo two', 'algo one'] });
    await remove(['algo two', 'algo none']);
    expect(text()).toBe('algo one\nalgo three\n');
    await add(['algo new'], true);
    expect(text()).toBe('algo new\n');
    await add([], true);
    expect(text()).toBe('');
    expect(readdirSync(join(guest.root, 'home/.ssh'))).toEqual(['authorized_keys']);
  });

  test('leave comments where they are', async () => {
    guest.write('home/.ssh/authorized_keys', '# mine\n  algo one  \n\nalgo two');
    expect(await get()).toEqual({ keys: ['algo two', 'algo one'] });
    await remove(['algo two']);
    expect(text()).toBe('# mine\n  algo one  \n\n');
  });

  test('that are none are refused, and users that are none', async () => {
    await expect(add(['# x'])).rejects.toThrow(`invalid OpenSSH public key: '# x'`);
    await expect(add(['a\nb'])).rejects.toThrow('invalid OpenSSH public key');
    await expect(get('nosuch')).rejects.toThrow(`failed to lookup user 'nosuch': no such user`);
    await expect(get()).rejects.toThrow(
      `failed to read '${file()}': Failed to open file \u201C${file()}\u201D: No such file or directory`,
    );
    expect(await remove(['algo x'])).toEqual({});
    expect(existsSync(file())).toBe(false);
  });

  test('are not written through a link that the user made', async () => {
    mkdirSync(join(guest.root, 'other'));
    writeFileSync(join(guest.root, 'other/authorized_keys'), 'secret\n');
    symlinkSync(join(guest.root, 'other'), join(guest.root, 'home/.ssh'));
    await expect(add(['algo x'])).rejects.toThrow('its folder: Not a directory');
    await expect(remove(['algo x'])).rejects.toThrow('its folder: Not a directory');
    expect(readFileSync(join(guest.root, 'other/authorized_keys'), 'utf8')).toBe('secret\n');
  });

  test('are not read from a file that is not the user his own', async () => {
    mkdirSync(join(guest.root, 'home/.ssh'));
    writeFileSync(join(guest.root, 'secret'), 'secret\n');
    symlinkSync(join(guest.root, 'secret'), file());
    await expect(add(['algo x'])).rejects.toThrow(`failed to read '${file()}': Too many levels of symbolic links`);
    expect(readFileSync(join(guest.root, 'secret'), 'utf8')).toBe('secret\n');
  });

  test.skipIf(process.getuid?.() !== 0)('are not written to another user’s folder', async () => {
    mkdirSync(join(guest.root, 'home/.ssh'));
    chownSync(join(guest.root, 'home/.ssh'), 4711, 4711);
    await expect(add(['algo x'])).rejects.toThrow('its folder is of another user');
  });
});
