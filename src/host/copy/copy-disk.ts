// Copies one disk's state of the cut to images of its own: one flat image, or one per layer, each naming the next by
// its plain name, so that the folder can be moved. qemu-img keeps QEMU's lock on every source while it reads: a VM that
// wants to write to one, or a commit into it, is refused meanwhile, and so are we if somebody writes already.
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { defined } from '../../defined.js';
import { CutError } from '../../errors.js';
import { syncPath } from '../images/durable-file.js';
import { imageName, type OpenLayer } from '../images/layers.js';
import { runQemuImg, type TaskLimits } from '../images/qemu-img-task.js';

export type CopyFormat = 'qcow2' | 'raw';

export interface DiskCopyOptions extends TaskLimits {
  readonly folder: string;
  /** The name of the files, without an ending. */
  readonly name: string;
  readonly format: CopyFormat;
  readonly compress: boolean;
  readonly flatten: boolean;
  readonly verify: boolean;
  /** Bytes per second. */
  readonly speed?: number;
  readonly onProgress: (doing: string, percent: number) => void;
}

export interface CopiedFile {
  /** The file's name in the folder. */
  readonly file: string;
  readonly format: CopyFormat;
  /** The backing file that it names, in the same folder. */
  readonly backing?: string;
  readonly size: number;
  readonly sha256: string;
}

/** Bytes that the copy of these layers may need. */
export async function neededBytes(layers: readonly OpenLayer[], flatten: boolean, limits: TaskLimits): Promise<number> {
  let needed = 0;
  for (const part of flatten ? [layers] : layers.map((layer) => [layer])) {
    // A raw copy needs no more: its holes take no space.
    const { stdout } = await runQemuImg(['measure', '--output=json', '-O', 'qcow2', imageName(part)], limits);
    needed += Number((JSON.parse(stdout) as { required?: unknown }).required);
  }
  return needed;
}

/**
 * Gives the files, the first of which holds the state, with the others below it. Each is on the disk when it returns.
 */
export async function copyDisk(layers: readonly OpenLayer[], options: DiskCopyOptions): Promise<readonly CopiedFile[]> {
  const { folder, name, format, flatten, verify } = options;
  const parts = flatten ? [layers] : layers.map((_layer, index) => layers.slice(index));
  const names = parts.map((_part, index) => `${name}${index === 0 ? '' : `.below${index}`}.${format}`);
  // The lowest comes first: each is made over the one it names.
  for (const [index, part] of [...parts.entries()].toReversed()) {
    const file = names[index];
    if (file !== undefined) await convert(part, file, names[index + 1], options);
  }
  const [top] = names;
  if (verify && top !== undefined) await compare(layers, top, options);
  const files: CopiedFile[] = [];
  for (const [index, file] of names.entries()) {
    const backing = names[index + 1];
    const { size } = await stat(join(folder, file));
    const sha256 = await hashOf(join(folder, file), options);
    files.push({ file, format, ...defined({ backing }), size, sha256 });
  }
  return files;
}

async function convert(
  layers: readonly OpenLayer[],
  file: string,
  backing: string | undefined,
  { folder, format, compress, speed, deadline, signal, onProgress }: DiskCopyOptions,
): Promise<void> {
  const args = [
    ...['convert', '-p', '-O', format],
    ...(compress ? ['-c'] : []),
    // One request at a time: eight of 2 MiB would be begun before the first has to wait.
    ...(speed === undefined ? [] : ['-m', '1', '-r', String(speed)]),
    // With a backing file, only what the first layer holds is written.
    ...(backing === undefined ? [] : ['-B', backing, '-F', format]),
    imageName(layers),
    join(folder, file),
  ];
  await runQemuImg(args, {
    deadline,
    signal,
    onProgress: (percent) => {
      onProgress('copying', percent);
    },
  });
  // qemu-img does not sync.
  await syncPath(join(folder, file));
}

/** Reads both anew, and throws a CutError unless the guest would find the same bytes in either. */
async function compare(
  layers: readonly OpenLayer[],
  file: string,
  { folder, format, deadline, signal, onProgress }: DiskCopyOptions,
): Promise<void> {
  const args = ['compare', '-p', '-F', format, imageName(layers), join(folder, file)];
  const { exitCode, stdout } = await runQemuImg(args, {
    deadline,
    signal,
    answers: [1],
    onProgress: (percent) => {
      onProgress('verifying', percent);
    },
  });
  if (exitCode === 0) return;
  const words = (stdout.split('\r').at(-1) ?? '').trim();
  throw new CutError('E_VERIFY', `the copy ${file} is not what ${layers[0]?.file ?? ''} holds: ${words}`);
}

async function hashOf(file: string, { deadline, signal }: DiskCopyOptions): Promise<string> {
  const hash = createHash('sha256');
  const late = AbortSignal.timeout(Math.max(1, Math.ceil(deadline.remainingMs)));
  try {
    await pipeline(createReadStream(file, { highWaterMark: 1024 * 1024 }), hash, {
      signal: AbortSignal.any([signal, late]),
    });
  } catch (cause) {
    signal.throwIfAborted();
    if (late.aborted) throw new CutError('E_COPY', `no end within ${deadline.limitMs} ms`, { cause });
    throw cause;
  }
  return hash.digest('hex');
}
