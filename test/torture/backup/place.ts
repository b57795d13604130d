// The VM of a run of `torture -- backup`, its repository, and what is known of both: what the disks hold now, what they held
// at the cut of each run, and what was done to runs on purpose. The guest writes nothing while it is held, so that what its
// agent saw at the freeze is what a run must hold.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import type { RunManifest } from '../../../src/host/repository/run-manifest.js';
import { BackupHarness } from '../../support/backup-harness.js';
import type { State } from '../../support/restored-runs.js';
import type { ActiveImage, BareDisk } from '../../support/bare-qemu.js';
import type { Run } from '../../support/cut-harness.js';
import { filesystemReport, freezeReport } from '../../support/freeze-reports.js';
import { atPart } from '../at-part.js';
import type { DrawnWrite } from './act.js';
import type { BackupDraw } from './draw.js';
import type { Complaint } from './judge.js';

const DISK_MEGABYTES = 5;
const CLUSTER_KILOBYTES = 64;
/** The SCSI controller of a disk that is plugged later. */
const CONTROLLER = 'scsi-hot';
export const HOT_DISK: BareDisk = { name: 'hot0', format: 'qcow2', megabytes: 3, discard: true, scsi: true };
/** Nothing of the tool may take longer on disks of a few megabytes. */
const CALL_LIMIT_MS = 120_000;

export class Place implements AsyncDisposable {
  readonly vm: BackupHarness;
  disks: readonly BareDisk[];
  on = true;
  /** Snapshot sets that are there, the oldest first, with what the disks held at their cuts. */
  readonly sets: { readonly name: string; readonly state: State }[] = [];
  /** Runs that were seen to be there. */
  readonly seen = new Set<string>();
  /** Those that somebody forgot since. */
  readonly forgotten = new Set<string>();
  /** Those of which a file was damaged or lost since. */
  readonly harmed = new Set<string>();
  readonly complaints: Complaint[] = [];
  /** How disks of the runs were copied. */
  readonly kinds = { full: 0, incremental: 0 };
  /** Restores that were compared with their cuts. */
  compared = 0;
  slowest: { readonly words: string; readonly ms: number } | undefined;
  /** At the freezes since somebody asked. */
  readonly #cuts: State[] = [];
  /** A backup may be at it. */
  #isBusy = false;
  #files: ReadonlyMap<string, ActiveImage> = new Map();
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(vm: BackupHarness, disks: readonly BareDisk[]) {
    this.vm = vm;
    this.disks = disks;
    vm.at.agent.onFreeze = async () => {
      await this.alone(() => {
        this.#cuts.push(vm.state());
        return Promise.resolve();
      });
    };
  }

  static async build({ formats, isEncrypted }: BackupDraw): Promise<Place> {
    const disks = formats.map((format, index): BareDisk => {
      const disk = { name: `disk${index}`, megabytes: DISK_MEGABYTES + index, discard: true };
      return format === 'apart' ? { ...disk, format: 'qcow2', dataApart: true } : { ...disk, format };
    });
    const place = new Place(await BackupHarness.start(disks, ['-device', `virtio-scsi-pci,id=${CONTROLLER}`]), disks);
    place.vm.resized(HOT_DISK.name, HOT_DISK.megabytes ?? 0);
    if (isEncrypted) {
      place.vm.keyFile = place.vm.path('key');
      writeFileSync(place.vm.keyFile, 'k'.repeat(44), { mode: 0o600 });
    }
    return place;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.vm[Symbol.asyncDispose]();
  }

