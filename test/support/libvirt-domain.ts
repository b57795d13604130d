// A running guest of ours as a libvirt domain: what a test does to it. libvirt-state.ts starts it.
import { mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { AgentChannel } from '../../src/testing/agent-channel.js';
import { createBlank, createPayload } from '../../src/testing/disks.js';
import { execInGuest, startInGuest, type ExecOptions, type ExecResult } from '../../src/testing/guest-exec.js';
import type { Reverter } from '../../src/reverter.js';
import { qemuOf, type LibvirtHost, type VirshResult } from './libvirt.js';
import { diskXml, execPath, type DomainDisk } from './libvirt-domain-xml.js';

export const DISK_NAMES = ['root', 'data', 'ext', 'btrfs', 'lvm'] as const;

export class LibvirtDomain implements AsyncDisposable {
  readonly host: LibvirtHost;
  readonly name: string;
  /** Folder of its disks and sockets. */
  readonly dir: string;
  /** As it was started, hot-plugged ones last; after a snapshot libvirt's XML names others. */
  readonly disks: DomainDisk[];
  readonly #exec: AgentChannel;
  readonly #atEnd: Reverter;

  /** Use `startDomain` of libvirt-state.ts. */
  constructor(host: LibvirtHost, name: string, dir: string, disks: readonly DomainDisk[], atEnd: Reverter) {
    this.host = host;
    this.name = name;
    this.dir = dir;
    this.disks = [...disks];
    this.#exec = new AgentChannel(execPath(dir));
    this.#atEnd = atEnd;
  }

  /** `virsh COMMAND NAME WORDS`: the domain is the command's first argument. Never throws for the exit code. */
  async virsh(
    command: string,
    words: readonly string[] = [],
    options: { readonly timeoutMs?: number } = {},
  ): Promise<VirshResult> {
    return await this.host.virsh([command, this.name, ...words], options);
  }

  /** The same where only success makes sense; gives what it printed. */
  async run(command: string, ...words: readonly string[]): Promise<string> {
    return await this.host.run([command, this.name, ...words]);
  }

  /** dumpxml. */
  async xml(...words: readonly string[]): Promise<string> {
    return await this.run('dumpxml', ...words);
  }

  /** The active image of a disk (by name), as libvirt has it now. */
  async source(disk: string): Promise<string> {
    const { target } = this.disk(disk);
    const rows = (await this.run('domblklist')).split('\n').map((line) => line.trim().split(/\s+/));
    const file = rows.find(([first]) => first === target)?.[1];
    if (file === undefined) throw new Error(`domblklist has no ${target}`);
    return file;
  }

  /** The same of all disks, in their order. */
  async sources(): Promise<readonly string[]> {
    const rows = (await this.run('domblklist')).split('\n').slice(2);
    return rows.map((line) => line.trim().split(/\s+/)[1] ?? '');
  }

  disk(name: string): DomainDisk {
    const disk = this.disks.find((one) => one.name === name);
    if (disk === undefined) throw new Error(`no disk ${name}`);
    return disk;
  }

  /** Runs a command in the guest, past the agent under test; see ExecOptions. Works while frozen if it only reads. */
  async exec(command: string | readonly string[], options?: ExecOptions): Promise<ExecResult> {
    return await execInGuest(this.#exec, command, options);
  }

  /** Starts a command in the guest and leaves it running. */
  async start(command: string | readonly string[], { input }: { readonly input?: string } = {}) {
    return await startInGuest(this.#exec, command, input);
  }

  /** Waits until the guest can run commands. */
  async waitForGuest(timeoutMs = 120_000): Promise<void> {
    await this.#exec.waitForPing(timeoutMs);
  }

  /** Waits until libvirt reaches the agent on its channel. */
  async waitForAgent(timeoutMs = 60_000): Promise<void> {
    const end = performance.now() + timeoutMs;
    for (;;) {
      const ping = await this.virsh('qemu-agent-command', ['--timeout', '5', '{"execute":"guest-ping"}']);
      if (ping.exitCode === 0) return;
      if (performance.now() > end) throw new Error(`no agent on libvirt's channel: ${ping.stderr}`);
      await sleep(100);
    }
  }

  /** Our agent's configuration file, and the agent started anew with it. */
  async configureAgent(text: string): Promise<void> {
    await this.exec('cat >/etc/qemu/qemu-ga.conf && systemctl restart fsfreeze-agent', { input: text });
    await this.waitForAgent();
  }

  /** Hot-plugs a disk, a blank one if no file is given, and waits until the guest has it. */
  async attachDisk(
    name: string,
    {
      file,
      format = 'qcow2',
      readOnly = false,
      sizeMiB = 64,
    }: Partial<DomainDisk> & { readonly sizeMiB?: number } = {},
  ): Promise<DomainDisk> {
    const image = file ?? path.join(this.dir, `${name}.${format}`);
    if (file === undefined) await createBlank(image, sizeMiB, format);
    const used = this.disks.map(({ target }) => target);
    const target = ['vdf', 'vdg', 'vdh', 'vdi', 'vdj'].find((free) => !used.includes(free));
    if (target === undefined) throw new Error('no target is free');
    const disk: DomainDisk = { name, target, file: image, format, readOnly };
    await this.run('attach-device', await this.host.file(diskXml(disk)), '--live');
    this.disks.push(disk);
    const link = `/dev/disk/by-id/virtio-${name}`;
    await this.exec(`n=0; until [ -e ${link} ]; do n=$((n+1)); [ $n -lt 400 ] || exit 1; sleep 0.05; done`);
    return disk;
  }

  async detachDisk(name: string): Promise<void> {
    const disk = this.disk(name);
    await this.run('detach-disk', disk.target, '--live');
    await this.exec(`until [ ! -e /dev/disk/by-id/virtio-${name} ]; do sleep 0.05; done`);
    this.disks.splice(this.disks.indexOf(disk), 1);
  }

  /** Copies host files into a folder of the guest, by way of a read-only disk. */
  async copyIn(sources: readonly string[], guestDirectory: string): Promise<void> {
    const file = path.join(this.dir, 'payload.tar');
    await createPayload(file, sources);
    await this.attachDisk('payload', { file, format: 'raw', readOnly: true });
    await this.exec(['/bin/mkdir', '-p', guestDirectory]);
    const tar = ['/bin/tar', '-xf', '/dev/disk/by-id/virtio-payload', '-C', guestDirectory];
    await this.exec(tar, { timeoutMs: 120_000 });
    await this.detachDisk('payload');
    await rm(file);
  }

  async pid(): Promise<number> {
    return await qemuOf(this.dir);
  }

  /** The port of the loopback that leads to the guest's PostgreSQL: user demo, database demo, no password. */
  async postgresPort(): Promise<number> {
    const text = await this.run('qemu-monitor-command', '--hmp', 'info usernet');
    const port = /TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s/.exec(text)?.[1];
    if (port === undefined) throw new Error(`no forwarded port in: ${text}`);
    return Number(port);
  }

  /** A folder beside the disks. */
  async folder(name: string): Promise<string> {
    const folder = path.join(this.dir, name);
    await mkdir(folder, { recursive: true });
    return folder;
  }

  /** Ends it as a power cut would and takes it out of libvirtd. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#exec.close();
    await this.virsh('destroy');
    await this.virsh('undefine', ['--snapshots-metadata', '--checkpoints-metadata', '--managed-save', '--nvram']);
    await this.#atEnd.revert();
    await rm(this.dir, { recursive: true, force: true });
  }
}
