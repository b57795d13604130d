// A bare QEMU that is backed up, and a model of what its disks hold: the state of each run's instant is kept, byte for
// byte, and every run can be restored and compared with it.
import { join } from 'node:path';
import type { RunManifest } from '../../src/host/repository/run-manifest.js';
import type { BareDisk } from './bare-qemu.js';
import { bareUuid } from './bare-qemu.js';
import { CutHarness, type Run } from './cut-harness.js';
import { restoredByHand, restoredByTool, type State } from './restored-runs.js';

export interface BackupRun extends Run {
  /** Of the run; what failed has none. */
  readonly made: RunManifest;
}

export class BackupHarness implements AsyncDisposable {
  readonly at: CutHarness;
  readonly disks: readonly BareDisk[];
  readonly #model = new Map<string, Buffer>();
  /** What the disks held at the cut, by run. */
  readonly states = new Map<string, State>();
  /** The key by which runs are encrypted, and read. */
  keyFile: string | undefined;

  private constructor(at: CutHarness, disks: readonly BareDisk[]) {
    this.at = at;
    this.disks = disks;
    for (const { name, megabytes = 16 } of disks) this.#model.set(name, Buffer.alloc(megabytes * 1024 * 1024));
  }

  /** `extra`: more words for QEMU. */
  static async start(disks: readonly BareDisk[], extra: readonly string[] = []): Promise<BackupHarness> {
    return new BackupHarness(await CutHarness.start(disks, () => Promise.resolve(extra)), disks);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.at[Symbol.asyncDispose]();
  }

  /** A file for a test's own use. */
  path(name: string): string {
    return this.at.folder.path(name);
  }

  get repository(): string {
    return this.at.folder.path('repository');
  }

  /** The folder of the VM, or of a file in it. */
  stored(...names: readonly string[]): string {
    return join(this.repository, bareUuid(this.at.folder), ...names);
  }

  async write(disk: string, pattern: number, offsetKilobytes: number, kilobytes: number): Promise<void> {
    await this.at.vm.write(disk, pattern, offsetKilobytes, kilobytes);
    this.#fill(disk, pattern, offsetKilobytes, kilobytes);
  }

  async zero(disk: string, offsetKilobytes: number, kilobytes: number): Promise<void> {
    await this.at.vm.zero(disk, offsetKilobytes, kilobytes);
    this.#fill(disk, 0, offsetKilobytes, kilobytes);
  }

  /** Of a disk with `discard`. */
  async discard(disk: string, offsetKilobytes: number, kilobytes: number): Promise<void> {
    await this.at.vm.discard(disk, offsetKilobytes, kilobytes);
    this.#fill(disk, 0, offsetKilobytes, kilobytes);
  }

  #fill(disk: string, pattern: number, offsetKilobytes: number, kilobytes: number): void {
    const bytes = this.#model.get(disk);
    if (bytes === undefined) throw new Error(`no disk ${disk}`);
    bytes.fill(pattern, offsetKilobytes * 1024, (offsetKilobytes + kilobytes) * 1024);
  }

  /** What the disks hold now. */
  state(): State {
    return new Map([...this.#model].map(([disk, bytes]) => [disk, Buffer.from(bytes)]));
  }

  /** Of the disk, in megabytes. */
  megabytes(disk: string): number {
    return (this.#model.get(disk)?.length ?? 0) / 1024 / 1024;
  }

  /** The disks hold this again: they were reverted, or started from other images. */
  became(state: State): void {
    for (const [disk, bytes] of state) this.#model.set(disk, Buffer.from(bytes));
  }

  /** The disk has so many bytes now; what is new is zero. */
  resized(disk: string, megabytes: number): void {
    const old = this.#model.get(disk) ?? Buffer.alloc(0);
    const bytes = Buffer.alloc(megabytes * 1024 * 1024);
    old.copy(bytes);
    this.#model.set(disk, bytes);
  }

  words(...words: readonly string[]): string[] {
    const room = words.includes('--min-free') ? [] : ['--min-free', '1'];
    const isSaid = this.keyFile === undefined || words.some((word) => /^--(no-)?(encrypt|key-)/.test(word));
    return ['backup', 'run', '--to', this.repository, ...room, ...(isSaid ? [] : ['--encrypt', ...this.key]), ...words];
  }

  /** Words for a command that reads runs. */
  get key(): string[] {
    return this.keyFile === undefined ? [] : ['--key-file', this.keyFile];
  }

  /** Backs up; the state is that of the freeze. `meanwhile` runs while the guest is held. */
  async run(...words: readonly string[]): Promise<BackupRun> {
    let state: State | undefined;
    const { agent } = this.at;
    const before = agent.onFreeze;
    agent.onFreeze = async () => {
      await before();
      state = this.state();
    };
    try {
      const run = await this.at.bridge(this.words(...words));
      const made = run.json as unknown as RunManifest;
      if (run.error.code === 'none' && typeof made.run === 'string') this.states.set(made.run, state ?? this.state());
      return { ...run, made };
    } finally {
      agent.onFreeze = before;
    }
  }

  /** The command on the repository. */
  async backup(...words: readonly string[]): Promise<Run> {
    return await this.at.onRepository(['backup', ...words, '--repo', this.repository]);
  }

  /** The runs that are listed. */
  async listed(): Promise<string[]> {
    const { json } = await this.backup('list');
    const { vms } = json as { vms: { runs: { run: string }[] }[] };
    return vms.flatMap(({ runs }) => runs.map(({ run }) => run));
  }

  /** Restores the run and tells how it differs from the state of its cut; empty if it does not. */
  async differences(run: string): Promise<string[]> {
    const { refusal, different } = await this.restored(run);
    return refusal === undefined ? different : [refusal];
  }

  /** The same, with the tool's own word apart if it does not restore the run. */
  async restored(run: string): Promise<{ readonly refusal: string | undefined; readonly different: string[] }> {
    const state = this.states.get(run);
    if (state === undefined) throw new Error(`nobody kept the state of ${run}`);
    return await restoredByTool(this, run, state);
  }

  /** The same by the command line in the manifest, without our tool. */
  async differencesByHand(run: string): Promise<string[]> {
    return await restoredByHand(this, run, this.states.get(run) ?? new Map<string, Buffer>());
  }
}
