// One VM of a run: its QEMU, and the model of what its disks hold. While it runs, what its guest was told is known
// (`session`); what may be found on its disks when it is shut off is its `world`. A guest's write counts as acknowledged
// once it is flushed.
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { BareQemu, type BareDisk } from '../../support/bare-qemu.js';
import type { Scratch } from '../../support/scratch.js';
import { atPart } from '../at-part.js';
import { BLOCK_KILOBYTES, unsure, withDisk, written, type Contents, type World } from './contents.js';
import type { DrawnWrite } from './act.js';
import type { DrawnVm } from './draw.js';
import { layersBelow, readImage, type NamedImage } from './image-files.js';
import { MonitorTap } from './monitor-tap.js';
import { realOrSame } from './says.js';

export const DISK_MEGABYTES = 4;
export const BLOCKS = (DISK_MEGABYTES * 1024) / BLOCK_KILOBYTES;

export interface MachineDisk {
  readonly name: string;
  /** Resolved, and as the VM's command line spells it. */
  readonly original: string;
  readonly spelled: string;
  readonly format: 'raw' | 'qcow2';
}
export type Files = ReadonlyMap<string, NamedImage>;

export interface Session {
  qemu: BareQemu;
  /** None for a VM that names its images by relative names: what they mean is told by whose socket it is. */
  readonly tap: MonitorTap | undefined;
  /** What the guest must read; every instant of it since the start, for cuts. */
  contents: Contents;
  readonly history: Contents[];
  /** Disks that were not unplugged. */
  readonly plugged: Set<string>;
  /** It was started from images that do not hold the newest state: that state, and the files below it. */
  readonly astray: { readonly world: World; readonly below: ReadonlyMap<string, readonly string[]> } | undefined;
  /** Disks that were written to, and the file that each write went to. */
  readonly touched: Map<string, Set<string>>;
  migration: { readonly to: BareQemu | undefined; readonly folder: Scratch } | undefined;
}

export class Machine {
  readonly name: string;
  readonly folder: Scratch;
  readonly disks: readonly MachineDisk[];
  readonly drawn: DrawnVm;
  readonly cwd: string;
  world: World;
  session: Session | undefined;
  /** What it ran on last. */
  lastFiles: Files;
  /** Called with the resolved file that the guest is about to write to. */
  onWrite: (file: string) => void = () => undefined;
  #writes = 0;

  constructor(
    name: string,
    folder: Scratch,
    disks: readonly MachineDisk[],
    drawn: DrawnVm,
    cwd: string,
    contents: Contents,
  ) {
    this.name = name;
    this.folder = folder;
    this.disks = disks;
    this.drawn = drawn;
    this.cwd = cwd;
    this.world = { options: [contents], mixed: false };
    this.lastFiles = this.originals();
  }

  /** Under which the tool is told of it: one machine, two names. */
  get names(): readonly string[] {
    return [this.name, `${this.name}2`];
  }

  get monitor(): string {
    return this.folder.path('qmp.sock');
  }

