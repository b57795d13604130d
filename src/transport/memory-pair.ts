// Two ends of a connection in memory, for tests of what lies above a transport.
import { UnreachableError } from '../errors.js';
import type { ByteStream } from './byte-stream.js';
import { Inbox } from './inbox.js';

/** Bytes written to one end are read from the other; closing one ends the other's reading. */
export function memoryPair(): readonly [ByteStream, ByteStream] {
  const toLeft = new Inbox();
  const toRight = new Inbox();
  return [end(toLeft, toRight), end(toRight, toLeft)];
}

function end(incoming: Inbox, outgoing: Inbox): ByteStream {
  let closed = false;
  return {
    read: () => incoming,
    write(bytes) {
      if (closed) return Promise.reject(new UnreachableError('E_CLOSED', 'the connection in memory is closed'));
      outgoing.push(bytes);
      return Promise.resolve();
    },
    close() {
      closed = true;
      outgoing.end();
      incoming.end();
      return Promise.resolve();
    },
  };
}
