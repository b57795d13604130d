// What a dispatcher carries out: operations, each a declared command bound to its handler, and which of them may run now.
import type { WireLimits } from '../wire/message-parser.js';
import type { JsonObject } from '../wire/value.js';

/** A declared command bound to its handler. `C` is what the server knows of a channel, e.g. its name. */
export interface Operation<C> {
  readonly name: string;
  /** False: nothing is sent on success. */
  readonly successResponse: boolean;
  /** The reply is preceded by 0xFF. */
  readonly delimited: boolean;
  /**
   * queued       answered in turn
   * sync         overtakes a pending `abandonable` operation, whose late reply is then never sent
   * abandonable  goes on without its requester when a sync overtakes it
   */
  readonly order: 'queued' | 'sync' | 'abandonable';
  /** Checks the arguments, at once, and runs the handler. Throws or rejects with a RemoteError, or what toWireError makes one of. */
  call(args: JsonObject, context: C): Promise<unknown>;
}

export interface DispatcherOptions<C> {
  readonly operations: ReadonlyMap<string, Operation<C>>;
  /** What a requester is told (as CommandNotFound) if an operation may not run now; undefined if it may. */
  readonly refusal: (name: string, context: C) => string | undefined;
  readonly limits?: WireLimits;
  /** Told of every error that was answered, as thrown: for the log. Must not throw. */
  readonly onError?: (error: unknown, command: string | undefined, context: C) => void;
}
