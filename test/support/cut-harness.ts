// A bare QEMU, a fixture for its agent, and the command line between them: what the integration tests of the host tool
// share.
import { execa } from 'execa';
import { linkSync, mkdirSync, readFileSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Manifest } from '../../src/host/sets/manifest.js';
import { HOST_TOOL } from '../../vm-images/demo/bridge.js';
import { BareQemu, bareUuid, type BareDisk } from './bare-qemu.js';
import { FakeAgent } from './fake-agent.js';
import { filesystemReport, freezeReport } from './freeze-reports.js';
import { StepProxy, type Step } from './lossy-proxy.js';
import { runTool, type Run } from './run-tool.js';
import { scratch, type Scratch } from './scratch.js';

export type { Run } from './run-tool.js';

/** The disks of most VMs here: one of each format. */
export const rootAndData: readonly BareDisk[] = [
  { name: 'root0', format: 'raw' },
  { name: 'data0', format: 'qcow2' },
];

export class CutHarness implements AsyncDisposable {
  readonly folder: Scratch;
  vm: BareQemu;
  readonly agent: FakeAgent;

  private constructor(folder: Scratch, vm: BareQemu, agent: FakeAgent) {
    this.folder = folder;
    this.vm = vm;
    this.agent = agent;
  }

  /**
   * A VM with an agent that reports one filesystem on each disk. `extra`: more words for QEMU; what they name it makes in
   * the folder `images`.
   */
  static async start(
    disks: readonly BareDisk[],
    extra: (images: string) => Promise<readonly string[]> = () => Promise.resolve([]),
  ): Promise<CutHarness> {
    const folder = scratch();
    mkdirSync(folder.path('images'));
    const agent = await FakeAgent.listen(folder.path('qga.sock'));
    agent.report = freezeReport({
      filesystems: disks.map(({ name, serial = name }) => filesystemReport(`/${name}`, serial)),
    });
    const words = await extra(folder.path('images'));
    return new CutHarness(folder, await startWithPort(folder, disks, words), agent);
  }

  /** The folder in which the tool keeps what it knows of this VM. */
  state(...names: readonly string[]): string {
    return join(this.folder.path('state'), bareUuid(this.folder), ...names);
  }

  manifestFile(set = 's1'): string {
    return this.state(set, 'manifest.json');
  }

  manifest(set = 's1'): Manifest {
    return JSON.parse(readFileSync(this.manifestFile(set), 'utf8')) as Manifest;
  }

