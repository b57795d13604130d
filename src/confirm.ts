// Asks a person before something is lost. A program answers beforehand (`--yes`).
import { QuiesceError } from './errors.js';

/** Throws a QuiesceError if there is nobody to ask, or when interrupted at the question. */
export type Confirm = (question: string) => Promise<boolean>;

/** Throws a QuiesceError that says `consequence`. */
export function throwIfInterrupted(signal: AbortSignal, consequence: string): void {
  if (signal.aborted) throw new QuiesceError('E_INTERRUPTED', interruption(signal, consequence));
}

/** `interrupted by SIGTERM: ...`. */
export function interruption({ reason }: AbortSignal, consequence: string): string {
  return `interrupted${typeof reason === 'string' ? ` by ${reason}` : ''}: ${consequence}`;
}
