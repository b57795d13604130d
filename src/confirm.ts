// Says how a person is asked before something is lost (a program answers beforehand, `--yes`), and what an interruption
// is called. The question itself is put in src/cli.
import { QuiesceError } from './errors.js';

/** Throws a QuiesceError if there is nobody to ask, or when interrupted at the question. */
export type Confirm = (question: string) => Promise<boolean>;

/** Throws a QuiesceError that names the signal and says `consequence`, if `signal` is aborted. */
export function throwIfInterrupted(signal: AbortSignal, consequence: string): void {
  if (signal.aborted) throw new QuiesceError('E_INTERRUPTED', interruption(signal, consequence));
}

/** `interrupted by SIGTERM: ...`. */
export function interruption({ reason }: AbortSignal, consequence: string): string {
  return `interrupted${typeof reason === 'string' ? ` by ${reason}` : ''}: ${consequence}`;
}
