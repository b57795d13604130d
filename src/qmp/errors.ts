// The error that QEMU answers instead of a result. It holds the peer's words, and is no BridgeError, which says what a caller
// can do.
// Specification: QEMU docs/interop/qmp-spec, "Error".
import { RemoteError } from '../rpc/errors.js';

/** Characters of QEMU's words that are kept: people read them. */
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
