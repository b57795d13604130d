// What a session leaves on tmpfs so that a successor can release its writers (session/recovery.ts): who held it, each writer
// whose freeze was started, noted before it is started, and every process. Whatever instant its process dies at, what
// is left can be read: the folder comes into being with its head at once, and a line that was cut short is passed over.
// Scratch directories of writers live beside it.
import {
  appendFileSync,
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { isErrno, StateError, UsageError } from '../../errors.js';
import { monotonicMs } from '../../linux/clock.js';
import { processStat, stillRuns } from '../../linux/process-stat.js';
import type { Writer } from './folders.js';

const headSchema = v.strictObject({
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
export type SessionHead = v.InferOutput<typeof headSchema>;

const lineSchema = v.variant('event', [
  v.strictObject({
    event: v.literal('started'),
    path: v.string(),
    name: v.string(),
    folder: v.string(),
    style: v.picklist(['qemu', 'dragonsdawn', 'bridge']),
    kind: v.picklist(['plain', 'described', 'resident']),
    rank: v.number(),
    limitMs: v.number(),
  }),
  v.strictObject({ event: v.literal('starting'), path: v.string(), name: v.string(), phase: v.string() }),
  v.strictObject({
    event: v.literal('process'),
    path: v.string(),
    pid: v.number(),
    startTime: v.string(),
    resident: v.optional(v.boolean()),
  }),
  v.strictObject({ event: v.literal('released'), path: v.string() }),
  v.strictObject({ event: v.literal('ended') }),
]);
export type WriterProcess = Extract<v.InferOutput<typeof lineSchema>, { event: 'process' }>;
type StartingPhase = Extract<v.InferOutput<typeof lineSchema>, { event: 'starting' }>;
export type StartedWriter = Extract<v.InferOutput<typeof lineSchema>, { event: 'started' }>;

/** In a session's folder; no writer has such a name. */
const MOUNTPOINTS = 'scratch/.mountpoints';

/** Of a session that is being made: `.new-PID-START-ID`. */
const NEW = /^\.new-(\d+)-(\d+)-/;

/** Ids become directory names and words of the environment. */
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

/** The process that was making this session, in the course of which it died; undefined of a name that is none of these. */
export function makerOf(name: string): { readonly pid: number; readonly startTime: string } | undefined {
  const [, pid, startTime] = NEW.exec(name) ?? [];
  return pid === undefined || startTime === undefined ? undefined : { pid: Number(pid), startTime };
}

export class SessionRecord {
  readonly dir: string;
  readonly outputDir: string;
  #isWhole = false;

  private constructor(dir: string) {
    this.dir = dir;
    this.outputDir = join(dir, 'output');
  }

  /** Throws a StateError if a session of this id left its directory behind and was not recovered. */
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
      writeWhole(join(unfinished, MOUNTPOINTS), list.join(''));
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

  /** One that is there. Changes nothing. */
  static open(dir: string): SessionRecord {
    return new SessionRecord(dir);
  }

  /** Throws away what writers printed: they may have filled the tmpfs, and kept nobody from reading it. Never throws. */
  clearOutput(): void {
    try {
      rmSync(this.outputDir, { recursive: true, force: true });
      mkdirSync(this.outputDir, { recursive: true, mode: 0o700 });
    } catch {
      // Then what is printed from now on is lost.
    }
  }

  /** A file of all mount points of the session, one on a line. */
  get mountpointsPath(): string {
    return join(this.dir, MOUNTPOINTS);
  }

  scratchPath(writerName: string): string {
    return join(this.dir, 'scratch', writerName);
  }

  /** A writer's own directory from prepare to post; made when first asked for. */
  scratch(writerName: string): string {
    const dir = this.scratchPath(writerName);
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    return dir;
  }

  noteStarted(writer: Writer, limitMs: number): void {
    const { path, name, folder, kind, rank } = writer;
    this.#append({ event: 'started', path, name, folder: folder.path, style: folder.style, kind, rank, limitMs });
  }

  /** A process comes into being before its pid can be noted. Never throws: it is missed only after a death. */
  noteStarting({ path, name }: Pick<Writer, 'path' | 'name'>, phase: string): void {
    this.#appendIfAble({ event: 'starting', path, name, phase });
  }

  /** Whose end nobody may be there to see to. Never throws, as above. */
  noteProcess(path: string, pid: number, resident: boolean): void {
    const startTime = processStat(pid)?.startTime ?? '';
    this.#appendIfAble({ event: 'process', path, pid, startTime, ...(resident ? { resident } : {}) });
  }

  noteReleased(path: string): void {
    this.#append({ event: 'released', path });
  }

  /** Its requester was told how it ended; what is kept is for the writers that could not be released. */
  noteEnded(): void {
    this.#append({ event: 'ended' });
  }

  #appendIfAble(line: v.InferOutput<typeof lineSchema>): void {
    try {
      this.#append(line);
    } catch {
      // A full tmpfs must not keep a writer from being released.
    }
  }

  #append(line: v.InferOutput<typeof lineSchema>): void {
    const file = join(this.dir, 'writers');
    // After a line that was cut short (a death, a full tmpfs) this one must not become a part of it.
    const before = this.#isWhole || endsWhole(file) ? '' : '\n';
    this.#isWhole = false;
    naming(file, () => {
      appendFileSync(file, `${before}${JSON.stringify(line)}\n`);
    });
    this.#isWhole = true;
  }

  remove(): void {
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** Throws if what is there was not written by us. */
  head(): SessionHead {
    return v.parse(headSchema, JSON.parse(readFileSync(join(this.dir, 'head.json'), 'utf8')));
  }

  /** Writers whose freeze was started and that were not released, in the order of their start. */
  unreleased(): readonly StartedWriter[] {
    const started = new Map<string, StartedWriter>();
    for (const line of this.#lines()) {
      if (line.event === 'started') started.set(line.path, line);
      else if (line.event === 'released') started.delete(line.path);
    }
    return [...started.values()];
  }

  ended(): boolean {
    return this.#lines().some(({ event }) => event === 'ended');
  }

  /** Phases and residents that are still running, though nobody waits for them any more. */
  runningProcesses(): readonly WriterProcess[] {
    return this.#lines().flatMap((line) =>
      line.event === 'process' && line.startTime !== '' && stillRuns(line) ? [line] : [],
    );
  }

  /** Phases that were about to be started when the notes end: their processes may be there, unnoted. */
  startingPhases(): readonly StartingPhase[] {
    const starting = new Map<string, StartingPhase>();
    for (const line of this.#lines()) {
      if (line.event === 'starting') starting.set(line.path, line);
      else if (line.event === 'process') starting.delete(line.path);
    }
    return [...starting.values()];
  }

  #lines(): readonly v.InferOutput<typeof lineSchema>[] {
    let text: string;
    try {
      text = readFileSync(join(this.dir, 'writers'), 'utf8');
    } catch {
      return [];
    }
    // A line cut short by its writer's death was about something that had not begun, or is done once more.
    return text.split('\n').flatMap((line) => {
      const parsed = v.safeParse(lineSchema, parseJson(line));
      return parsed.success ? [parsed.output] : [];
    });
  }
}

/** A name with a newline cannot be told on a line, and is left out. */
export function mountpointLines(paths: readonly string[]): readonly string[] {
  return paths.filter((path) => !path.includes('\n'));
}

function writeWhole(path: string, text: string): void {
  naming(path, () => {
    writeFileSync(path, text);
  });
}

/** What write(2) cannot do Node tells without the file. */
function naming(path: string, act: () => void): void {
  try {
    act();
  } catch (error) {
    if (error instanceof Error && !error.message.includes(path)) error.message += ` '${path}'`;
    throw error;
  }
}

function endsWhole(path: string): boolean {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    return true;
  }
  try {
    const { size } = fstatSync(fd);
    const last = Buffer.alloc(1);
    return size === 0 || (readSync(fd, last, 0, 1, size - 1) === 1 && last[0] === 0x0a);
  } finally {
    closeSync(fd);
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
