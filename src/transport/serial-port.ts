// The host's channel: a virtio-serial port or an ISA serial line. A virtio port reads end-of-file while no host is
// connected, and takes no bytes then; each time a host appears it is one ByteStream, which ends when the host goes. A
// serial line cannot tell: it is one ByteStream for ever, and 0xFF on the wire does what it can (src/wire).
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { UnreachableError } from '../errors.js';
import type { Listener, OnStream } from './byte-stream.js';
import { createDeviceReader, type DeviceReader } from './device-reader.js';
import { PortConnection } from './port-connection.js';
import { PortWriter } from './port-writer.js';

export interface SerialPortOptions {
  readonly path: string;
  readonly onStream: OnStream;
  /** The device failed for good (unplugged, hung up); the port is closed. */
  readonly onFailure: (error: UnreachableError) => void;
  /** For tests: how bytes are waited for. */
  readonly method?: 'epoll' | 'timer';
}

/**
 * How often a port without a host is looked at: as often as by qemu-ga at first, less often later. Under emulation a
 * look takes about two milliseconds of CPU time; the last figure is what a host that connects out of the blue may have
 * to wait.
 */
const absentPollMs = [
  { untilMs: 2000, everyMs: 100 },
  { untilMs: 20_000, everyMs: 500 },
  { untilMs: Infinity, everyMs: 1000 },
] as const;

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
  readonly #writer: PortWriter;
  /** The one that takes bytes, and those whose replies are still on their way. */
  readonly #connections = new Set<PortConnection>();
  #timer: NodeJS.Timeout | undefined;
  #connection: PortConnection | undefined;
  #closed = false;
  readonly #look = Buffer.alloc(4096);

  constructor(fd: number, options: SerialPortOptions) {
    this.#fd = fd;
    this.#options = options;
    this.#writer = new PortWriter(fd, (connection, name) => {
      (connection as PortConnection).writingFailed(name);
    });
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
    for (const connection of this.#connections) connection.end();
    this.#reader.close(() => {
      closeSync(this.#fd);
    });
    return Promise.resolve();
  }

  #bytes(bytes: Uint8Array): void {
    if (this.#connection?.takesBytes !== true) {
      const connection = new PortConnection(this.#writer, this.#options.path, {
        pause: () => {
          this.#reader.stop();
        },
        resume: () => {
          if (!this.#closed) this.#reader.start();
        },
        over: () => {
          this.#connections.delete(connection);
        },
      });
      this.#connections.add(connection);
      this.#connection = connection;
      this.#options.onStream(connection);
    }
    this.#connection.inbox.push(bytes);
  }

  #hostGone(): void {
    this.#connection?.linger();
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
