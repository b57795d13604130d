// A libvirt domain without a guest that is backed up, and a model of what its disks hold. Its agent is none, so that its
// backups are `crash`.
import path from 'node:path';
import type { RunManifest } from '../../src/host/repository/run-manifest.js';
import { createBlank } from '../../src/testing/disks.js';
import { toolProcess } from './agent-guest.js';
import { BareDomain } from './bare-domain.js';
import type { LibvirtHost } from './libvirt.js';
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

  /** `repository`: in its folder unless it is given. */
  static async start(
    host: LibvirtHost,
    name: string,
    disks: readonly DomainDisk[],
    { repository, more = '' }: { readonly repository?: string; readonly more?: string } = {},
  ): Promise<BackedUpDomain> {
    const dir = await BareDomain.folder(host, name);
    for (const { target, format, megabytes } of disks) {
      await createBlank(path.join(dir, `${target}.img`), megabytes, format);
    }
    const devices = disks.map((disk) => diskXml(dir, disk)).join('') + more;
    const domain = await BareDomain.start(host, name, { devices: () => devices });
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
    const index = this.#disks.findIndex((disk) => disk.target === target);
    const device = `/machine/peripheral/virtio-disk${index}/virtio-backend`;
    const said = await this.hmp(`qemu-io -d ${device} "write -P ${pattern} ${offsetKilobytes}k ${kilobytes}k"`);
    if (said.trim() !== '') throw new Error(`qemu-io: ${said}`);
    const bytes = this.#model.get(target);
    bytes?.fill(pattern, offsetKilobytes * 1024, (offsetKilobytes + kilobytes) * 1024);
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
    const child = toolProcess([...this.words(...words), ...vm], virsh.environment);
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

  /** How the run, restored by the tool and by hand, differs from the state of its cut; empty if it does not. */
  async differences(run: string): Promise<string[]> {
    const state = this.states.get(run);
    if (state === undefined) throw new Error(`nobody kept the state of ${run}`);
    const { refusal, different } = await restoredByTool(this, run, state);
    if (refusal !== undefined) return [refusal];
    return [...different, ...(await restoredByHand(this, run, state))];
  }
}

function diskXml(dir: string, { target, format }: DomainDisk): string {
  const file = path.join(dir, `${target}.img`);
  return `<disk type='file' device='disk'><driver name='qemu' type='${format}' discard='unmap'/><source file='${file}'/><target dev='${target}' bus='virtio'/><serial>serial-${target}</serial></disk>`;
}
