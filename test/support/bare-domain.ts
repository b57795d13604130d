// A persistent libvirt domain without a guest (halting-domain.ts), with the disks and devices that a test gives it, and the
// host tool on it, run from source.
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { addHaltingFirmware, haltingDomainXml } from './halting-domain.js';
import type { LibvirtHost } from './libvirt.js';
import { runTool, type Run } from './run-tool.js';

export interface BareDomainParts {
  /** XML of its devices; its folder is given. */
  readonly devices: (dir: string) => string;
  /** XML within <os>, besides type and loader. */
  readonly flash?: (dir: string) => string;
}

export class BareDomain implements AsyncDisposable {
  readonly host: LibvirtHost;
  #name: string;
  readonly dir: string;

  private constructor(host: LibvirtHost, name: string, dir: string) {
    this.host = host;
    this.#name = name;
    this.dir = dir;
  }

  get name(): string {
    return this.#name;
  }

  /** It must be shut off. Its folder keeps its name. */
  async rename(name: string): Promise<void> {
    await this.virsh('domrename', name);
    this.#name = name;
  }

  /** A folder for its images, before it is there. */
  static async folder(host: LibvirtHost, name: string): Promise<string> {
    const dir = path.join(host.dir, name);
    await mkdir(dir);
    await addHaltingFirmware(dir);
    return dir;
  }

  /** Defines and starts it; its images must be in its folder. */
  static async start(host: LibvirtHost, name: string, { devices, flash }: BareDomainParts): Promise<BareDomain> {
    const dir = path.join(host.dir, name);
    const xml = haltingDomainXml({
      ...{ name, dir, devices: devices(dir), machine: 'q35', features: '<features><acpi/></features>' },
      ...(flash === undefined ? {} : { loader: 'pflash', flash: flash(dir) }),
    });
    await host.run(['define', await host.file(xml)]);
    const domain = new BareDomain(host, name, dir);
    try {
      await domain.virsh('start');
    } catch (cause) {
      await domain[Symbol.asyncDispose]();
      throw cause;
    }
    return domain;
  }

  /** Gives what it prints; throws if it fails. */
  async virsh(command: string, ...words: readonly string[]): Promise<string> {
    return await this.host.run([command, this.name, ...words]);
  }

  async definition(): Promise<string> {
    return await this.virsh('dumpxml', '--inactive');
  }

  /** The folder in which the tool keeps what it knows of it. */
  async state(...names: readonly string[]): Promise<string> {
    return path.join(this.dir, 'state', (await this.virsh('domuuid')).trim(), ...names);
  }

  /** Runs the tool in this process, through another URI if one is given. */
  async bridge(
    words: readonly string[],
    { uri = this.host.uri, signal }: { readonly uri?: string; readonly signal?: AbortSignal } = {},
  ): Promise<Run> {
    const vm = ['--vm', `libvirt:${this.name}`, '--connect', uri, '--state-dir', path.join(this.dir, 'state')];
    return await runTool([...words, ...vm, '--json'], signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.host.virsh(['destroy', this.name]);
    await this.host.virsh(['undefine', this.name, '--managed-save', '--nvram']);
  }
}
