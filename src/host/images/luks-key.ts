// The key of encrypted files: a passphrase, in the bytes that QEMU takes from a file. It is in no argument, environment,
// log or record: qemu-img and QEMU get it in a file without a name.
import { constants } from 'node:fs';
import { access, open, rm, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { UsageError } from '../../errors.js';

/** What QEMU calls it in the options of an image. */
export const KEY_ID = 'key';
/** The value of `--object` for a program whose standard input is the key's file. */
export const KEY_OBJECT = `secret,id=${KEY_ID},file=/proc/self/fd/0`;

const MOST_BYTES = 4096;
/** Fewer are a mistake, or guessed. */
const LEAST_BYTES = 8;
/** So many of them nobody guesses, if they are random. */
const RANDOM_KEY_BYTES = 32;
/** For each guess at a shorter one (PBKDF2 with SHA-256): a fifth of a second, for QEMU on a processor of today. */
const PASSPHRASE_ITERATIONS = 600_000;
const RANDOM_KEY_ITERATIONS = 10_000;
const NEWLINE = 10;
/** In memory. */
const MEMORY = '/dev/shm';

export class LuksKey {
  readonly #bytes: Buffer;
  /** Where it comes from, for people. */
  readonly from: string;

  /** Throws a UsageError `E_KEY` for bytes that QEMU takes for no key. */
  constructor(bytes: Buffer, from: string) {
    const expected = 'expected 1 to 4096 bytes of text in UTF-8, as QEMU does';
    if (bytes.length === 0) throw new UsageError('E_KEY', `the key of ${from} is empty: ${expected}`);
    if (bytes.length > MOST_BYTES) throw new UsageError('E_KEY', `the key of ${from} is too long: ${expected}`);
    if (bytes.includes(0) || !bytes.equals(Buffer.from(bytes.toString('utf8')))) {
      const message = `the key of ${from} is no text: ${expected}; "openssl rand -base64 32" makes one`;
      throw new UsageError('E_KEY', message);
    }
    const word = bytes.toString('utf8').trim();
    // As programs print what they do not have; "null" is too short anyway.
    if (Buffer.byteLength(word) < LEAST_BYTES || word === 'undefined') {
      const message = `the key of ${from} is blank, shorter than ${LEAST_BYTES} bytes without blanks around it, or "undefined"`;
      throw new UsageError('E_KEY', `${message}; "openssl rand -base64 32" makes one`);
    }
    this.#bytes = bytes;
    this.from = from;
  }

  get bytes(): Buffer {
    return this.#bytes;
  }

  get text(): string {
    return this.#bytes.toString('utf8');
  }

  /** Rounds of stretching that it needs. */
  get iterations(): number {
    return this.#bytes.length >= RANDOM_KEY_BYTES ? RANDOM_KEY_ITERATIONS : PASSPHRASE_ITERATIONS;
  }

  /** What people overlook when it does not fit. */
  get ending(): string {
    return this.#bytes.at(-1) === NEWLINE
      ? 'it ends with a newline, which counts'
      : 'it ends without a newline, which would count';
  }

  /** A file that holds it and has no name, so that nothing is left of it, however we end. The caller closes it. */
  async openFile(): Promise<FileHandle> {
    const folder = await access(MEMORY, constants.W_OK).then(
      () => MEMORY,
      () => tmpdir(),
    );
    const name = join(folder, `fsb-${randomUUID()}`);
    const file = await open(name, 'wx+', 0o600);
    try {
      await rm(name);
      await file.write(this.#bytes, 0, this.#bytes.length, 0);
      return file;
    } catch (error) {
      await file.close();
      throw error;
    }
  }
}

/** The standard input of a program that may need the key. */
export function keyInput(file: FileHandle | undefined): 'ignore' | 3 {
  // execa takes any descriptor; its types stop at 9.
  return file === undefined ? 'ignore' : (file.fd as 3);
}
