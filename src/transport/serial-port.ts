// The host's channel: a virtio-serial port or an ISA serial line. A virtio port reads end-of-file while no host is
// connected, and takes no bytes then; each time a host appears it is one ByteStream, which ends when the host goes. A
// serial line cannot tell: it is one ByteStream for ever, and 0xFF on the wire does what it can (src/wire).
import { closeSync, constants, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { UnreachableError } from '../errors.js';
import { queueLimitBytes, type ByteStream, type Listener, type OnStream } from './byte-stream.js';
import { createDeviceReader, type DeviceReader } from './device-reader.js';
import { Inbox, type InboxSource } from './inbox.js';

export interface SerialPortOptions {
  readonly path: string;
  readonly onStream: OnStream;
  /** The device failed for good (unplugged, hung up); the port is closed. */
  readonly onFailure: (error: UnreachableError) => void;
  /** For tests: how bytes are waited for. */
  readonly method?: 'epoll' | 'timer';
}

/**
 * Looks for a host on a port without one: as often as qemu-ga at first, less often later. Under emulation a look takes
 * about two milliseconds of CPU time; the last figure is what a host that connects out of the blue may have to wait.
 */
const absentPollMs = [
  { untilMs: 2000, everyMs: 100 },
  { untilMs: 20_000, everyMs: 500 },
  { untilMs: Infinity, everyMs: 1000 },
] as const;
/** Between two attempts to write to a port that is full: doubled while nothing moves. See `flush`. */
const fullPollMs = { first: 2, last: 128 } as const;

/** Throws an UnreachableError that names what open(2) said; EBUSY is another agent. */
export function openSerialPort(options: SerialPortOptions): Listener & { readonly method: 'epoll' | 'timer' } {
  const port = new SerialPort(openDevice(options.path), options);
  port.start();
  return port;
}

function openDevice(path: string): number {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (error) {
    const { code = 'EIO' } = error as NodeJS.ErrnoException;
    const hint = code === 'EBUSY' ? ' (another agent has it open)' : '';
    throw new UnreachableError('E_PORT', `cannot open ${path}: ${code}${hint}`, {
      cause: error,
      facts: { path, errno: code },
    });
  }
  if (fstatSync(fd).isCharacterDevice()) return fd;
  closeSync(fd);
  throw new UnreachableError('E_PORT', `${path}: expected a character device`, { facts: { path } });
}

class SerialPort implements Listener {
  readonly #fd: number;
  readonly #options: SerialPortOptions;
  readonly #reader: DeviceReader;
  #timer: NodeJS.Timeout | undefined;
  #connection: Connection | undefined;
  #closed = false;
  readonly #look = Buffer.alloc(4096);

  constructor(fd: number, options: SerialPortOptions) {
    this.#fd = fd;
    this.#options = options;
    this.#reader = createDeviceReader(
      fd,
      {
        onBytes: (bytes) => {
          this.#bytes(bytes);
        },
        onEnd: () => {
          this.#hostGone();
        },
        onFailure: (name) => {
          this.#failed(name);
        },
      },
      options.method,
    );
  }

  get method(): 'epoll' | 'timer' {
    return this.#reader.method;
  }

  start(): void {
    this.#reader.start();
  }

  close(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#connection?.end();
    this.#reader.close(() => {
      closeSync(this.#fd);
    });
    return Promise.resolve();
  }

  #bytes(bytes: Uint8Array): void {
    if (this.#connection === undefined || this.#connection.ended) {
      this.#connection = new Connection(this.#fd, this.#options.path, {
        pause: () => {
          this.#reader.stop();
        },
        resume: () => {
          if (!this.#closed) this.#reader.start();
        },
      });
      this.#options.onStream(this.#connection);
    }
    this.#connection.inbox.push(bytes);
  }

  #hostGone(): void {
    this.#connection?.end();
    this.#connection = undefined;
    clearTimeout(this.#timer);
    this.#lookForHost(performance.now());
  }

  // Nothing wakes a reader whose port has no host: epoll reports it as hung up all the time.
  #lookForHost(sinceMs: number): void {
    const absentMs = performance.now() - sinceMs;
    const { everyMs } = absentPollMs.find(({ untilMs }) => absentMs < untilMs) ?? absentPollMs[2];
    this.#timer = setTimeout(() => {
      let count: number;
      try {
        count = readSync(this.#fd, this.#look);
      } catch (error) {
        const { code = 'EIO' } = error as NodeJS.ErrnoException;
        if (code === 'EAGAIN') this.#reader.start();
        else this.#failed(code);
        return;
      }
      if (count === 0) {
        this.#lookForHost(sinceMs);
        return;
      }
      this.#bytes(Uint8Array.from(this.#look.subarray(0, count)));
      this.#reader.start();
    }, everyMs);
  }

  #failed(name: string): void {
    const error = new UnreachableError('E_PORT', `${this.#options.path}: reading failed: ${name}`, {
      facts: { path: this.#options.path, errno: name },
    });
    this.#connection?.end(error);
    void this.close();
    this.#options.onFailure(error);
  }
}

