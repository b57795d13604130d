// A libvirt domain without a guest that is backed up, and a model of what its disks hold. Its agent is none, so that its
// backups are `crash`.
import { writeFile } from 'node:fs/promises';
import { once } from 'node:events';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import type { RunManifest } from '../../src/host/repository/run-manifest.js';
import { createBlank } from '../../src/testing/disks.js';
import { toolProcess } from './agent-guest.js';
import { BareDomain } from './bare-domain.js';
import { qemuOf, type LibvirtHost } from './libvirt.js';
import { restoredByHand, restoredByTool, type BackedUp, type State } from './restored-runs.js';
import { runTool, type Run } from './run-tool.js';
import { StoppingVirsh, type VirshStep } from './stopping-virsh.js';

export interface DomainDisk {
  /** `vda` */
  readonly target: string;
  readonly format: 'qcow2' | 'raw';
  readonly megabytes: number;
}

export interface DomainRun extends Run {
  /** Of the run; what failed has none. */
  readonly made: RunManifest;
}

export const twoDisks: readonly DomainDisk[] = [
  { target: 'vda', format: 'qcow2', megabytes: 8 },
  { target: 'vdb', format: 'qcow2', megabytes: 8 },
];

const ENDED_MS = 10_000;

export class BackedUpDomain implements BackedUp, AsyncDisposable {
  readonly domain: BareDomain;
  readonly repository: string;
  readonly #uuid: string;
  readonly #disks: readonly DomainDisk[];
  readonly #model: Map<string, Buffer>;
  /** What the disks held at the cut, by run. */
  readonly states = new Map<string, State>();

  private constructor(domain: BareDomain, repository: string, uuid: string, disks: readonly DomainDisk[]) {
    this.domain = domain;
    this.repository = repository;
    this.#uuid = uuid;
    this.#disks = disks;
    this.#model = new Map(disks.map(({ target, megabytes }) => [target, Buffer.alloc(megabytes * 1024 * 1024)]));
  }

