// Holds every error that this project throws on purpose, by what the caller can do about it.
//
//   BridgeError                 code, facts, outcome
//   +-- UsageError              the call is wrong: change it                                       exit 2
//   +-- UnreachableError        agent, freezer or monitor does not answer: look at socket or guest exit 3
//   +-- QuiesceError            refused or failed; the guest is thawed, nothing was cut            exit 4
//   +-- CutError                the cut or the copy failed; the guest is thawed                    exit 5
//   +-- ThawUnconfirmedError    nobody confirmed the thaw: look at the guest NOW                   exit 6
//   +-- DeadlineError           a time limit passed (outcome 'unknown' if a request was under way)
//   +-- StateError              an illegal step of a state machine: a bug, or a second requester
//
// What a peer answered over a wire is a RemoteError (src/rpc/errors.ts), a family of its own. The codes and their
// meanings: error-codes.ts.
import type { ErrorCode } from './error-codes.js';

/** Whether a failed request did something to its peer: it did not, or nobody knows. */
export type Outcome = 'none' | 'unknown';

export type Facts = Readonly<Record<string, unknown>>;

interface BridgeErrorOptions {
  readonly cause?: unknown;
  readonly facts?: Facts;
  readonly outcome?: Outcome;
}

export class BridgeError extends Error {
  /** Stable, for programs. */
  readonly code: ErrorCode;
  /** Typed facts behind the message. */
  readonly facts: Facts;
  readonly outcome: Outcome;

  constructor(code: ErrorCode, message: string, { cause, facts = {}, outcome = 'none' }: BridgeErrorOptions = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.code = code;
    this.facts = facts;
    this.outcome = outcome;
  }
}

export class UsageError extends BridgeError {}
export class UnreachableError extends BridgeError {}
export class QuiesceError extends BridgeError {}
export class CutError extends BridgeError {}
export class ThawUnconfirmedError extends BridgeError {}

export class DeadlineError extends BridgeError {
  constructor(what: string, limitMs: number, options: BridgeErrorOptions = {}) {
    super('E_DEADLINE', `${what}: no answer within ${limitMs} ms`, {
      ...options,
      facts: { ...options.facts, limitMs },
    });
  }
}

export class StateError extends BridgeError {
  constructor(what: string, state: string, required: readonly string[], facts: Facts = {}) {
    super('E_STATE', `${what} needs state ${required.join(' or ')}, found ${state}`, {
      facts: { ...facts, state, required },
    });
  }
}

const lasting = new Set(['EACCES', 'EPERM', 'EROFS', 'ENAMETOOLONG', 'ENOTDIR', 'EISDIR', 'ELOOP', 'EINVAL']);

/**
 * The error for a path of the settings on which a system call failed: a UsageError if only another path, or other
 * rights, will mend it; a BridgeError if it may be over the next time (a full disk, no memory, no file descriptors).
 */
export function pathError(code: ErrorCode, what: string, cause: NodeJS.ErrnoException): BridgeError {
  const Kind = lasting.has(cause.code ?? '') ? UsageError : BridgeError;
  return new Kind(code, `${what}: ${cause.code ?? cause.message}`);
}

/** One line for people: the message and the messages of its causes. */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.cause === undefined) return error.message;
  const cause = describeError(error.cause);
  // The message may quote its cause already.
  return error.message.includes(cause) ? error.message : `${error.message}: ${cause}`;
}

/** True for a system error with one of these codes. */
export function isErrno(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code));
}
