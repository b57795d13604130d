// What QEMU answered instead of a result: the peer's words, not a BridgeError (those say what a caller can do).
// Specification: QEMU docs/interop/qmp-spec, "Error".
import { RemoteError } from '../rpc/errors.js';

/** Of QEMU's words: people read them. */
const DESC_LIMIT = 4096;

/** QEMU refused or failed a command; `class` and `desc` are QEMU's. */
export class QmpError extends RemoteError {
  readonly command: string;

  constructor(command: string, errorClass: string, desc: string) {
    super(errorClass.slice(0, DESC_LIMIT), desc.slice(0, DESC_LIMIT));
    this.name = 'QmpError';
    this.message = `QEMU refused ${command}: ${this.desc}`;
    this.command = command;
  }
}