  /** `repository`: in its folder unless it is given; `nvram`: its firmware has variables. */
  static async start(
    host: LibvirtHost,
    name: string,
    disks: readonly DomainDisk[],
    { repository, nvram = false }: { readonly repository?: string; readonly nvram?: boolean } = {},
  ): Promise<BackedUpDomain> {
    const dir = await BareDomain.folder(host, name);
    for (const { target, format, megabytes } of disks) {
      await createBlank(path.join(dir, `${target}.img`), megabytes, format);
    }
    // An empty drive has a target, too.
    const drive = "<disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>";
    const devices = disks.map((disk) => diskXml(dir, disk)).join('') + drive;
    if (nvram) await writeFile(path.join(dir, 'vars.fd'), Buffer.alloc(65_536, 'variables'));
    const flash = nvram ? { flash: () => `<nvram>${dir}/vars.fd</nvram>` } : {};
    const domain = await BareDomain.start(host, name, { devices: () => devices, ...flash });
    const uuid = (await domain.virsh('domuuid')).trim();
    return new BackedUpDomain(domain, repository ?? path.join(dir, 'repository'), uuid, disks);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of await this.checkpoints().catch(() => [])) {
      await this.domain.virsh('checkpoint-delete', name, '--metadata');
    }
    await this.domain[Symbol.asyncDispose]();
  }

  stored(...names: readonly string[]): string {
    return path.join(this.repository, this.#uuid, ...names);
  }

  path(name: string): string {
    return path.join(this.domain.dir, name);
  }

  image(target: string): string {
    return this.path(`${target}.img`);
  }

  /** libvirt's list. */
  async checkpoints(): Promise<string[]> {
    return (await this.domain.virsh('checkpoint-list', '--name')).split('\n').filter((name) => name !== '');
  }

  async hmp(line: string): Promise<string> {
    return await this.domain.virsh('qemu-monitor-command', '--hmp', line);
  }

  async qmp(execute: string, args?: object): Promise<unknown> {
    const text = await this.domain.virsh('qemu-monitor-command', JSON.stringify({ execute, arguments: args }));
    return (JSON.parse(text) as { return: unknown }).return;
  }

  /** As its guest would. */
  async write(target: string, pattern: number, offsetKilobytes: number, kilobytes: number): Promise<void> {
    await this.#io(target, `write -P ${pattern} ${offsetKilobytes}k ${kilobytes}k`);
    const bytes = this.#model.get(target);
    bytes?.fill(pattern, offsetKilobytes * 1024, (offsetKilobytes + kilobytes) * 1024);
  }

  /** Takes the bitmap from the disk's active layer, as nobody but a test does. */
  async remove(target: string, bitmap: string): Promise<void> {
    const disks = (await this.qmp('query-block')) as { qdev?: string; inserted?: { 'node-name': string } }[];
    const index = this.#disks.findIndex((disk) => disk.target === target);
    const node = disks.find(({ qdev }) => qdev?.includes(`/virtio-disk${index}/`))?.inserted?.['node-name'];
    await this.qmp('block-dirty-bitmap-remove', { node, name: bitmap });
  }

  /** QEMU stores its bitmaps when it ends. */
  async shutOff(): Promise<void> {
    await this.domain.virsh('destroy', '--graceful');
  }

  /** Ends its QEMU as a power cut would; its guest has flushed what it wrote. */
  async kill(): Promise<void> {
    for (const { target } of this.#disks) await this.#io(target, 'flush');
    process.kill(await qemuOf(this.domain.dir), 'SIGKILL');
    const end = performance.now() + ENDED_MS;
    while (!(await this.domain.virsh('domstate')).includes('shut off')) {
      if (performance.now() > end) throw new Error('libvirt does not see that QEMU was killed');
      await sleep(50);
    }
  }

  /** Begins a backup of somebody else, which lets others read the disk and so has no end. */
  async foreignBackup(target: string): Promise<void> {
    const socket = this.path('nbd.sock');
    const disk = `<disks><disk name='${target}' backup='yes' type='file'><scratch file='${this.path('scratch.img')}'/></disk></disks>`;
    const xml = `<domainbackup mode='pull'><server transport='unix' socket='${socket}'/>${disk}</domainbackup>`;
    await this.domain.virsh('backup-begin', await this.domain.host.file(xml));
  }

  /** A process that has the image open, to write to it. */
  async holder(target: string): Promise<AsyncDisposable & { readonly pid: number }> {
    const held = execa('sh', ['-c', 'exec 3<>"$1"; echo; exec sleep 60', 'sh', this.image(target)], { reject: false });
    await once(held.stdout, 'data');
    const end = async (): Promise<void> => {
      held.kill('SIGKILL');
      await held;
    };
    return { pid: held.pid ?? 0, [Symbol.asyncDispose]: end };
  }

  /** Gives the first two disks each other's images. It must be shut off. */
  async swap(): Promise<void> {
    const [one = '', other = ''] = this.#disks.map(({ target }) => target);
    const names = new Map([
      [this.image(one), this.image(other)],
      [this.image(other), this.image(one)],
    ]);
    await this.redefine((xml) => xml.replace(/(?<=<source file=')[^']*/g, (file) => names.get(file) ?? file));
    const state = this.state();
    this.became(new Map([...state, [one, state.get(other) ?? Buffer.of()], [other, state.get(one) ?? Buffer.of()]]));
  }

  async redefine(change: (xml: string) => string): Promise<void> {
    const xml = change(await this.domain.definition());
    await this.domain.host.run(['define', await this.domain.host.file(xml)]);
  }

  async #io(target: string, command: string): Promise<void> {
    const index = this.#disks.findIndex((disk) => disk.target === target);
    const said = await this.hmp(`qemu-io -d /machine/peripheral/virtio-disk${index}/virtio-backend "${command}"`);
    if (said.trim() !== '') throw new Error(`qemu-io: ${said}`);
  }

  /** What the disks hold now. */
  state(): State {
    return new Map([...this.#model].map(([disk, bytes]) => [disk, Buffer.from(bytes)]));
  }

  /** The disks hold this again. */
  became(state: State): void {
    for (const [disk, bytes] of state) this.#model.set(disk, Buffer.from(bytes));
  }

  words(...words: readonly string[]): string[] {
    const room = words.includes('--min-free') ? [] : ['--min-free', '1'];
    return ['backup', 'run', '--to', this.repository, '--require', 'crash', ...room, ...words];
  }

  /** Backs up; nothing is written meanwhile, unless the test does. */
  async run(...words: readonly string[]): Promise<DomainRun> {
    return await this.runUnless(new AbortController().signal, ...words);
  }

  /** The same, unless it is interrupted. */
  async runUnless(signal: AbortSignal, ...words: readonly string[]): Promise<DomainRun> {
    const state = this.state();
    const run = await this.domain.bridge(this.words(...words), { signal });
    const made = run.json as unknown as RunManifest;
    if (run.error.code === 'none' && typeof made.run === 'string') this.states.set(made.run, state);
    return { ...run, made };
  }

  /** The tool as it is built, killed at the step. */
  async killToolAt(step: VirshStep, ...words: readonly string[]): Promise<void> {
    const virsh = await StoppingVirsh.make(this.path(`bin-${crypto.randomUUID()}`), step);
    const { host, name, dir } = this.domain;
    const vm = ['--vm', `libvirt:${name}`, '--connect', host.uri, '--state-dir', path.join(dir, 'state')];
    const child = toolProcess([...this.words(...words), ...vm], { env: virsh.environment });
    await Promise.race([
      virsh.reached(),
      child.then(({ stderr }) => Promise.reject(new Error(`the step was not reached: ${stderr}`))),
    ]);
    child.kill('SIGKILL');
    const { signal } = await child;
    if (signal !== 'SIGKILL') throw new Error(`expected the tool to be killed, found ${signal ?? 'an end of its own'}`);
  }

  async backup(...words: readonly string[]): Promise<Run> {
    return await runTool(['backup', ...words, '--repo', this.repository, '--json']);
  }

  /** The runs that are listed. */
  async listed(): Promise<string[]> {
    const { json } = await this.backup('list');
    return (json as { vms: { runs: { run: string }[] }[] }).vms.flatMap(({ runs }) => runs.map(({ run }) => run));
  }

  /** How the run, restored by the tool, differs from the state of its cut; empty if it does not. */
  async differences(run: string): Promise<string[]> {
    const { refusal, different } = await this.restored(run);
    return refusal === undefined ? different : [refusal];
  }

  /** The same, with the tool's own word apart if it does not restore the run. */
  async restored(run: string): Promise<{ readonly refusal: string | undefined; readonly different: string[] }> {
    return await restoredByTool(this, run, this.#stateOf(run));
  }

  /** The same by the command line in the manifest. */
  async differencesByHand(run: string): Promise<string[]> {
    return await restoredByHand(this, run, this.#stateOf(run));
  }

  #stateOf(run: string): State {
    const state = this.states.get(run);
    if (state === undefined) throw new Error(`nobody kept the state of ${run}`);
    return state;
  }
}

function diskXml(dir: string, { target, format }: DomainDisk): string {
  const file = path.join(dir, `${target}.img`);
  return `<disk type='file' device='disk'><driver name='qemu' type='${format}' discard='unmap'/><source file='${file}'/><target dev='${target}' bus='virtio'/><serial>serial-${target}</serial></disk>`;
}