  /** Writes other members into the manifest of a set, as nobody but a test does. */
  changeManifest(members: Partial<Manifest>, set = 's1'): void {
    writeFileSync(this.manifestFile(set), JSON.stringify({ ...this.manifest(set), ...members }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.vm[Symbol.asyncDispose]();
    await this.agent[Symbol.asyncDispose]();
    this.folder[Symbol.dispose]();
  }

  /** Shuts the VM off and starts it with these disks. */
  async restart(disks: readonly BareDisk[], extra: readonly string[] = []): Promise<void> {
    await this.vm.quit();
    await this.start(disks, extra);
  }

  /** Starts the VM, which must be shut off, with these disks. */
  async start(disks: readonly BareDisk[], extra: readonly string[] = []): Promise<void> {
    this.vm = await startWithPort(this.folder, disks, extra);
  }

  /** The sockets of the harness, unless the words name others. */
  commandLine(words: readonly string[]): string[] {
    const given = { '--qmp': this.folder.path('qmp.sock'), '--qga': this.folder.path('qga.sock'), '--vm': 'bare' };
    const sockets = Object.entries(given).filter(([option]) => !words.includes(option));
    return [...words, ...sockets.flat(), '--state-dir', this.folder.path('state'), '--json'];
  }

  /** Runs the tool in this process. */
  async bridge(words: readonly string[], signal?: AbortSignal): Promise<Run> {
    return await runTool(this.commandLine(words), signal);
  }

  /** The same, for the VM that the words name. */
  async tool(...words: readonly string[]): Promise<Run> {
    return await runTool([...words, '--state-dir', this.folder.path('state'), '--json']);
  }

  /** The same, for a command that knows no VM's state. */
  async onRepository(words: readonly string[]): Promise<Run> {
    return await runTool([...words, '--json']);
  }

  /** The same as people use it, without JSON. */
  async printed(...words: readonly string[]): Promise<Run> {
    return await runTool(this.commandLine(words).filter((word) => word !== '--json'));
  }

  /** The text that people see of it. */
  async text(words: readonly string[]): Promise<string> {
    return (await this.printed(...words)).stdout;
  }

  async create(name: string, ...words: string[]): Promise<Run> {
    return await this.bridge(['snapshot', 'create', '--name', name, ...words]);
  }

  /** Runs the tool as users get it, as a process of its own, which can be killed. */
  spawn(words: readonly string[]) {
    return execa(process.execPath, [HOST_TOOL, ...this.commandLine(words)], { reject: false, stdin: 'ignore' });
  }

  /** Starts the tool behind a proxy, and kills it where the step is reached. Fails if it ends before. */
  async killToolAt(words: readonly string[], step: Step): Promise<void> {
    await using proxy = await StepProxy.listen(this.folder.path('proxy.sock'), this.vm.qmp, step);
    const child = this.spawn([...words, '--qmp', proxy.path]);
    await Promise.race([
      proxy.reached,
      child.then(({ stderr }) => Promise.reject(new Error(`the step was not reached: ${stderr}`))),
    ]);
    child.kill('SIGKILL');
    const { signal } = await child;
    if (signal !== 'SIGKILL') throw new Error(`expected the tool to be killed, found ${signal ?? 'an end of its own'}`);
  }

  /** A qemu-img that a killed tool had started ends by itself, and writes until then. */
  async leftQemuImgEnded(): Promise<void> {
    const isOurs = (pid: string): boolean => {
      try {
        const [program = '', ...words] = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
        return basename(program) === 'qemu-img' && words.some((word) => word.includes(this.folder.path('images')));
      } catch {
        return false; // it has just ended
      }
    };
    const left = (): string[] => readdirSync('/proc').filter((name) => /^\d+$/.test(name) && isOurs(name));
    for (let attempt = 0; left().length > 0; attempt++) {
      if (attempt === 100) throw new Error(`qemu-img has not ended: ${left().join(', ')}`);
      await sleep(50);
    }
  }

  images(): string[] {
    return readdirSync(this.folder.path('images')).sort();
  }

  readonly #overlays = new Map<string, string>();

  /** The overlay of a disk in a set: the file that is there, or was when last asked. */
  overlay(disk: string, set = 's1'): string {
    const isIts = (name: string): boolean => name.startsWith(`${disk}.${set}-`) && isOverlay(name, set);
    const name = this.images().find(isIts) ?? this.#overlays.get(`${disk} ${set}`) ?? `${disk}.${set}-none.qcow2`;
    this.#overlays.set(`${disk} ${set}`, name);
    return this.folder.path(`images/${name}`);
  }

  /** The jobs that QEMU knows. */
  async jobs(): Promise<{ readonly id: string; readonly status: string }[]> {
    return (await this.vm.control.execute('query-jobs')) as { id: string; status: string }[];
  }

  /** Names of our format nodes in QEMU. */
  async ourNodes(): Promise<string[]> {
    const nodes = (await this.vm.control.execute('query-named-block-nodes', { flat: true })) as {
      'node-name': string;
    }[];
    return nodes.map((node) => node['node-name']).filter((name) => name.startsWith('fsb-') && !name.endsWith('-file'));
  }

  /** Objects of ours in QEMU, as keys are. */
  async ourObjects(): Promise<string[]> {
    const all = (await this.vm.control.execute('qom-list', { path: '/objects' })) as { name: string }[];
    return all.map(({ name }) => name).filter((name) => name.startsWith('fsb-'));
  }

  /** The files the guest writes to. */
  async filesInUse(): Promise<string[]> {
    const devices = (await this.vm.control.execute('query-block')) as { inserted: { image: { filename: string } } }[];
    return devices.map(({ inserted }) => inserted.image.filename);
  }
}

/**
 * With an agent's port, as a VM has. No guest is there to open it: the fixture answers in its place, at the port's own socket,
 * which becomes another link to the fixture's. The fixture's own link stays when QEMU ends.
 */
async function startWithPort(folder: Scratch, disks: readonly BareDisk[], extra: readonly string[]): Promise<BareQemu> {
  const port = folder.path('port.sock');
  const chardev = `socket,id=agent,path=${port},server=on,wait=off`;
  const device = 'virtserialport,bus=serial0.0,chardev=agent,name=org.qemu.guest_agent.0';
  const channel = ['-chardev', chardev, '-device', 'virtio-serial-pci,id=serial0', '-device', device];
  const vm = await BareQemu.start(folder, disks, [...channel, ...extra]);
  linkSync(folder.path('qga.sock'), `${port}.new`);
  renameSync(`${port}.new`, port);
  return vm;
}

/** True if it is named as an overlay of the set: with the set's id in it. */
export function isOverlay(file: string, set: string): boolean {
  return /-[0-9a-f]{8}\.qcow2$/.test(file) && file.slice(0, -'-01234567.qcow2'.length).endsWith(`.${set}`);
}
