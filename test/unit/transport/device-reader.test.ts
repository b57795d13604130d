// On a FIFO, which reads end-of-file while nobody has it open for writing, as a virtio port does without a host.
import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createDeviceReader, type DeviceReader } from '../../../src/transport/device-reader.js';

let folder: string;
let fifo: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'fsb-fifo-'));
  fifo = join(folder, 'fifo');
  execFileSync('mkfifo', [fifo]);
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

describe.each(['epoll', 'timer'] as const)('a device reader by %s', (method) => {
  test('gives bytes, ends when the writer goes, and can be started again', async () => {
    const fd = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
    const log: string[] = [];
    const reader: DeviceReader = createDeviceReader(
      fd,
      {
        onBytes: (bytes) => log.push(Buffer.from(bytes).toString()),
        onEnd: () => log.push('end'),
        onFailure: (name) => log.push(name),
      },
      method,
    );
    expect(reader.method).toBe(method);
    reader.start();
    for (const word of ['one', 'two']) {
      log.length = 0;
      reader.start();
      const writer = openSync(fifo, constants.O_WRONLY | constants.O_NONBLOCK);
      reader.start();
      writeSync(writer, word);
      await expect.poll(() => log).toContain(word);
      closeSync(writer);
      await expect.poll(() => log.at(-1)).toBe('end');
    }
    reader.close(() => {
      closeSync(fd);
    });
  });

  test('costs nothing while nothing comes', async () => {
    const fd = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
    const fail = (): never => {
      throw new Error('unexpected');
    };
    const reader = createDeviceReader(fd, { onBytes: fail, onEnd: fail, onFailure: fail }, method);
    reader.start();
    const before = process.cpuUsage();
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const { user, system } = process.cpuUsage(before);
    reader.close(() => {
      closeSync(fd);
    });
    // A busy loop would take the whole second.
    expect((user + system) / 1000).toBeLessThan(300);
  });
});
