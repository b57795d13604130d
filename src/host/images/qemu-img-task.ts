// Runs a qemu-img that reads or writes whole images: with progress, a limit that it shares with others, and an end by
// signal. The quick ones are image-file.ts. Locks are QEMU's: nothing here passes -U, so that a source which somebody
// writes to is refused, and nobody can begin to write to it while it is read.
import type { Deadline } from '../../deadline.js';
import { CutError, UsageError } from '../../errors.js';
import { KEY_OBJECT, keyInput, type LuksKey } from './luks-key.js';

export interface TaskLimits {
  readonly deadline: Deadline;
  readonly signal: AbortSignal;
  /** Of images that are named with it (KEY_ID). */
  readonly key?: LuksKey | undefined;
}

export interface TaskOptions extends Omit<TaskLimits, 'deadline'> {
  /** Undefined for what must not be ended in the middle. */
  readonly deadline: Deadline | undefined;
  /** Exit codes that are an answer, as `compare` says by 1 that images differ; else they are a failure. */
  readonly answers?: readonly number[];
  /** Called with percents from 0 to 100, by a command that was given -p. Must not throw. */
  readonly onProgress?: (percent: number) => void;
}

export interface TaskResult {
  readonly exitCode: number;
  readonly stdout: string;
}

/**
 * Throws the signal's reason when aborted, a UsageError `E_IN_USE` if somebody holds QEMU's lock on an image, one `E_KEY` if
 * the key does not open an image, else a CutError `E_QEMU_IMG` with qemu-img's words, and its exit code (`exitCode`) if it was
 * not ended by us. The process has ended in all cases.
 */
export async function runQemuImg(args: readonly string[], options: TaskOptions): Promise<TaskResult> {
  const { deadline, signal, onProgress, key, answers = [] } = options;
  signal.throwIfAborted();
  const { execa } = await import('execa');
  const [command = '', ...words] = args;
  const keyFile = await key?.openFile();
  const child = execa('qemu-img', [command, ...(keyFile === undefined ? [] : ['--object', KEY_OBJECT]), ...words], {
    timeout: deadline === undefined ? 0 : Math.max(1, deadline.remainingMs),
    reject: false,
    stdin: keyInput(keyFile),
    cancelSignal: signal,
    // Out of the reach of a terminal's Ctrl-C: the signal above ends it, and says why.
    detached: true,
  });
  child.stdout.on('data', (chunk: Buffer) => {
    const percent = /\((\d+\.\d+)\/100%\)\s*$/.exec(chunk.toString('latin1'))?.[1];
    if (percent !== undefined) onProgress?.(Number(percent));
  });
  const result = await child;
  await keyFile?.close();
  signal.throwIfAborted();
  if (!result.failed) return { exitCode: 0, stdout: result.stdout };
  const { exitCode } = result;
  if (exitCode !== undefined && answers.includes(exitCode)) return { exitCode, stdout: result.stdout };
  if (result.code === 'ENOENT') throw new UsageError('E_QEMU_IMG', 'qemu-img is not installed (Debian: qemu-utils)');
  const said = result.stderr.trim().split('\n').join('; ');
  if (/Failed to get .*lock/.test(said)) throw new UsageError('E_IN_USE', `an image is in use: ${said}`);
  if (key !== undefined && said.includes('cannot unlock any keyslot')) {
    throw new UsageError('E_KEY', `the key of ${key.from} does not open it (${key.ending})`);
  }
  const reason = result.timedOut
    ? `no end within ${deadline?.limitMs ?? 0} ms`
    : said || (result.shortMessage ?? 'it failed');
  throw new CutError('E_QEMU_IMG', `qemu-img ${command}: ${reason}`, { facts: { exitCode } });
}