  /** Nothing else is done to the disks meanwhile. */
  async alone<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => undefined);
    return await turn;
  }

  /** A write of the guest, acknowledged when it returns. False if the guest is held, or shut off. */
  async write({ disk: part, at, kilobytes, what }: DrawnWrite, pattern: number): Promise<boolean> {
    return await this.alone(async () => {
      if (!this.on || this.vm.at.agent.frozen) return false;
      const { name } = this.diskAt(part);
      const clusters = what === 'discard' && this.sets.length === 0;
      const grain = clusters ? CLUSTER_KILOBYTES : 1;
      const size = this.vm.megabytes(name) * 1024;
      const length = Math.ceil(kilobytes / grain) * grain;
      const offset = Math.floor((at * (size - length)) / grain) * grain;
      if (clusters && !(await this.#isCopied())) await this.vm.discard(name, offset, length);
      else if (clusters) {
        // QEMU passes no discard on while a job copies the disk, which is no fault: what it reads then is not known.
        await this.vm.at.vm.discard(name, offset, length);
        await this.vm.zero(name, offset, length);
      } else if (what === 'bytes') await this.vm.write(name, pattern, offset, length);
      else await this.vm.zero(name, offset, length);
      return true;
    });
  }

  async #isCopied(): Promise<boolean> {
    return this.#isBusy || (await this.vm.at.jobs()).length > 0;
  }

  diskAt(part: number): BareDisk {
    const disk = atPart(this.disks, part);
    if (disk === undefined) throw new Error('the VM has no disk');
    return disk;
  }

  /** Runs the tool, and judges how it ends. */
  async call(words: readonly string[], signal = AbortSignal.timeout(CALL_LIMIT_MS)): Promise<Run> {
    return await this.#judged(words, () => this.vm.at.bridge(words, signal));
  }

  /** The same for a command on the repository. */
  async onRepository(...words: readonly string[]): Promise<Run> {
    const key = ['restore', 'verify'].includes(words[0] ?? '') ? this.vm.key : [];
    return await this.#judged(words, () => this.vm.backup(...words, ...key));
  }

  async #judged(words: readonly string[], work: () => Promise<Run>): Promise<Run> {
    const begin = performance.now();
    const run = await work();
    const ms = Math.round(performance.now() - begin);
    const what = words.filter((word) => !word.startsWith('/')).join(' ');
    if (ms > (this.slowest?.ms ?? 0)) this.slowest = { words: what, ms };
    if (ms >= CALL_LIMIT_MS) this.complaints.push({ kind: 'hang', text: `${what}: no end within ${CALL_LIMIT_MS} ms` });
    if (run.code === 1 || run.error.code === 'E_INTERNAL') {
      this.complaints.push({ kind: 'internal error', text: `${what}: ${run.error.message}` });
    }
    return run;
  }

  /** Runs that are listed. */
  async listed(): Promise<string[]> {
    return existsSync(`${this.vm.repository}/repository.json`) ? await this.vm.listed() : [];
  }

  /** Runs `work`, and gives the runs that are there since; what they must hold is what the guest held at its freeze. */
  async newRuns(work: () => Promise<void>): Promise<string[]> {
    this.#cuts.length = 0;
    const before = this.vm.state();
    this.#isBusy = true;
    try {
      await work();
    } finally {
      this.#isBusy = false;
    }
    const cut = this.#cuts.at(-1) ?? before;
    const fresh = (await this.listed()).filter((run) => !this.seen.has(run));
    for (const run of fresh) {
      this.seen.add(run);
      for (const { kind } of this.manifest(run).disks) this.kinds[kind]++;
      this.vm.states.set(run, cut);
    }
    return fresh;
  }

  manifest(run: string): RunManifest {
    return JSON.parse(readFileSync(this.vm.stored(run, 'manifest.json'), 'utf8')) as RunManifest;
  }

  async flush(): Promise<void> {
    for (const { name } of this.disks) await this.vm.at.vm.flush(name);
  }

  /** What was acknowledged is in the images, also for a QEMU that is killed. */
  async stop(how: 'kill' | 'quit'): Promise<void> {
    await this.alone(async () => {
      if (!this.on) return;
      await this.flush();
      this.#files = await this.vm.at.vm.active();
      this.on = false;
      await (how === 'kill' ? this.vm.at.vm.kill() : this.vm.at.vm.quit());
      this.vm.at.vm.control.close();
    });
  }

  async start(): Promise<void> {
    if (this.on) return;
    await this.vm.at.start(this.#images(), ['-device', `virtio-scsi-pci,id=${CONTROLLER}`]);
    this.on = true;
  }

  /** The VM runs, and nobody takes its guest for held: the lease of a killed tool is over, and `recover` was there. */
  async runs(): Promise<void> {
    await this.start();
    const journal = this.vm.at.state('backup.json');
    const mayBeHeld = existsSync(journal) && readFileSync(journal, 'utf8').includes('"hold"');
    if (this.vm.at.agent.frozen || mayBeHeld) await this.call(['recover']);
  }

  /** The images that the VM writes to; of one that is shut off, those that it wrote to last. */
  async images(): Promise<readonly BareDisk[]> {
    if (this.on) this.#files = await this.vm.at.vm.active();
    return this.#images();
  }

  #images(): readonly BareDisk[] {
    return this.disks.map((disk) => {
      const file = this.#files.get(disk.name)?.file;
      if (file === undefined) throw new Error(`nobody knows the image of ${disk.name}`);
      // By its name: a job's filter may have been above it.
      return { ...disk, file, format: file.endsWith('.raw') ? 'raw' : 'qcow2' };
    });
  }

  /** The hot disk is plugged, or is not; its image stays what it is meanwhile. */
  async plug(isPlugged: boolean): Promise<void> {
    const { vm } = this.vm.at;
    if (isPlugged) await vm.plug({ ...HOT_DISK, file: await this.#hotImage() }, CONTROLLER);
    else await vm.unplug(HOT_DISK.name);
    this.disks = isPlugged ? [...this.disks, HOT_DISK] : this.disks.filter(({ name }) => name !== HOT_DISK.name);
    const filesystems = this.disks.map(({ name }) => filesystemReport(`/${name}`, name));
    this.vm.at.agent.report = freezeReport({ filesystems });
  }

  async #hotImage(): Promise<string> {
    const file = this.vm.at.folder.path(`images/${HOT_DISK.name}.qcow2`);
    if (existsSync(file)) return file;
    const { execa } = await import('execa');
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', file, `${HOT_DISK.megabytes ?? 0}M`]);
    return file;
  }
}