  get #isTapped(): boolean {
    return this.drawn.spelling !== 'relative';
  }

  /** QEMU's own monitor, within its folder. */
  get realMonitor(): string {
    return this.#isTapped ? 'real.sock' : 'qmp.sock';
  }

  originals(): Files {
    return new Map(this.disks.map(({ name, spelled, format }) => [name, { file: spelled, format }]));
  }

  async read(files: Files): Promise<Contents> {
    const found = await Promise.all(
      [...files].map(async ([disk, { file, format }]) => {
        return [disk, await readImage({ file: this.resolved(file), format }, this.folder.dir)] as const;
      }),
    );
    return new Map(found);
  }

  resolved(file: string): string {
    return realOrSame(resolve(this.cwd, file));
  }

  /** Starts QEMU from these files, which hold `contents`. `newest`: where the newest state is, if it is not there. */
  async start(files: Files, contents: Contents, newest: Files | undefined): Promise<Session> {
    const disks = this.disks.map((disk): BareDisk => {
      const { file, format } = files.get(disk.name) ?? { file: disk.spelled, format: disk.format };
      return { name: disk.name, file, format: format === 'raw' ? 'raw' : 'qcow2', scsi: true };
    });
    const qemu = await this.#launch(this.folder, disks, []);
    try {
      if (this.drawn.paused) await qemu.control.execute('stop');
      const tap = this.#isTapped ? await MonitorTap.listen(this.monitor, qemu.qmp) : undefined;
      const below = new Map<string, readonly string[]>();
      for (const [disk, image] of newest ?? []) below.set(disk, await layersBelow(image));
      const session: Session = {
        qemu,
        tap,
        contents,
        history: [contents],
        plugged: new Set(disks.map(({ name }) => name)),
        astray: newest === undefined ? undefined : { world: this.world, below },
        touched: new Map(),
        migration: undefined,
      };
      this.session = session;
      if (newest === undefined) this.world = { options: [contents], mixed: false };
      this.lastFiles = files;
      return session;
    } catch (error) {
      await qemu[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #launch(folder: Scratch, disks: readonly BareDisk[], extra: readonly string[]): Promise<BareQemu> {
    const uuid = this.drawn.uuid
      ? `00000000-0000-4000-8000-00000000000${this.name}`
      : '00000000-0000-0000-0000-000000000000';
    return await BareQemu.start(folder, disks, ['-uuid', uuid, ...extra], { monitor: this.realMonitor, cwd: this.cwd });
  }

  /** A QEMU that waits for this one's state, with the disks as they are now. */
  async launchDestination(folder: Scratch): Promise<BareQemu> {
    const files = await this.activeFiles();
    const disks = [...files].map(([name, { file, format }]): BareDisk => ({
      name,
      file,
      format: format === 'raw' ? 'raw' : 'qcow2',
      scsi: true,
    }));
    return await this.#launch(folder, disks, ['-incoming', `unix:${folder.path('incoming.sock')}`]);
  }

  /** What the running QEMU's disks write to. */
  async activeFiles(): Promise<Files> {
    const active = await this.running().qemu.active();
    return new Map([...active].filter(([name]) => this.disks.some((disk) => disk.name === name)));
  }

  running(): Session {
    if (this.session === undefined) throw new Error(`VM ${this.name} is shut off`);
    return this.session;
  }

  /** A write of the guest, flushed. Gives false if QEMU ended before it was acknowledged. */
  async write({ disk: part, at: where, blocks }: DrawnWrite): Promise<boolean> {
    const session = this.running();
    const plugged = [...session.plugged];
    const disk = atPart(plugged, part);
    if (disk === undefined) return true;
    const at = Math.floor(where * (BLOCKS - blocks));
    const pattern = ((2 * this.#writes++ + (this.name === 'a' ? 0 : 1)) % 255) + 1;
    const file = this.resolved(await this.#activeFile(disk));
    this.onWrite(file);
    const old = session.contents;
    session.contents = new Map(old).set(disk, written(old.get(disk) ?? '', at, blocks, pattern));
    session.history.push(session.contents);
    this.#wrote(session, disk, file);
    const { qemu } = session;
    try {
      if (this.drawn.paused) await qemu.control.execute('cont');
      await qemu.write(disk, pattern, at * BLOCK_KILOBYTES, blocks * BLOCK_KILOBYTES);
      await qemu.flush(disk);
      if (this.drawn.paused) await qemu.control.execute('stop');
      return true;
    } catch (error) {
      // QEMU's end comes a moment after that of its monitor.
      for (let waited = 0; this.session === session && waited < 50; waited++) await sleep(20);
      if (this.session === session) throw error;
      this.world = withDisk(this.world, disk, (content) => unsure(content, at, blocks));
      return false;
    }
  }

  async #activeFile(disk: string): Promise<string> {
    return (await this.activeFiles().catch(() => undefined))?.get(disk)?.file ?? '';
  }

  #wrote({ astray, touched, contents }: Session, disk: string, file: string): void {
    touched.set(disk, (touched.get(disk) ?? new Set<string>()).add(file));
    if (astray === undefined) {
      this.world = { options: [contents], mixed: false };
      return;
    }
    let older = astray.world;
    // What lies above a file that was written to is nothing any more; what does not is still somebody's.
    for (const [name, files] of touched)
      if (astray.below.get(name)?.some((each) => files.has(each)) === true)
        older = withDisk(older, name, (content) => contents.get(name) ?? content);
    this.world = { options: [contents, ...older.options], mixed: true };
  }

  /** Everything acknowledged is in the images, for those who read them. */
  async flush(): Promise<void> {
    const { qemu, plugged } = this.running();
    for (const disk of plugged) await qemu.flush(disk);
  }

  async rememberFiles(): Promise<void> {
    const files = await this.activeFiles().catch(() => undefined);
    // An unplugged disk is plugged again when the VM is started anew.
    if (files !== undefined) this.lastFiles = new Map([...this.lastFiles, ...files]);
  }

  async end(how: 'kill' | 'quit'): Promise<void> {
    const { session } = this;
    if (session === undefined) return;
    await this.rememberFiles();
    this.session = undefined;
    if (how === 'kill') await session.qemu.kill();
    else await session.qemu.quit();
    session.qemu.control.close();
    await session.tap?.[Symbol.asyncDispose]();
    await session.migration?.to?.[Symbol.asyncDispose]();
    session.migration?.folder[Symbol.dispose]();
  }
}
