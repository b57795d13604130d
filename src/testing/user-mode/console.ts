// Commands for a user-mode kernel's management console, by which disks come and go: datagrams on a unix socket. Node has no
// unix datagrams, so socat (a package that the tests need anyway) sends them. Source: arch/um/drivers/mconsole.h of Linux.
import { rm } from 'node:fs/promises';
import { execa } from 'execa';
import { BridgeError } from '../../errors.js';

const MAGIC = 0xcafebabe;
const VERSION = 2;
/** Magic, version and length before the text of a request; error, more and length before that of a reply. */
const HEAD = 12;
const LONGEST_TEXT = 511;
const REPLY_LIMIT_MS = 10_000;

/** Runs one command, such as `config ubd2=FILE`. Throws BridgeError `E_CONSOLE_REFUSED` with the kernel's own words. */
export async function askConsole(socket: string, command: string): Promise<string> {
  if (Buffer.byteLength(command) > LONGEST_TEXT) {
    throw new BridgeError(
      'E_CONSOLE_REFUSED',
      `console command: expected at most ${LONGEST_TEXT} bytes, found ${command}`,
    );
  }
  const request = Buffer.alloc(HEAD + LONGEST_TEXT + 1);
  request.writeUInt32LE(MAGIC, 0);
  request.writeUInt32LE(VERSION, 4);
  request.writeUInt32LE(Buffer.byteLength(command), 8);
  request.write(command, HEAD);
  const own = `${socket}.${crypto.randomUUID().slice(0, 8)}`;
  const asking = execa('socat', ['STDIO', `UNIX-SENDTO:${socket},bind=${own}`], {
    encoding: 'buffer',
    reject: false,
    timeout: REPLY_LIMIT_MS,
  });
  try {
    asking.stdin.write(request); // and left open: socat would wait no longer for the answer
    const answered = new Promise<Buffer>((resolve) => asking.stdout.once('data', resolve));
    const failed = asking.then(({ stderr }) =>
      Buffer.from(`${' '.repeat(HEAD)}${Buffer.from(stderr).toString('utf8')}`),
    );
    const reply = await Promise.race([answered, failed]);
    const text = reply.subarray(HEAD).toString('utf8').replaceAll('\0', '').trim();
    if (reply.length < HEAD || reply.readInt32LE(0) !== 0) {
      throw new BridgeError('E_CONSOLE_REFUSED', `console of the guest: ${command}: ${text || 'no answer'}`);
    }
    return text;
  } finally {
    asking.kill();
    await asking;
    await rm(own, { force: true });
  }
}
