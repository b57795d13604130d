// guest-file-*: files by handle. As in qemu-ga, opening does not wait (FIFOs, terminals). Unlike there, nothing is
// buffered: what was written is in the file. At most OPEN_LIMIT files are open, one operation waits at most
// OPERATION_LIMIT_MS for the kernel, and all files are closed when the agent ends. Opening, reading, writing:
// open-file.ts.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { withLimit } from '../../deadline.js';
import { BridgeError, isErrno } from '../../errors.js';
import { refuse } from '../../qga/server.js';
import type { ChannelContext } from '../origin.js';
import { decodeBase64 } from '../base64.js';
import { errnoText } from '../errno-text.js';
import { baseOf, modeFlags, openFile, readFrom, readsOnly, writeTo, type OpenFile, type Whence } from '../open-file.js';
import type { Sources } from '../kernel-files.js';
import { family } from './types.js';

const OPEN_LIMIT = 32;
const READ_DEFAULT = 4096;
/** QGA_READ_COUNT_MAX. */
const READ_LIMIT = 48 * 1024 * 1024;
/** A dead network filesystem may never answer. */
const OPERATION_LIMIT_MS = 30_000;
/** Operations that may wait for the kernel beyond that limit: Node has few threads for files. */
const LOST_LIMIT = 2;
const FIRST_HANDLE = 1000;
const INT64_MAX = 2n ** 63n - 1n;

interface FileOptions extends Sources {
  /** Whether the policy lets this channel write. */
  readonly mayWrite: (context: ChannelContext) => boolean;
}

export function fileHandlers(options: FileOptions) {
  const files = new Map<bigint, OpenFile>();
  const numbers = handleNumbers(options.runtimeDir);
  const limited = kernelLimit();
  const find = (handle: number | bigint): OpenFile =>
    files.get(BigInt(handle)) ?? refuse(`handle '${handle}' has not been found`);

  const handlers = family({
    async 'guest-file-open'({ path, mode }, context) {
      const flags = modeFlags(mode);
      if (flags === undefined) return refuse(`invalid file open mode '${mode}'`);
      if (!readsOnly(flags) && !options.mayWrite(context)) {
        refuse(`failed to open file '${path}' (mode: '${mode}'): the policy allows reading only`);
      }
      if (files.size >= OPEN_LIMIT) refuse(`${OPEN_LIMIT} files are open, which is the limit: close one`);
      const opening = openFile(path, flags);
      const file = await limited(`open '${path}'`, opening, (error) =>
        refuse(`failed to open file '${path}' (mode: '${mode}'): ${errnoText(error)}`),
      ).catch((error: unknown) => {
        // It may still be opened, when nobody waits for it any more.
        opening.then((late) => late.file.close()).catch(() => undefined);
        throw error;
      });
      const handle = numbers();
      files.set(handle, file);
      return handle;
    },
    async 'guest-file-close'({ handle }) {
      const { file } = find(handle);
      files.delete(BigInt(handle));
      await limited('close', file.close(), (error) => refuse(`failed to close handle: ${errnoText(error)}`));
      return {};
    },
    async 'guest-file-read'({ handle, count: wanted = READ_DEFAULT }) {
      const open = find(handle);
      if (wanted < 0 || wanted > READ_LIMIT) refuse(`value '${wanted}' is invalid for argument count`);
      const { bytes, eof } = await limited('read', readFrom(open, Number(wanted)), (error) =>
        refuse(`failed to read file: ${errnoText(error)}`),
      );
      return { count: bytes.length, 'buf-b64': bytes.toString('base64'), eof };
    },
    async 'guest-file-write'({ handle, 'buf-b64': text, count: wanted }) {
      const open = find(handle);
      const bytes = decodeBase64(text);
      const count = wanted ?? bytes.length;
      if (count < 0 || count > bytes.length) refuse(`value '${count}' is invalid for argument count`);
      const written = await limited('write', writeTo(open, bytes.subarray(0, Number(count))), (error) =>
        refuse(`failed to write to file: ${errnoText(error)}`),
      );
      return { count: written, eof: false };
    },
    async 'guest-file-seek'({ handle, offset, whence }) {
      const open = find(handle);
      const from = whenceName(whence);
      const failed = (error: unknown): never => refuse(`failed to seek file: ${errnoText(error)}`);
      const base = await limited('seek', baseOf(open, from, options.sysRoot), failed);
      const position = base + BigInt(offset);
      if (position < 0n || position > INT64_MAX) refuse('failed to seek file: Invalid argument');
      open.position = position;
      return { position, eof: false };
    },
    // Nothing is buffered here, and qemu-ga does not make the kernel write either.
    'guest-file-flush'({ handle }) {
      find(handle);
      return {};
    },
  });
  return {
    handlers,
    async close() {
      const all = [...files.values()];
      files.clear();
      await Promise.all(all.map(({ file }) => file.close()));
    },
  };
}

function whenceName(whence: number | bigint | Whence): Whence {
  if (typeof whence === 'string') return whence;
  const names: readonly Whence[] = ['set', 'cur', 'end'];
  return names[Number(whence)] ?? refuse(`invalid whence code ${whence}`);
}

/** Runs an operation with a time limit; refuses while too many are lost in the kernel. */
function kernelLimit(): <T>(what: string, work: Promise<T>, failed: (error: unknown) => never) => Promise<T> {
  let lost = 0;
  return async (what, work, failed) => {
    if (lost >= LOST_LIMIT) {
      work.catch(() => undefined);
      refuse(`${lost} file operations still wait for the kernel: no further one is begun`);
    }
    try {
      return await withLimit(what, OPERATION_LIMIT_MS, work, 'unknown');
    } catch (error) {
      if (!(error instanceof BridgeError)) return failed(error);
      lost++;
      const found = (): void => {
        lost--;
      };
      work.then(found, found);
      throw error;
    }
  };
}

/**
 * Gives numbers for handles, none of them twice until the guest is started anew: the handle of an agent that died must
 * not be taken for another file (qemu-ga keeps its count in qga.state for that).
 */
function handleNumbers(runtimeDir: string): () => bigint {
  const path = join(runtimeDir, 'file-handles');
  let next: bigint | undefined;
  return () => {
    next ??= BigInt(/^\d{1,18}$/.exec(readIfThere(path))?.[0] ?? FIRST_HANDLE);
    const handle = next++;
    mkdirSync(runtimeDir, { recursive: true, mode: 0o755 });
    writeFileSync(path, String(next));
    return handle;
  };
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return '';
    throw error;
  }
}
