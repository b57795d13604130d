// Appends and reads the notes in a session's record: one line of JSON for each event. Whatever instant the noting
// process dies at, they can be read: a line that was cut short is passed over, and the next one stands on a line of its
// own. What is noted when: record.ts. What a successor makes of it: left-record.ts.
import { closeSync, fstatSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import * as v from 'valibot';

const noteSchema = v.variant('event', [
  v.strictObject({
    event: v.literal('started'),
    path: v.string(),
    name: v.string(),
    folder: v.string(),
    style: v.picklist(['qemu', 'dragonsdawn', 'bridge']),
    kind: v.picklist(['plain', 'described', 'resident']),
    rank: v.number(),
    limitMs: v.number(),
    /** Seconds. */
    lingers: v.optional(v.number()),
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
type Note = v.InferOutput<typeof noteSchema>;
/** A writer whose freeze was about to be started. */
export type StartedWriter = Extract<Note, { event: 'started' }>;
/** A phase whose process was about to be started: before that is there, its pid cannot be noted. */
export type StartingPhase = Extract<Note, { event: 'starting' }>;
export type WriterProcess = Extract<Note, { event: 'process' }>;

export class Notes {
  readonly #file: string;
  /** Kept open from the first note on: to open it for each would be most of what a note costs. */
  #fd: number | undefined;
  /** The last line of the file is known to end. */
  #isWhole = false;
  #soon: Note[] = [];
  #turn: NodeJS.Immediate | undefined;

  constructor(file: string) {
    this.#file = file;
  }

  /** Writes them at once and together. Throws what open(2) and write(2) do. */
  append(...notes: readonly Note[]): void {
    const all = [...this.#takeSoon(), ...notes];
    if (all.length === 0) return;
    naming(this.#file, () => {
      this.#fd ??= openSync(this.#file, 'a+');
      // After a line that was cut short (a death, a full tmpfs) this one must not become a part of it.
      const before = this.#isWhole || endsWhole(this.#fd) ? '' : '\n';
      this.#isWhole = false;
      const bytes = Buffer.from(`${before}${all.map((note) => `${JSON.stringify(note)}\n`).join('')}`);
      for (let at = 0; at < bytes.length;) at += writeSync(this.#fd, bytes, at);
    });
    this.#isWhole = true;
  }

  /** Writes it with whatever else is noted in this turn of the event loop. Never throws. */
  appendSoon(note: Note): void {
    this.#soon.push(note);
    this.#turn ??= setImmediate(() => {
      this.appendIfAble();
    });
  }

  /** Writes what is still to be written, if it can. Later notes open the file anew. */
  close(): void {
    this.appendIfAble();
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
    this.#isWhole = false;
  }

  /** Never throws: a full tmpfs must not keep a writer from being released. */
  appendIfAble(...notes: readonly Note[]): void {
    try {
      this.append(...notes);
    } catch {
      // It is missed only after a death.
    }
  }

  #takeSoon(): readonly Note[] {
    clearImmediate(this.#turn);
    this.#turn = undefined;
    return this.#soon.splice(0);
  }

  /** All that can be read, in the order of writing. Never throws. */
  read(): readonly Note[] {
    this.appendIfAble();
    let text: string;
    try {
      text = readFileSync(this.#file, 'utf8');
    } catch {
      return [];
    }
    // A line cut short by a death was about something that had not begun, or is done once more.
    return text.split('\n').flatMap((line) => {
      const parsed = v.safeParse(noteSchema, parseJson(line));
      return parsed.success ? [parsed.output] : [];
    });
  }
}

/** Throws what `act` throws, with the file in the message: of a write(2) that fails, Node does not name it. */
export function naming(path: string, act: () => void): void {
  try {
    act();
  } catch (error) {
    if (error instanceof Error && !error.message.includes(path)) error.message += ` '${path}'`;
    throw error;
  }
}

function endsWhole(fd: number): boolean {
  const { size } = fstatSync(fd);
  const last = Buffer.alloc(1);
  return size === 0 || (readSync(fd, last, 0, 1, size - 1) === 1 && last[0] === 0x0a);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
