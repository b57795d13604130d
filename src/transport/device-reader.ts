// Waits for bytes on a character device without a thread and without polling. Node's public API cannot: fs.read parks
// a thread of the pool for ever (and process.exit() then hangs), net.Socket refuses the fd type. libuv's pipe handle
// does it by epoll for any fd that can be polled; it is reached through process.binding (DEP0111, present in Node 20,
// 22 and 24). Where that is gone, a non-blocking read by timer takes its place: correct, and a little less idle.
import { readSync } from 'node:fs';
import { getSystemErrorName } from 'node:util';

export interface ReaderEvents {
  readonly onBytes: (bytes: Uint8Array) => void;
  /** End of file: on a virtio port, that no host is connected. Reading has stopped; `start` may be called again. */
  readonly onEnd: () => void;
  /** The device is gone. `name` is the errno name, `EIO`. */
  readonly onFailure: (name: string) => void;
}

export interface DeviceReader {
  readonly method: 'epoll' | 'timer';
  /** May be called while reading. */
  start(): void;
  stop(): void;
  /** Closes the fd. */
  close(closeFd: () => void): void;
}

/** Reads from `fd`, which must have been opened with O_NONBLOCK. */
export function createDeviceReader(fd: number, events: ReaderEvents, method?: 'epoll' | 'timer'): DeviceReader {
  if (method === 'timer') return timerReader(fd, events);
  return epollReader(fd, events) ?? timerReader(fd, events);
}

interface PipeHandle {
  open(fd: number): number;
  readStart(): number;
  readStop(): number;
  close(): void;
  unref(): void;
  onread: (buffer: ArrayBuffer | undefined) => void;
}

interface Bindings {
  readonly Pipe: new (type: number) => PipeHandle;
  readonly socketType: number;
  readonly streamState: Int32Array;
  readonly readBytesOrError: number;
  readonly bufferOffset: number;
}

function findBindings(): Bindings | undefined {
  const binding = (process as { binding?: (name: string) => Record<string, unknown> }).binding;
  if (binding === undefined) return undefined;
  try {
    const pipe = binding.call(process, 'pipe_wrap');
    const stream = binding.call(process, 'stream_wrap');
    const socketType = (pipe['constants'] as Record<string, unknown> | undefined)?.['SOCKET'];
    const { Pipe } = pipe;
    const streamState = stream['streamBaseState'];
    const readBytesOrError = stream['kReadBytesOrError'];
    const bufferOffset = stream['kArrayBufferOffset'];
    if (
      typeof Pipe === 'function' &&
      typeof socketType === 'number' &&
      streamState instanceof Int32Array &&
      typeof readBytesOrError === 'number' &&
      typeof bufferOffset === 'number'
    ) {
      return { Pipe: Pipe as Bindings['Pipe'], socketType, streamState, readBytesOrError, bufferOffset };
    }
  } catch {
    // A Node that has taken the bindings away: the timer serves.
  }
  return undefined;
}

function epollReader(fd: number, events: ReaderEvents): DeviceReader | undefined {
  const bindings = findBindings();
  if (bindings === undefined) return undefined;
  const { Pipe, socketType, streamState, readBytesOrError, bufferOffset } = bindings;
  const handle = new Pipe(socketType);
  if (handle.open(fd) !== 0) return undefined;
  let reading = false;
  const stop = (): void => {
    if (reading) handle.readStop();
    reading = false;
  };
  handle.onread = (buffer) => {
    const count = streamState[readBytesOrError] ?? 0;
    if (count > 0 && buffer !== undefined) {
      events.onBytes(new Uint8Array(buffer, streamState[bufferOffset], count));
      return;
    }
    if (count === 0) return;
    stop();
    const name = getSystemErrorName(count);
    if (name === 'EOF') events.onEnd();
    else events.onFailure(name);
  };
  return {
    method: 'epoll',
    start() {
      if (reading) return;
      const status = handle.readStart();
      if (status === 0) reading = true;
      else events.onFailure(getSystemErrorName(status));
    },
    stop,
    close() {
      stop();
      // libuv's handle owns the fd.
      handle.close();
    },
  };
}

/** Pauses between two reads: while bytes come, and at rest. */
const BUSY_POLL_MS = 5;
const REST_POLL_MS = 50;
const REST_AFTER_MS = 2000;

function timerReader(fd: number, events: ReaderEvents): DeviceReader {
  const buffer = Buffer.alloc(64 * 1024);
  let timer: NodeJS.Timeout | undefined;
  let lastBytesAt = 0;
  const stop = (): void => {
    clearTimeout(timer);
    timer = undefined;
  };
  const again = (): void => {
    timer = setTimeout(poll, Date.now() - lastBytesAt < REST_AFTER_MS ? BUSY_POLL_MS : REST_POLL_MS);
  };
  const poll = (): void => {
    let count: number;
    try {
      count = readSync(fd, buffer);
    } catch (error) {
      const name = (error as NodeJS.ErrnoException).code ?? 'EIO';
      if (name === 'EAGAIN') {
        again();
      } else {
        stop();
        events.onFailure(name);
      }
      return;
    }
    if (count === 0) {
      stop();
      events.onEnd();
      return;
    }
    lastBytesAt = Date.now();
    again();
    events.onBytes(Uint8Array.from(buffer.subarray(0, count)));
  };
  return {
    method: 'timer',
    start() {
      if (timer === undefined) again();
    },
    stop,
    close(closeFd) {
      stop();
      closeFd();
    },
  };
}
