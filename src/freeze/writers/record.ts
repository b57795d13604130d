// Writes the record that a session keeps on tmpfs, so that a successor can release its writers: who holds the guest,
// each writer whose freeze is about to be started, and every process. Its folder comes into being with its head at
// once. Scratch folders of writers and what they print lie in it. How it is read after a death: left-record.ts.
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { defined } from '../../defined.js';
import { isErrno, StateError, UsageError } from '../../errors.js';
import { monotonicMs } from '../../linux/clock.js';
import { pathBytes } from '../../linux/path-text.js';
import { processStat } from '../../linux/process-stat.js';
import type { Writer } from './folders.js';
import { naming, Notes, type WriterProcess } from './notes.js';

export const sessionHeadSchema = v.strictObject({
  version: v.literal(1),
  session: v.string(),
  requester: v.string(),
  pid: v.number(),
  startTime: v.string(),
  leaseMs: v.number(),
  mountpoints: v.array(v.string()),
  /** On CLOCK_MONOTONIC: tmpfs does not outlive it. */
  beganMs: v.optional(v.number()),
});
export type SessionHead = v.InferOutput<typeof sessionHeadSchema>;

/** In a session's folder; no writer has such a name. */
const MOUNTPOINTS = 'scratch/.mountpoints';

/** Name of a session that is being made: `.new-PID-START-ID`. */
const unfinishedName = /^\.new-(\d+)-(\d+)-/;

/** Ids become folder names and words of the environment. Throws a UsageError. */
export function checkSessionId(id: string): void {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(id))
    throw new UsageError(
      'E_SESSION_ID',
      `session id: expected 1 to 64 letters, digits, dots, dashes or underscores, found ${JSON.stringify(id)}`,
    );
}

export function sessionsDir(runtimeDir: string): string {
  return join(runtimeDir, 'sessions');
}

/** The process that died while it made the session in a folder of this name; undefined if no session is made there. */
export function makerOf(name: string): { readonly pid: number; readonly startTime: string } | undefined {
  const [, pid, startTime] = unfinishedName.exec(name) ?? [];
  return pid === undefined || startTime === undefined ? undefined : { pid: Number(pid), startTime };
}

export class SessionRecord {
  readonly dir: string;
  readonly outputDir: string;
  protected readonly notes: Notes;

  protected constructor(dir: string) {
    this.dir = dir;
    this.outputDir = join(dir, 'output');
    this.notes = new Notes(join(dir, 'writers'));
  }

  /** Throws a StateError if a session of this id left its folder behind and was not recovered. */
  static create(
    runtimeDir: string,
    head: Omit<SessionHead, 'version' | 'pid' | 'startTime' | 'beganMs'>,
  ): SessionRecord {
    const sessions = sessionsDir(runtimeDir);
    mkdirSync(sessions, { recursive: true, mode: 0o700 });
    const { pid } = process;
    const startTime = processStat(pid)?.startTime ?? '';
    const unfinished = join(sessions, `.new-${pid}-${startTime}-${head.session}`);
    rmSync(unfinished, { recursive: true, force: true });
    const record = new SessionRecord(join(sessions, head.session));
    try {
      for (const dir of [unfinished, join(unfinished, 'output')]) mkdirSync(dir, { mode: 0o700 });
      mkdirSync(join(unfinished, 'scratch'), { mode: 0o711 });
      const whole: SessionHead = { version: 1, pid, startTime, beganMs: monotonicMs(), ...head };
      const list = mountpointLines(head.mountpoints).map((line) => `${line}\n`);
      // As bytes: what is no UTF-8 would be another name, and its writer would think that it is not concerned.
      writeWhole(join(unfinished, MOUNTPOINTS), pathBytes(list.join('')));
      writeWhole(join(unfinished, 'head.json'), JSON.stringify(whole));
      renameSync(unfinished, record.dir);
    } catch (error) {
      rmSync(unfinished, { recursive: true, force: true });
      if (isErrno(error, 'ENOTEMPTY', 'EEXIST'))
        throw new StateError(`session ${head.session}`, 'an id in use', ['a new id']);
      throw error;
    }
    return record;
  }

  /** A file of all mount points of the session, one on a line. */
  get mountpointsPath(): string {
    return join(this.dir, MOUNTPOINTS);
  }

  scratchPath(writerName: string): string {
    return join(this.dir, 'scratch', writerName);
  }

  /** A writer's own folder from prepare to post; made when first asked for. Throws what mkdir(2) does. */
  scratch(writerName: string): string {
    const dir = this.scratchPath(writerName);
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    return dir;
  }

  /** To be noted before their freeze is started. Throws if it cannot be: then none of them must be started. */
  noteStarted(writers: readonly { readonly writer: Writer; readonly limitMs: number }[]): void {
    this.notes.append(
      ...writers.map(({ writer: { path, name, folder, kind, rank, description }, limitMs }) => ({
        event: 'started' as const,
        path,
        name,
        folder: folder.path,
        style: folder.style,
        kind,
        rank,
        limitMs,
        ...defined({ lingers: description?.lingers }),
      })),
    );
  }

  /** A process comes into being before its pid can be noted. Never throws. */
  noteStarting({ path, name }: Pick<Writer, 'path' | 'name'>, phase: string): void {
    this.notes.appendIfAble({ event: 'starting', path, name, phase });
  }

  /** A process that a successor may have to end. Never throws. */
  noteProcess(process: Omit<WriterProcess, 'event'>): void {
    this.notes.appendIfAble({ event: 'process', ...process });
  }

  /**
   * Noted together with all that let go in this turn of the event loop. Never throws: a successor releases a writer once
   * more of which this could not be noted.
   */
  noteReleased(path: string): void {
    this.notes.appendSoon({ event: 'released', path });
  }

  /** The requester was told how the session ended; what is kept is for the writers that could not be released. */
  noteEnded(): void {
    this.notes.append({ event: 'ended' });
    this.notes.close();
  }

  remove(): void {
    this.notes.close();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** A name with a newline cannot be told on a line, and is left out. */
export function mountpointLines(paths: readonly string[]): readonly string[] {
  return paths.filter((path) => !path.includes('\n'));
}

function writeWhole(path: string, content: string | Buffer): void {
  naming(path, () => {
    writeFileSync(path, content);
  });
}
