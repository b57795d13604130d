// The record of a session that was held and is over, kept on tmpfs for the phase `complete`: what became of its writers, those that
// have the phase, and their scratch. It lies apart from the sessions under way: an agent that is started anew knows it,
// and does not take it for one that was abandoned. What is made of it: src/freeze/session/kept-session.ts.
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { completeOutcomes, completionSchema, freezeReportSchema, type Completion } from '../../consistency.js';
import { LeftRecord } from './left-record.js';
import type { SessionRecord } from './record.js';

const keptWriterSchema = v.strictObject({
  name: v.string(),
  path: v.string(),
  folder: v.string(),
  style: v.picklist(['qemu', 'dragonsdawn', 'bridge']),
  rank: v.number(),
  /** Seconds, if its description says how long the phase may take. */
  timeout: v.optional(v.number()),
  /** The best it can be told: its hold cannot be relied on if it, or the session, failed. */
  atBest: v.picklist(completeOutcomes),
});
export type KeptWriter = v.InferOutput<typeof keptWriterSchema>;

const keptHeadSchema = v.strictObject({
  version: v.literal(1),
  session: v.string(),
  requester: v.string(),
  /** Start time of the agent that held it. */
  startTime: v.string(),
  /** On CLOCK_MONOTONIC: tmpfs does not outlive it. */
  endedMs: v.number(),
  leaseMs: v.number(),
  mountpoints: v.array(v.string()),
  writers: v.array(keptWriterSchema),
  /** What became of its writers. The rest is the requester's: it may be large, and tmpfs is memory. */
  report: v.pick(freezeReportSchema, ['session', 'writers', 'accompanying']),
});
export type KeptHead = v.InferOutput<typeof keptHeadSchema>;

/** In the folder of all kept sessions: name of one that is being made. */
const UNFINISHED_PREFIX = '.new-';
const HEAD = 'kept.json';
const ANSWER = 'completion.json';

export class KeptRecord extends LeftRecord {
  /**
   * Made at once, or not at all; one of the same id is replaced. The scratch of its writers is moved out of `from`.
   * `folder`: of all kept sessions. Throws what mkdir(2) and write(2) do.
   */
  static keep(folder: string, head: KeptHead, from: SessionRecord): KeptRecord {
    const unfinished = new KeptRecord(join(folder, `${UNFINISHED_PREFIX}${head.session}`));
    const record = new KeptRecord(join(folder, head.session));
    try {
      unfinished.remove();
      mkdirSync(unfinished.scratchDir, { recursive: true, mode: 0o711 });
      mkdirSync(unfinished.outputDir, { mode: 0o700 });
      writeFileSync(join(unfinished.dir, HEAD), JSON.stringify(head));
      if (head.writers.length > 0) copyFileSync(from.mountpointsPath, unfinished.mountpointsPath);
      for (const { name } of head.writers)
        if (existsSync(from.scratchPath(name))) renameSync(from.scratchPath(name), unfinished.scratchPath(name));
      record.remove();
      renameSync(unfinished.dir, record.dir);
      return record;
    } catch (error) {
      unfinished.remove();
      throw error;
    }
  }

  /** By the name in the folder of all kept sessions. Changes nothing. */
  static at(folder: string, name: string): KeptRecord {
    return new KeptRecord(join(folder, name));
  }

  /** Undefined if it was not finished, or is nothing that this version wrote. Never throws. */
  keptHead(): KeptHead | undefined {
    try {
      const head = v.parse(keptHeadSchema, JSON.parse(readFileSync(join(this.dir, HEAD), 'utf8')));
      return this.dir.endsWith(`/${head.session}`) ? head : undefined;
    } catch {
      return undefined;
    }
  }

  /** The answer that was given; undefined if there was none. Throws if it is nothing that this version wrote. */
  answer(): Completion | undefined {
    const path = join(this.dir, ANSWER);
    return existsSync(path) ? v.parse(completionSchema, JSON.parse(readFileSync(path, 'utf8'))) : undefined;
  }

  /** From now on this is the answer, and what the writers needed goes. Throws what write(2) does. */
  noteAnswer(completion: Completion): void {
    const path = join(this.dir, ANSWER);
    writeFileSync(`${path}.new`, JSON.stringify(completion));
    renameSync(`${path}.new`, path);
    for (const name of ['scratch', 'output', 'writers']) rmSync(join(this.dir, name), { recursive: true, force: true });
  }

  private get scratchDir(): string {
    return join(this.dir, 'scratch');
  }
}
