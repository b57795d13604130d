// The exit codes of fsfreeze-snapshot: the one table, and which class of error ends with which. 64 and 69 are those of
// sysexits.h that dragonsdawn-snapshot has.
import {
  BridgeError,
  CutError,
  DeadlineError,
  QuiesceError,
  StateError,
  UnreachableError,
  UsageError,
} from '../../errors.js';

export const exitCodes = {
  0: 'done; lint: it would be run; test: it held and let go, or has nothing to do here',
  1: 'lint: it would not be run, or would refuse a freeze; test: a phase failed, or no session would run it',
  6: 'test: THE WRITER HAS NOT LET GO: look at its application now',
  64: 'usage: the command line or the configuration is wrong; nothing was done',
  69: 'unavailable: not root, no such writer, path or run, no snapshot could be made or kept, or a signal came',
  70: 'internal error: a bug',
  125: 'exec, hold: a failure of ours, a wrong call too; any other code is that of the command',
} as const;
export type ExitCode = number;

/** The code for whatever was thrown. Never throws. */
export function exitCodeOf(error: unknown): ExitCode {
  if (error instanceof UsageError) return 64;
  if (error instanceof QuiesceError) return error.code === 'E_WRITER' ? 1 : 69;
  if (
    error instanceof CutError ||
    error instanceof UnreachableError ||
    error instanceof StateError ||
    error instanceof DeadlineError
  )
    return 69;
  return error instanceof BridgeError && error.code === 'E_ROOT' ? 69 : 70;
}

/** Where the exit code of a command is passed on. */
export const OUR_FAILURE = 125;

/** By the words of a call, be it a wrong one: the code of its command is passed on. */
export function passesCodeOn(words: readonly string[]): boolean {
  const first = words.find((word) => !word.startsWith('-'));
  return first === 'exec' || first === 'hold';
}
