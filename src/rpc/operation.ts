// The operations that a dispatcher is given, each a declared command bound to its handler, and which of them may run
// now.
import type { WireLimits } from '../wire/message-parser.js';
import type { JsonObject } from '../wire/value.js';

/**
 * Place in the order of replies on one channel:
 * queued       answered in turn
 * sync         overtakes a pending `abandonable` operation, whose late reply is then never sent
 * abandonable  what a requester may have given up waiting for (the freezes): goes on without its requester when a sync
 *              overtakes it
 */
export type ReplyOrder = 'queued' | 'sync' | 'abandonable';

/** A declared command bound to its handler. `C` is what the server knows of a channel, e.g. its name. */
export interface Operation<C> {
  readonly name: string;
  /** False: nothing is sent on success. */
  readonly successResponse: boolean;
  /** The reply is preceded by 0xFF. */
  readonly delimited: boolean;
  readonly order: ReplyOrder;
  /**
   * Checks the arguments at once, then runs the handler. Throws or rejects with a RemoteError, or with what toWireError
   * makes one of.
   */
  call(args: JsonObject, context: C): Promise<unknown>;
}

export interface DispatcherOptions<C> {
  readonly operations: ReadonlyMap<string, Operation<C>>;
  /** The text that a requester is told (as CommandNotFound) if an operation may not run now; undefined if it may. */
  readonly refusal: (name: string, context: C) => string | undefined;
  readonly limits?: WireLimits;
  /** Called with every error that was answered, as thrown: for the log. Must not throw. */
  readonly onError?: (error: unknown, command: string | undefined, context: C) => void;
}
