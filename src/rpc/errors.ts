// Errors that a peer answers over a wire, `{class, desc}`: a family of its own, apart from BridgeError (src/errors.ts).
// This is the one file in which a local error becomes a wire error.
import { BridgeError, describeError } from '../errors.js';

/** QAPI's error classes (qapi/error.json). A guest agent answers the first two. */
export type ErrorClass =
  'GenericError' | 'CommandNotFound' | 'DeviceNotActive' | 'DeviceNotFound' | 'KVMMissingCap' | (string & {});

/** The peer understood the request and refused it. */
export class RemoteError extends Error {
  readonly class: ErrorClass;
  readonly desc: string;

  constructor(errorClass: ErrorClass, desc: string) {
    super(desc);
    this.name = 'RemoteError';
    this.class = errorClass;
    this.desc = desc;
  }
}

export interface WireError {
  readonly class: ErrorClass;
  readonly desc: string;
}

/** Longest desc sent, in characters: a cause may quote a program's whole output. */
const DESC_LIMIT = 4096;

/** The wire error for whatever a handler threw: one line, never empty. Never throws. */
export function toWireError(error: unknown): WireError {
  if (error instanceof RemoteError) return { class: error.class, desc: error.desc };
  const line = describeError(error)
    .trim()
    .replace(/\s*[\r\n]+\s*/g, '; ')
    .slice(0, DESC_LIMIT);
  if (error instanceof BridgeError && line !== '') return { class: 'GenericError', desc: line };
  return {
    class: 'GenericError',
    desc: line === '' ? 'internal error of the agent' : `internal error of the agent: ${line}`,
  };
}
