// What a session leaves on tmpfs so that a successor can release its writers (recovery.ts): who held it, and each
// writer whose freeze was started, noted before it is started. Scratch directories of writers live beside it.
import { appendFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { StateError, UsageError } from '../errors.js';
import { processStartTime } from './freezer-process.js';
import type { Writer } from './writer-folders.js';

const headSchema = v.strictObject({
  version: v.literal(1),
  session: v.string(),
  requester: v.string(),
  pid: v.number(),
  startTime: v.string(),
  leaseMs: v.number(),
  mountpoints: v.array(v.string()),
});
export type SessionHead = v.InferOutput<typeof headSchema>;

const lineSchema = v.variant('event', [
  v.strictObject({
    event: v.literal('started'),
    path: v.string(),
    name: v.string(),
    folder: v.string(),
    style: v.picklist(['qemu', 'dragonsdawn', 'bridge']),
    kind: v.picklist(['plain', 'described']),
    rank: v.number(),
    limitMs: v.number(),
  }),
  v.strictObject({ event: v.literal('process'), path: v.string(), pid: v.number(), startTime: v.string() }),
  v.strictObject({ event: v.literal('released'), path: v.string() }),
  v.strictObject({ event: v.literal('ended') }),
]);
export type WriterProcess = Extract<v.InferOutput<typeof lineSchema>, { event: 'process' }>;
export type StartedWriter = Extract<v.InferOutput<typeof lineSchema>, { event: 'started' }>;

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

export class SessionRecord {
  readonly dir: string;
  readonly outputDir: string;

  private constructor(dir: string) {
    this.dir = dir;
    this.outputDir = join(dir, 'output');
  }

  /** Throws a StateError if a session of this id left its directory behind and was not recovered. */
  static create(runtimeDir: string, head: Omit<SessionHead, 'version' | 'pid' | 'startTime'>): SessionRecord {
    mkdirSync(sessionsDir(runtimeDir), { recursive: true, mode: 0o700 });
    const record = new SessionRecord(join(sessionsDir(runtimeDir), head.session));
    try {
      mkdirSync(record.dir, { mode: 0o700 });
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'EEXIST')
        throw new StateError(`session ${head.session}`, 'an id in use', ['a new id']);
      throw error;
    }
    mkdirSync(record.outputDir, { mode: 0o700 });
    mkdirSync(join(record.dir, 'scratch'), { mode: 0o711 });
    const startTime = processStartTime(process.pid) ?? '';
    writeFileSync(join(record.dir, 'head.json'), JSON.stringify({ version: 1, pid: process.pid, startTime, ...head }));
    return record;
  }

  static open(dir: string): SessionRecord {
    const record = new SessionRecord(dir);
    mkdirSync(record.outputDir, { recursive: true, mode: 0o700 });
    return record;
  }

  /** A writer's own directory from prepare to post; made when first asked for. */
  scratch(writerName: string): string {
    const dir = join(this.dir, 'scratch', writerName);
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    return dir;
  }

  noteStarted(writer: Writer, limitMs: number): void {
    const { path, name, folder, kind, rank } = writer;
    this.#append({ event: 'started', path, name, folder: folder.path, style: folder.style, kind, rank, limitMs });
  }

  /** Whose end nobody may be there to see to. Never throws: it is missed only after a death. */
  noteProcess(path: string, pid: number): void {
    try {
      this.#append({ event: 'process', path, pid, startTime: processStartTime(pid) ?? '' });
    } catch {
      // As a writer whose process has already ended.
    }
  }

  noteReleased(path: string): void {
    this.#append({ event: 'released', path });
  }

  /** Its requester was told how it ended; what is kept is for the writers that could not be released. */
  noteEnded(): void {
    this.#append({ event: 'ended' });
  }

  #append(line: v.InferOutput<typeof lineSchema>): void {
    appendFileSync(join(this.dir, 'writers'), `${JSON.stringify(line)}\n`);
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

  /** Phases that are still running, though nobody waits for them any more. */
  runningProcesses(): readonly WriterProcess[] {
    return this.#lines().flatMap((line) =>
      line.event === 'process' && line.startTime !== '' && processStartTime(line.pid) === line.startTime ? [line] : [],
    );
  }

  #lines(): readonly v.InferOutput<typeof lineSchema>[] {
    let text: string;
    try {
      text = readFileSync(join(this.dir, 'writers'), 'utf8');
    } catch {
      return [];
    }
    // A line cut short by its writer's death was about something that had not begun.
    return text.split('\n').flatMap((line) => {
      const parsed = v.safeParse(lineSchema, parseJson(line));
      return parsed.success ? [parsed.output] : [];
    });
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
