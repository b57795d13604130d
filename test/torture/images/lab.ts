// The place of one run: two VMs whose images and overlays lie in folders they may share, one state folder of the tool, and
// the images that strangers put on top of theirs.
import { execa } from 'execa';
import { mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { BareQemu } from '../../support/bare-qemu.js';
import { scratch, type Scratch } from '../../support/scratch.js';
import { emptyContent, type Content, type Contents } from './contents.js';
import type { Strike } from './act.js';
import type { DrawnVm, Layout } from './draw.js';
import { layersBelow, readImage, type NamedImage } from './image-files.js';
import { BLOCKS, DISK_MEGABYTES, Machine, type Files, type MachineDisk } from './machine.js';
import { newestFile, realOrSame, showSets, type Shown, type ShownSet } from './says.js';
import { callTool, type Call } from './tool.js';

/** An image that somebody who is none of our VMs put on top of one of theirs. */
export interface Clone extends NamedImage {
  readonly content: Content;
  readonly below: readonly string[];
  /** Files that a VM was writing to already, or was started from since: people had it so, not the tool. */
  readonly restless: Set<string>;
  /** Why it need not hold its content any more. */
  dead: string | undefined;
  readonly qemu: BareQemu | undefined;
}

/** A cut that was taken, or may have been: `states` are the instants that it may be. */
export interface Cut {
  readonly machine: string;
  readonly set: string;
  /** Undefined if the tool did not come to tell. */
  readonly id: string | undefined;
  readonly states: readonly Contents[];
}

export class Lab implements AsyncDisposable {
  readonly folder: Scratch;
  readonly layout: Layout;
  readonly machines: readonly Machine[];
  /** What sets may hold. */
  readonly cuts: Cut[] = [];
  readonly clones: Clone[] = [];
  readonly copies: { readonly dir: string; readonly set: string; readonly states: readonly Contents[] }[] = [];
  /** Files that are not the tool's, spelled as they may be listed. */
  readonly own = new Set<string>();
  readonly calls: Call[] = [];
  #scratches = 0;

  private constructor(folder: Scratch, layout: Layout, machines: readonly Machine[]) {
    this.folder = folder;
    this.layout = layout;
    this.machines = machines;
    for (const machine of machines) {
      machine.onWrite = (file) => {
        for (const clone of this.clones)
          if (clone.below.includes(file) && clone.restless.has(file))
            clone.dead ??= `VM ${machine.name} wrote to ${file} below it`;
      };
    }
  }

  static async build(layout: Layout): Promise<Lab> {
    const folder = scratch();
    const own: string[] = [];
    const golden = folder.path('golden.raw');
    await execa('qemu-img', ['create', '-q', '-f', 'raw', golden, `${DISK_MEGABYTES}M`]);
    await execa('qemu-io', ['-f', 'raw', '-c', 'write -q -P 0xee 1M 128k', golden]);
    const machines: Machine[] = [];
    for (const [index, drawn] of layout.vms.entries()) {
      const name = 'ab'[index] ?? '';
      const images = folder.path(layout.sharedImages ? 'images' : `images-${name}`);
      mkdirSync(images, { recursive: true });
      const disks: MachineDisk[] = [];
      const contents = new Map<string, Content>();
      for (const [number, { format, golden: isClone }] of drawn.disks.entries()) {
        const disk = `d${number}`;
        const original = join(images, `${layout.sharedImages ? `${name}-` : ''}${disk}.${format}`);
        const below = isClone ? ['-b', golden, '-F', 'raw'] : [];
        await execa('qemu-img', ['create', '-q', '-f', format, ...below, original, `${DISK_MEGABYTES}M`]);
        const spelled = spell(folder, drawn, name, original);
        own.push(original, spelled);
        disks.push({ name: disk, original, spelled, format });
        contents.set(
          disk,
          isClone ? await readImage({ file: golden, format: 'raw' }, folder.dir) : emptyContent(BLOCKS),
        );
      }
      machines.push(new Machine(name, inside(folder, `vm-${name}`), disks, drawn, images, contents));
    }
    const lab = new Lab(folder, layout, machines);
    for (const file of own) lab.own.add(file);
    const vms = machines.map(({ name, monitor }) => [name, { qmp: monitor }] as const);
    writeFileSync(folder.path('vms.json'), JSON.stringify({ vms: Object.fromEntries(vms) }));
    return lab;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const machine of this.machines) await machine.end('kill');
    for (const { qemu } of this.clones) await qemu?.[Symbol.asyncDispose]();
    this.folder[Symbol.dispose]();
  }

  /** A folder for one QEMU more. */
  another(): Scratch {
    return inside(this.folder, `more-${this.#scratches++}`);
  }

  /** What the set may hold. One whose maker was killed is known by its name alone, whatever its VM was called. */
  statesOf(machine: Machine, { set, id }: ShownSet): readonly Contents[] {
    const own = this.cuts.filter((cut) => cut.machine === machine.name && cut.set === set);
    const same = own.filter((cut) => cut.id === id);
    return (same.length > 0 ? same : own.filter((cut) => cut.id === undefined)).flatMap(({ states }) => states);
  }

  /** Where all overlays go, if that is one folder. */
  overlays(): string {
    const dir = this.folder.path('overlays');
    mkdirSync(dir, { recursive: true });
    return dir;
  }

  /** A folder that is to be made by a copy. */
  copyFolder(): string {
    const dir = this.folder.path('copies');
    mkdirSync(dir, { recursive: true });
    return join(dir, `copy-${this.#scratches++}`);
  }

  /** The words that say which VM is meant, without its name. */
  options(machine: Machine | undefined): string[] {
    const vm = machine === undefined ? [] : ['--qmp', machine.monitor];
    return [...vm, '--state-dir', this.folder.path('state'), '--config', this.folder.path('vms.json'), '--json'];
  }

  /** A command that changes something. `machine`: whose QEMU a strike hits. */
  async call(machine: Machine, words: readonly string[], strike: Strike | undefined): Promise<Call> {
    const killQemu = async (): Promise<void> => {
      await machine.end('kill');
    };
    const call = await callTool(words, {
      strike,
      tap: machine.session?.tap,
      disks: machine.disks.length,
      killQemu,
    });
    this.calls.push(call);
    // What the tool sent before it was killed has been carried out.
    if (call.struck) await machine.session?.qemu.control.execute('query-status').catch(() => undefined);
    if (machine.session !== undefined) await machine.rememberFiles();
    return call;
  }

  async recover(machine: Machine, strike: Strike | undefined): Promise<Call> {
    return await this.call(machine, ['recover', ...this.options(undefined)], strike);
  }

  async show(machine: Machine): Promise<Shown> {
    const shown = await showSets(machine.names, this.options(machine));
    this.calls.push(...shown.failed);
    return shown;
  }

  /** The files that hold the VM's newest state, as the tool tells whoever recovers first. */
  async toldFiles(machine: Machine): Promise<Files> {
    if (this.cuts.length > 0) await this.recover(machine, undefined);
    return newestFiles(machine, (await this.show(machine)).sets);
  }

  /** The VM is about to be started from these: a stranger's QEMU above them ends, and the images above are on their own. */
  async makeWay(machine: Machine, files: Files): Promise<void> {
    const wanted = [...files.values()].map(({ file }) => machine.resolved(file));
    for (const { below, qemu, restless } of this.clones) {
      for (const file of wanted) restless.add(file);
      if (wanted.some((file) => below.includes(file))) await qemu?.[Symbol.asyncDispose]();
    }
  }

  async addClone(on: NamedImage, runs: boolean): Promise<void> {
    const file = join(dirname(on.file), `clone-${this.clones.length}.qcow2`);
    const size = `${DISK_MEGABYTES}M`;
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-u', '-b', on.file, '-F', on.format, file, size]);
    this.own.add(file);
    const image = { file, format: 'qcow2' } as const;
    const content = await readImage(image, this.folder.dir);
    const below = await layersBelow(image);
    const qemu = runs ? await BareQemu.start(this.another(), [{ name: 'd0', ...image }]) : undefined;
    const restless = new Set<string>();
    for (const machine of this.machines)
      if (machine.session !== undefined)
        for (const active of (await machine.activeFiles()).values()) restless.add(machine.resolved(active.file));
    this.clones.push({ ...image, content, below, restless, dead: undefined, qemu });
  }

  /** Every file of the folders that the tool puts images or records into. */
  files(): { readonly images: readonly string[]; readonly state: readonly string[] } {
    const all = (dir: string): string[] => {
      try {
        const entries = readdirSync(dir, { withFileTypes: true, recursive: true });
        return entries.filter((entry) => !entry.isDirectory()).map(({ parentPath, name }) => join(parentPath, name));
      } catch {
        return []; // not made yet
      }
    };
    const folders = readdirSync(this.folder.dir).filter((name) => /^(images|links|overlays|copies)/.test(name));
    return { images: folders.flatMap((name) => all(this.folder.path(name))), state: all(this.folder.path('state')) };
  }
}

export function newestFiles(machine: Machine, sets: readonly ShownSet[]): Files {
  return new Map(
    machine.disks.map(({ name, original, spelled, format }) => {
      const newest = newestFile(original, sets);
      const isOriginal = newest.file === realOrSame(original);
      return [name, { file: isOriginal ? spelled : newest.file, format: newest.format ?? format }];
    }),
  );
}

function inside(folder: Scratch, name: string): Scratch {
  const dir = folder.path(name);
  mkdirSync(dir, { recursive: true });
  return { dir, path: (file) => join(dir, file), [Symbol.dispose]: () => undefined };
}

function spell(folder: Scratch, { spelling }: DrawnVm, name: string, original: string): string {
  switch (spelling) {
    case 'plain':
      return original;
    case 'relative':
      return basename(original);
    case 'linked folder': {
      const link = folder.path(`links-${name}`);
      try {
        symlinkSync(dirname(original), link);
      } catch {
        // the VM's first disk made it
      }
      return join(link, basename(original));
    }
    case 'linked file': {
      const dir = folder.path(`links-${name}`);
      mkdirSync(dir, { recursive: true });
      const link = join(dir, basename(original));
      symlinkSync(original, link);
      return link;
    }
  }
}
