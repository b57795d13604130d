// Writes the pid file of a daemon and locks it for as long as the daemon lives, so that a second one says so and stops.
// Node has no flock(2): util-linux's flock(1) takes the lock on our open file, and it stays ours when flock has ended.
import { spawn } from 'node:child_process';
import { closeSync, existsSync, fstatSync, ftruncateSync, openSync, statSync, unlinkSync, writeSync } from 'node:fs';
import { UsageError } from '../errors.js';

const programs = ['/usr/bin/flock', '/bin/flock'] as const;
const LIMIT_MS = 5000;

export interface PidFile {
  /** Removes it. May be called again. */
  release(): void;
}

/** Throws a UsageError if it cannot be written, or if another process holds it. */
export async function writePidFile(path: string): Promise<PidFile> {
  for (;;) {
    const fd = open(path);
    try {
      await lock(fd, path);
      // Its holder may have removed it meanwhile: then the file that is locked has no name any more.
      if (statSync(path, { throwIfNoEntry: false })?.ino !== fstatSync(fd).ino) {
        closeSync(fd);
        continue;
      }
      ftruncateSync(fd);
      writeSync(fd, `${process.pid}\n`);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    let released = false;
    return {
      release() {
        if (released) return;
        released = true;
        try {
          unlinkSync(path);
        } catch {
          // Somebody was faster: it is gone, which is what was wanted.
        }
        closeSync(fd);
      },
    };
  }
}

function open(path: string): number {
  try {
    // Not truncated: another daemon may hold it.
    return openSync(path, 'a', 0o600);
  } catch (cause) {
    const { code = 'EIO' } = cause as NodeJS.ErrnoException;
    throw new UsageError('E_PIDFILE', `could not create pid file '${path}': ${code}`);
  }
}

async function lock(fd: number, path: string): Promise<void> {
  const program = programs.find((candidate) => existsSync(candidate));
  if (program === undefined) {
    throw new UsageError('E_PIDFILE', `cannot lock ${path}: expected flock at ${programs.join(' or ')}, found none`);
  }
  // Not execa: it hands no open file of ours on.
  const child = spawn(program, ['-n', '3'], { stdio: ['ignore', 'ignore', 'ignore', fd], timeout: LIMIT_MS });
  const exitCode = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject).once('close', resolve);
  });
  if (exitCode === 0) return;
  const why = exitCode === 1 ? 'another agent runs with it' : `flock ended with ${exitCode ?? 'a signal'}`;
  throw new UsageError('E_PIDFILE', `cannot lock pid file ${path}: ${why}`);
}