/** One host, from its first byte to its going away. */
class Connection implements ByteStream {
  readonly inbox: Inbox;
  readonly #fd: number;
  readonly #path: string;
  #queue: { readonly bytes: Uint8Array; readonly settle: (error?: Error) => void }[] = [];
  #queued = 0;
  #timer: NodeJS.Timeout | undefined;
  #pauseMs: number = fullPollMs.first;
  #ended = false;
  readonly #reading: InboxSource;

  constructor(fd: number, path: string, reading: InboxSource) {
    this.#fd = fd;
    this.#path = path;
    this.#reading = reading;
    this.inbox = new Inbox(reading);
  }

  get ended(): boolean {
    return this.#ended;
  }

  read(): AsyncIterable<Uint8Array> {
    return this.inbox;
  }

  write(bytes: Uint8Array): Promise<void> {
    if (this.#ended) return Promise.reject(this.#error('the host has gone'));
    if (this.#queued > 0 && this.#queued + bytes.length > queueLimitBytes) {
      const error = this.#error(`the host does not read: ${this.#queued} bytes wait, channel reset`);
      this.#reset(error);
      return Promise.reject(error);
    }
    return new Promise((resolve, reject) => {
      const settle = (error?: Error): void => {
        if (error === undefined) resolve();
        else reject(error);
      };
      this.#queue.push({ bytes, settle });
      this.#queued += bytes.length;
      if (this.#queue.length === 1) this.#flush();
    });
  }

  close(): Promise<void> {
    this.#reset();
    return Promise.resolve();
  }

  // The port stays open and the host may still be there: what it sends next is a new connection.
  #reset(error?: Error): void {
    if (this.#ended) return;
    this.end(error);
    this.#reading.resume();
  }

  /** What was read is still given out; what was not written is dropped. */
  end(error?: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#timer);
    for (const { settle } of this.#queue.splice(0)) settle(error ?? this.#error('the host has gone'));
    this.#queued = 0;
    this.inbox.end(error);
  }

  // By hand and not through libuv: waiting for POLLOUT on a port whose host has gone is a busy loop, since epoll
  // reports EPOLLHUP for it without being asked (virtio_console, 6.1).
  #flush(): void {
    for (let next = this.#queue[0]; next !== undefined; next = this.#queue[0]) {
      let written: number;
      try {
        written = writeSync(this.#fd, next.bytes);
      } catch (error) {
        const { code = 'EIO' } = error as NodeJS.ErrnoException;
        if (code !== 'EAGAIN') {
          this.#reset(this.#error(`writing failed: ${code}`));
          return;
        }
        written = 0;
      }
      this.#queued -= written;
      this.#pauseMs = written > 0 ? fullPollMs.first : Math.min(this.#pauseMs * 2, fullPollMs.last);
      if (written < next.bytes.length) {
        this.#queue[0] = { bytes: next.bytes.subarray(written), settle: next.settle };
        this.#timer = setTimeout(() => {
          this.#flush();
        }, this.#pauseMs);
        return;
      }
      this.#queue.shift();
      next.settle();
    }
  }

  #error(what: string): UnreachableError {
    return new UnreachableError('E_PORT', `${this.#path}: ${what}`, { facts: { path: this.#path } });
  }
}
