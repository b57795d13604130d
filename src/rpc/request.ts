// Checks the envelope of a request, `{execute, arguments, id}`, as QEMU's dispatcher does and with its texts (QEMU
// 10.2, qapi/qmp-dispatch.c). Knows no command names.
import { isJsonObject, type JsonObject, type JsonValue } from '../wire/value.js';
import { RemoteError } from './errors.js';

export interface Request {
  readonly execute: string;
  readonly args: JsonObject;
}

/** The id, of any JSON type: echoed in the reply whatever becomes of the request. Undefined if there is none. */
export function requestId(message: JsonValue): JsonValue | undefined {
  return isJsonObject(message) ? message['id'] : undefined;
}

/**
 * Reads the envelope. Throws a RemoteError with QEMU's text. Members are looked at in the order in which they were
 * sent; QEMU takes its own hash order, so a request that is wrong twice may get the other of its two errors there.
 */
export function readRequest(message: JsonValue): Request {
  if (!isJsonObject(message)) throw generic('QMP input must be a JSON object');
  let execute: string | undefined;
  let args: JsonObject = {};
  for (const [name, value] of Object.entries(message)) {
    if (name === 'execute') {
      if (typeof value !== 'string') throw generic(`QMP input member 'execute' must be a string`);
      execute = value;
    } else if (name === 'arguments') {
      if (!isJsonObject(value)) throw generic(`QMP input member 'arguments' must be an object`);
      args = value;
    } else if (name !== 'id') {
      throw generic(`QMP input member '${name}' is unexpected`);
    }
  }
  if (execute === undefined) throw generic(`QMP input lacks member 'execute'`);
  return { execute, args };
}

const generic = (desc: string): RemoteError => new RemoteError('GenericError', desc);
