// A persistent libvirt domain without a guest (its processor halts at once), with the disks and devices that a test gives
// it, and the host tool on it, run from source.
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { runBridge } from '../../src/cli/bridge/program.js';
import type { Manifest } from '../../src/host/sets/manifest.js';
import { readResult } from './bridge-result.js';
import type { Run } from './cut-harness.js';
import type { LibvirtHost } from './libvirt.js';
import { haltingFirmware } from './odd-domain.js';

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
    await writeFile(path.join(dir, 'halt.bin'), haltingFirmware());
    return dir;
  }

  /** Defines and starts it; its images must be in its folder. */
  static async start(host: LibvirtHost, name: string, { devices, flash }: BareDomainParts): Promise<BareDomain> {
    const dir = path.join(host.dir, name);
    const loader = flash === undefined ? 'rom' : 'pflash';
    const xml = `<domain type='qemu'>
  <name>${name}</name><memory unit='MiB'>16</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><loader readonly='yes' type='${loader}'>${dir}/halt.bin</loader>${flash?.(dir) ?? ''}</os>
  <features><acpi/></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    ${devices(dir)}
    <controller type='usb' model='none'/><memballoon model='none'/>
  </devices>
  <seclabel type='none'/>
</domain>`;
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

  /** Where the tool keeps what it knows of it. */
  async state(...names: readonly string[]): Promise<string> {
    return path.join(this.dir, 'state', (await this.virsh('domuuid')).trim(), ...names);
  }

  /** Runs the tool in this process, through another URI if one is given. */
  async bridge(words: readonly string[], uri = this.host.uri): Promise<Run> {
    const out: string[] = [];
    const err: string[] = [];
    const streams = { stdout: (text: string) => void out.push(text), stderr: (text: string) => void err.push(text) };
    const vm = ['--vm', `libvirt:${this.name}`, '--connect', uri, '--state-dir', path.join(this.dir, 'state')];
    const code = await runBridge([...words, ...vm, '--json'], streams, new AbortController().signal);
    const stdout = out.join('');
    const json = readResult(words, stdout) ?? {};
    const error = (json['error'] ?? { code: 'none', message: 'none' }) as Run['error'];
    return { code, stdout, stderr: err.join(''), json, manifest: json as unknown as Manifest, error };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.host.virsh(['destroy', this.name]);
    await this.host.virsh(['undefine', this.name, '--managed-save', '--nvram']);
  }
}
