// Reads the record of a session whose process may be dead, for its successor: who held the guest, which writers are
// still to be released, and which processes may still run. The successor goes on noting in it. How such a session is
// recovered: src/freeze/session/recovery.ts.
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { stillRuns } from '../../linux/process-stat.js';
import type { StartedWriter, StartingPhase, WriterProcess } from './notes.js';
import { SessionRecord, sessionHeadSchema, type SessionHead } from './record.js';

export class LeftRecord extends SessionRecord {
  /** A record that is there. Changes nothing. */
  static open(dir: string): LeftRecord {
    return new LeftRecord(dir);
  }

  /** Throws if what is there was not written by us. */
  head(): SessionHead {
    return v.parse(sessionHeadSchema, JSON.parse(readFileSync(join(this.dir, 'head.json'), 'utf8')));
  }

  /** Writers whose freeze was started and that were not released, in the order of their start. */
  unreleased(): readonly StartedWriter[] {
    const started = new Map<string, StartedWriter>();
    for (const note of this.notes.read()) {
      if (note.event === 'started') started.set(note.path, note);
      else if (note.event === 'released') started.delete(note.path);
    }
    return [...started.values()];
  }

  /** Its requester was told how it ended. */
  ended(): boolean {
    return this.notes.read().some(({ event }) => event === 'ended');
  }

  /** Phases and residents that are still running, though nobody waits for them any more. */
  runningProcesses(): readonly WriterProcess[] {
    return this.notes
      .read()
      .flatMap((note) => (note.event === 'process' && note.startTime !== '' && stillRuns(note) ? [note] : []));
  }

  /** Phases that were about to be started when the notes end: their processes may be there, unnoted. */
  startingPhases(): readonly StartingPhase[] {
    const starting = new Map<string, StartingPhase>();
    for (const note of this.notes.read()) {
      if (note.event === 'starting') starting.set(note.path, note);
      else if (note.event === 'process') starting.delete(note.path);
    }
    return [...starting.values()];
  }

  /** Throws away what writers printed: it may fill the tmpfs, and nobody reads it any more. Never throws. */
  clearOutput(): void {
    try {
      rmSync(this.outputDir, { recursive: true, force: true });
      mkdirSync(this.outputDir, { recursive: true, mode: 0o700 });
    } catch {
      // Then what is printed from now on is lost.
    }
  }
}
