// Takes what a writer prints: into two files on tmpfs (real files, so that a daemon that keeps them open holds nobody
// up), kept small while they are written. Their first line is shown to people, and cannot steer a terminal.
import { closeSync, fstatSync, ftruncateSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { groupExists, killGroup } from '../../linux/process-group.js';

/** Output beyond this is thrown away as it comes: tmpfs is memory. */
const KEPT_BYTES = 64 * 1024;
/** A writer that has printed this much does nothing else any more. */
export const FLOOD_BYTES = 16 * 1024 * 1024;
const FLOOD_CHECK_MS = 25;
const HEAD_BYTES = 4096;
const TEXT_CHARACTERS = 500;

/** Control characters, and the separators and marks that break or reorder a line (as src/printable.ts). */
const steering = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/** One line that no terminal acts on, of bounded length. */
export function harmlessLine(text: string): string {
  return text
    .slice(0, TEXT_CHARACTERS)
    .replaceAll('\t', ' ')
    .replace(steering, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`)
    .slice(0, TEXT_CHARACTERS);
}

/** The files of one phase, or of one resident. They are appended to, so that cutting them off restarts them. */
export class WriterOutput {
  /** Undefined of a resident, whose standard output is its conversation. */
  readonly out: number | undefined;
  readonly err: number;
  readonly #heads = new Map<number, string>();
  #thrownAway = 0;

  /** `label`: without slashes. Where no file can be had (a full tmpfs), what is printed is lost. */
  constructor(dir: string, label: string, withOut = true) {
    const open = (ending: string): number => {
      try {
        const fd = openSync(join(dir, `${label}.${ending}`), 'a+', 0o600);
        // A phase may run twice.
        ftruncateSync(fd, 0);
        return fd;
      } catch {
        return openSync('/dev/null', 'r+');
      }
    };
    this.out = withOut ? open('out') : undefined;
    this.err = open('err');
  }

  /** Cuts off output that is too much. True once it is a flood. */
  keepSmall(): boolean {
    for (const fd of [this.err, this.out]) {
      if (fd === undefined) continue;
      const { size } = fstatSync(fd);
      if (size <= KEPT_BYTES) continue;
      if (!this.#heads.has(fd)) this.#heads.set(fd, this.#head(fd));
      ftruncateSync(fd, 0);
      this.#thrownAway += size;
    }
    return this.#thrownAway > FLOOD_BYTES;
  }

  /** The first line that is not empty, of stderr, else of stdout. */
  firstLine(): string | undefined {
    const line = (fd: number | undefined): string | undefined => {
      if (fd === undefined) return undefined;
      const found = (this.#heads.get(fd) ?? this.#head(fd))
        .split('\n')
        .map((text) => text.trim())
        .find((text) => text !== '');
      return found === undefined ? undefined : harmlessLine(found);
    };
    return line(this.err) ?? line(this.out);
  }

  close(): void {
    this.keepSmall();
    if (this.out !== undefined) closeSync(this.out);
    closeSync(this.err);
  }

  #head(fd: number): string {
    const head = Buffer.alloc(HEAD_BYTES);
    return head.subarray(0, readSync(fd, head, 0, head.length, 0)).toString('utf8');
  }
}

interface Watched {
  readonly onFlood: () => void;
  /** The process group that a phase which is over left running; it is ended at a flood. */
  readonly group: number | undefined;
  isThere: boolean;
  /** `onFlood` was called. */
  isTold: boolean;
}

/**
 * Watches the output of all writers of a session, while phases run and while processes that they left behind (a daemon
 * that keeps a lock) may still write to it. Looks up and opens nothing, so that it may watch while everything is frozen.
 * Does not keep this process alive.
 */
export class OutputWatch {
  readonly #watched = new Map<WriterOutput, Watched>();
  #timer: NodeJS.Timeout | undefined;

  /** `onFlood` is called once, at a flood. */
  add(output: WriterOutput, onFlood: () => void): void {
    this.#watch(output, { onFlood, group: undefined, isThere: true, isTold: false });
  }

  /** Whoever added it keeps it, and closes it. */
  remove(output: WriterOutput): void {
    this.#watched.delete(output);
    if (this.#watched.size === 0) this.#stop();
  }

  /** Takes over the output. A flood ends the group, and `onFlood` is called. */
  keep(output: WriterOutput, group: number, onFlood: () => void): void {
    this.#watch(output, { onFlood, group, isThere: true, isTold: false });
  }

  /** Closes what was kept. */
  close(): void {
    for (const [output, { group }] of this.#watched) {
      if (group === undefined) continue;
      this.remove(output);
      output.close();
    }
  }

  #watch(output: WriterOutput, watched: Watched): void {
    this.#watched.set(output, watched);
    this.#timer ??= setInterval(() => {
      for (const [one, how] of this.#watched) this.#look(one, how);
    }, FLOOD_CHECK_MS).unref();
  }

  #look(output: WriterOutput, watched: Watched): void {
    const { group, onFlood } = watched;
    // Once the group was gone, its number may be another's.
    if (group !== undefined) watched.isThere &&= groupExists(group);
    if (!output.keepSmall() || !watched.isThere || watched.isTold) return;
    // It is kept small until its writer has ended.
    watched.isTold = true;
    if (group !== undefined) {
      killGroup(group, 'SIGKILL');
      this.remove(output);
      output.close();
    }
    onFlood();
  }

  #stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
