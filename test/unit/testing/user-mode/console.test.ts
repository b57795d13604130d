// The management console of a user-mode kernel, against a scripted one.
import path from 'node:path';
import { readdir } from 'node:fs/promises';
import { execa } from 'execa';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { askConsole } from '../../../../src/testing/user-mode/console.js';
import { requires } from '../../../support/requires.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

/** Answers one request as the kernel's driver does: an error number, more to come, length, text. */
const KERNEL = `
use Socket;
socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die;
bind($s, sockaddr_un($ARGV[0])) or die;
$| = 1; print "bound\\n";
my $from = recv($s, my $request, 4096, 0);
my ($magic, $version, $length, $text) = unpack("VVVZ512", $request);
my $ok = $magic == 0xcafebabe && $version == 2 && $length == length $text;
my ($error, $answer) = $text =~ /^remove/ ? (1, "Device is still open") : (0, $ok ? "OK $text" : "bad request");
send($s, pack("VVVa512", $error, 0, length $answer, $answer), 0, $from);
`;

requires('socat', 'perl')('the console', () => {
  let place: Scratch;
  let kernel: { kill(): unknown } | undefined;

  beforeEach(() => {
    place = scratch();
  });
  afterEach(() => {
    kernel?.kill();
    place[Symbol.dispose]();
  });

  async function startKernel(): Promise<string> {
    const socket = path.join(place.dir, 'mconsole');
    const child = execa('perl', ['-e', KERNEL, socket], { reject: false, timeout: 20_000 });
    kernel = child;
    await new Promise((resolve) => child.stdout.once('data', resolve));
    return socket;
  }

  test('takes a command and gives its answer, and leaves no socket behind', async () => {
    const socket = await startKernel();
    expect(await askConsole(socket, 'config ubd2=/some/file')).toBe('OK config ubd2=/some/file');
    expect(await readdir(place.dir)).toEqual(['mconsole']);
  });

  test("a refusal is told in the kernel's words", async () => {
    const socket = await startKernel();
    await expect(askConsole(socket, 'remove ubd2')).rejects.toMatchObject({
      code: 'E_CONSOLE_REFUSED',
      message: 'console of the guest: remove ubd2: Device is still open',
    });
  });

  test('no console is told at once', async () => {
    const before = performance.now();
    await expect(askConsole(path.join(place.dir, 'none'), 'version')).rejects.toThrow(
      /none.*No such file|No such file/,
    );
    expect(performance.now() - before).toBeLessThan(5000);
  });

  test('a command that is too long for a request is refused before it is sent', async () => {
    await expect(askConsole(path.join(place.dir, 'none'), 'x'.repeat(512))).rejects.toThrow(/at most 511 bytes/);
  });
});
