// What QEMU answered instead of a result: the peer's words, not a BridgeError (those say what a caller can do).
// Specification: QEMU docs/interop/qmp-spec, "Error".
import { RemoteError } from '../rpc/errors.js';

/** QEMU refused or failed a command; `class` and `desc` are QEMU's. */
export class QmpError extends RemoteError {
  readonly command: string;

  constructor(command: string, errorClass: string, desc: string) {
    super(errorClass, desc);
    this.name = 'QmpError';
    this.message = `QEMU refused ${command}: ${desc}`;
    this.command = command;
  }
}
