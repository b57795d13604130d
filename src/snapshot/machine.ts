// What all commands of this folder work with: the machine's view, its providers, the notes of runs.
import { join } from 'node:path';
import { randomBytes } from 'node:crypto';
import type { LookAtMachine } from '../linux/machine-view.js';
import { collect, type Collected } from './collect.js';
import { Journal } from './journal.js';
import { planSet, type PlanWish, type SetPlan } from './planner.js';
import type { Run } from './program.js';
import type { Provider } from './providers/provider.js';
import { readSources, type Extent } from './sources.js';

export interface MachineOptions {
  readonly look: LookAtMachine;
  readonly run: Run;
  /** In the order in which they are asked. */
  readonly providers: readonly Provider[];
  /** On tmpfs: `/run/fsfreeze-bridge`. */
  readonly runtimeDir: string;
  readonly agentSocket: string | undefined;
  /** The words that start this program. */
  readonly self: readonly string[];
  /** For people, while it works; called only while nothing is frozen. */
  readonly note: (text: string) => void;
}

export interface PlanRequest extends PlanWish {
  readonly paths: readonly string[];
  readonly extent: Extent;
}

export class SnapshotMachine implements AsyncDisposable {
  readonly options: MachineOptions;
  readonly journal: Journal;

  constructor(options: MachineOptions) {
    this.options = options;
    this.journal = new Journal(join(options.runtimeDir, 'snapshots'));
  }

  /** Changes nothing. Throws what readSources() and planSet() do. */
  async plan({ paths, extent, ...wish }: PlanRequest): Promise<SetPlan> {
    const { table, lookup } = await this.options.look('own');
    // As short as a name of LVM should be, and never seen twice in the time that a set lives.
    const run = randomBytes(4).toString('hex');
    return await planSet(run, readSources(paths, table, extent), lookup, this.options.providers, wish);
  }

  /** What dead runs left. Never throws. */
  async collect(only?: string): Promise<Collected> {
    return await collect(this.journal, this.options.providers, this.options.run, only);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const provider of this.options.providers) await provider.close();
  }
}
