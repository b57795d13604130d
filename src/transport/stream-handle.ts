// Makes something that `net.Server.listen` takes of a listening socket whose family Node does not know (AF_VSOCK).
// libuv guesses what a descriptor is by its family, and Node refuses what it does not know (`listen({ fd })`: EINVAL,
// Node 20 to 24); its own TCP handle asks no such question: bytes, accept and close are the same for every stream
// socket. The binding is internal to Node: deprecated (DEP0111), and there in every release so far.
import { UsageError } from '../errors.js';

interface TcpHandle {
  open(fd: number): number;
}

interface TcpWrap {
  readonly TCP: new (type: number) => TcpHandle;
  readonly constants: { readonly SERVER: number };
}

/** Throws a UsageError if this Node has no such binding any more, or libuv does not take the descriptor. */
export function streamHandle(fd: number): object {
  const refuse = (why: string, cause?: unknown): never => {
    throw new UsageError('E_LISTEN', `cannot take over the socket that is descriptor ${fd}: ${why}`, { cause });
  };
  let handle: TcpHandle;
  try {
    const { binding } = process as unknown as { readonly binding: (name: 'tcp_wrap') => TcpWrap };
    const { TCP, constants } = binding('tcp_wrap');
    handle = new TCP(constants.SERVER);
  } catch (cause) {
    return refuse('this Node gives no handle for it', cause);
  }
  const errno = handle.open(fd);
  return errno === 0 ? handle : refuse(`libuv says ${errno}`);
}
