// Merges an overlay that nobody uses into its base by qemu-img. The overlay is only read, and not emptied: a merge that
// was killed at any moment is done again and comes to the same bytes. Also tells beforehand whether a merge would
// change any.
import { CutError } from '../../errors.js';
import { syncPath } from './durable-file.js';

export interface OfflineMerge {
  /** The file that is written to. */
  readonly base: string;
  /** The names by which qemu-img opens them (layers.ts): the overlay over its base, and the base alone. */
  readonly names: { readonly overlay: string; readonly base: string };
}

interface OfflineLimits {
  readonly limitMs: number;
  /** Bytes per second. */
  readonly speed?: number;
  readonly signal: AbortSignal;
  /** From 0 to 100. */
  readonly onProgress: (percent: number) => void;
}

/** Durable when it returns. Throws a CutError with qemu-img's words, the signal's reason when aborted. */
export async function commitOffline({ base, names }: OfflineMerge, limits: OfflineLimits): Promise<void> {
  const { limitMs, speed, signal, onProgress } = limits;
  signal.throwIfAborted();
  const { execa } = await import('execa');
  // -d: the overlay stays as it is, so that it holds everything until the base is on the disk.
  const rate = speed === undefined ? [] : ['-r', String(speed)];
  const work = execa('qemu-img', ['commit', '-d', '-p', ...rate, names.overlay], {
    timeout: limitMs,
    reject: false,
    stdin: 'ignore',
    cancelSignal: signal,
    buffer: { stdout: false },
  });
  // `    (12.34/100%)`, each over the last.
  work.stdout.setEncoding('utf8').on('data', (text: string) => {
    const percent = /([0-9.]+)\/100%\)[^(]*$/.exec(text)?.[1];
    if (percent !== undefined) onProgress(Number(percent));
  });
  const result = await work;
  signal.throwIfAborted();
  if (result.failed) {
    const words = result.stderr.trim().split('\n').join('; ');
    const reason = result.timedOut ? `no end within ${limitMs} ms` : words || (result.shortMessage ?? 'it failed');
    throw new CutError('E_QEMU_IMG', `qemu-img commit: ${reason}`);
  }
  await syncPath(base);
}

/** True if base and overlay read the same, so that a merge changes nothing. Reads both. Throws a CutError. */
export async function readsTheSame(
  { names }: OfflineMerge,
  { limitMs, signal }: Pick<OfflineLimits, 'limitMs' | 'signal'>,
): Promise<boolean> {
  const { execa } = await import('execa');
  const result = await execa('qemu-img', ['compare', '-q', names.overlay, names.base], {
    timeout: limitMs,
    reject: false,
    stdin: 'ignore',
    cancelSignal: signal,
  });
  signal.throwIfAborted();
  if (result.exitCode === 0 || result.exitCode === 1) return result.exitCode === 0;
  const reason = result.timedOut ? `no end within ${limitMs} ms` : result.stderr.trim().split('\n').join('; ');
  throw new CutError('E_QEMU_IMG', `qemu-img compare: ${reason}`);
}
