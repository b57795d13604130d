// A QEMU with disks and no operating system: its firmware is one HLT, so the VM is `running` and costs nothing. Writes
// of the "guest" go through the device's own backend (`qemu-io -d`), and are counted as the guest's.
import { execa } from 'execa';
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { imageFile } from '../../src/qmp/block-graph.js';
import { QmpClient } from '../../src/qmp/client.js';
import { haltingFirmware } from './halting-domain.js';
import type { Scratch } from './scratch.js';
import { writingFirmware } from './writing-firmware.js';

export interface BareDisk {
  readonly name: string;
  readonly format: 'raw' | 'qcow2';
  readonly megabytes?: number;
  readonly serial?: string;
  /** Made before; it may be an overlay. A relative name is one in the folder of the VM. */
  readonly file?: string;
  /** Behind a PCIe root port. */
  readonly behindPort?: boolean;
  readonly throttled?: boolean;
  /** A qcow2 that keeps its data in a raw file beside it (`dataFile`). */
  readonly dataApart?: boolean;
  /** A raw one without a format node. */
  readonly unlayered?: boolean;
  /** What the guest discards is discarded in the image. */
  readonly discard?: boolean;
  /** Behind a SCSI controller of its own: it can be unplugged without the guest's help. */
  readonly scsi?: boolean;
  /** The first IDE disk: the firmware writes to it at each reset (writing-firmware.ts), and a failure pauses the VM. */
  readonly ide?: boolean;
}

/** The layer that a disk writes to. */
export interface ActiveImage {
  readonly node: string;
  readonly file: string;
  readonly format: string;
}

export interface QemuPlace {
  /** The name of the monitor under test within the folder. */
  readonly monitor?: string;
  /** The folder in which QEMU is started: relative names of images begin there. */
  readonly cwd?: string;
}

export class BareQemu implements AsyncDisposable {
  readonly qmp: string;
  readonly pid: number;
  readonly #process: Child;
  /** A monitor of the test's own, beside the one under test. */
  readonly control: QmpClient;
  /** Disks whose device is their own backend. */
  readonly #plain: Set<string>;

  private constructor(qmp: string, child: Child, pid: number, control: QmpClient, disks: readonly BareDisk[]) {
    this.#plain = new Set(disks.filter(({ scsi, ide }) => scsi === true || ide === true).map(({ name }) => name));
    this.qmp = qmp;
    this.#process = child;
    this.pid = pid;
    this.control = control;
  }

  static async start(
    folder: Scratch,
    disks: readonly BareDisk[],
    extra: readonly string[] = [],
    { monitor = 'qmp.sock', cwd = folder.dir }: QemuPlace = {},
  ): Promise<BareQemu> {
    const firmware = disks.some(({ ide }) => ide === true) ? writingFirmware() : haltingFirmware();
    writeFileSync(folder.path('halt.bin'), firmware);
    mkdirSync(folder.path('images'), { recursive: true });
    const qmp = folder.path(monitor);
    const args = [
      '-M',
      'q35,accel=tcg',
      '-m',
      '16',
      '-nodefaults',
      '-display',
      'none',
      '-bios',
      folder.path('halt.bin'),
      '-uuid',
      bareUuid(folder),
    ];
    for (const socket of [qmp, folder.path('control.sock')]) args.push('-qmp', `unix:${socket},server=on,wait=off`);
    for (const [index, disk] of disks.entries()) args.push(...(await diskArguments(folder, disk, index)));
    const child = startQemu([...args, ...extra], cwd);
    const pid = child.pid;
    if (pid === undefined) throw new Error('qemu-system-x86_64 did not start');
    for (let attempt = 0; ; attempt++) {
      try {
        const control = await QmpClient.connect(folder.path('control.sock'));
        return new BareQemu(qmp, child, pid, control, disks);
      } catch (error) {
        if (attempt === 100 || child.exitCode !== null) {
          child.kill('SIGKILL');
          throw new Error(`QEMU does not come up: ${(await child).stderr}`, { cause: error });
        }
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }

  /** A write of the guest: `pattern` over `kilobytes` at `offsetKilobytes`. */
  async write(disk: string, pattern: number, offsetKilobytes: number, kilobytes: number): Promise<void> {
    const command = `aio_write -P ${pattern} ${offsetKilobytes}k ${kilobytes}k`;
    await this.#io(disk, command);
    await this.#io(disk, 'aio_flush');
  }

  /** A discard of the guest. */
  async discard(disk: string, offsetKilobytes: number, kilobytes: number): Promise<void> {
    await this.#io(disk, `discard ${offsetKilobytes}k ${kilobytes}k`);
  }

  /** A write of zeroes of the guest, which may free what was there. */
  async zero(disk: string, offsetKilobytes: number, kilobytes: number): Promise<void> {
    await this.#io(disk, `aio_write -z -u ${offsetKilobytes}k ${kilobytes}k`);
    await this.#io(disk, 'aio_flush');
  }

  /** What each disk writes to now, by the name of the disk. */
  async active(): Promise<ReadonlyMap<string, ActiveImage>> {
    const devices = (await this.control.execute('query-block')) as readonly {
      readonly qdev?: string;
      readonly inserted?: { readonly 'node-name': string; readonly drv: string; readonly image: { filename: string } };
    }[];
    const images = new Map<string, ActiveImage>();
    for (const { qdev = '', inserted } of devices) {
      const disk = /^\/machine\/peripheral\/([^/]+)/.exec(qdev)?.[1] ?? qdev;
      if (inserted === undefined) continue;
      const { 'node-name': node, drv, image } = inserted;
      images.set(disk, { node, file: imageFile(image.filename), format: drv });
    }
    return images;
  }

  /** Plugs a disk at the SCSI controller of that id, which was given to `start` in its extra words. */
  async plug({ name, file = '', format, discard = false }: BareDisk, controller: string): Promise<void> {
    const unmap = discard ? { discard: 'unmap' } : {};
    const node = `node-${name}`;
    const protocol = { driver: 'file', filename: file, ...unmap };
    await this.control.execute('blockdev-add', { driver: format, 'node-name': node, file: protocol, ...unmap });
    const device = { driver: 'scsi-hd', id: name, bus: `${controller}.0`, drive: node, serial: name };
    await this.control.execute('device_add', device);
    this.#plain.add(name);
  }

  /** Unplugs a disk that is behind a SCSI controller, and closes its image. */
  async unplug(disk: string): Promise<void> {
    const node = (await this.active()).get(disk)?.node;
    await this.flush(disk);
    await this.control.execute('device_del', { id: disk });
    for (let attempt = 0; ; attempt++) {
      try {
        await this.control.execute('blockdev-del', { 'node-name': node });
        return;
      } catch (error) {
        if (attempt === 40) throw error;
        await new Promise((resolve) => setTimeout(resolve, 25));
      }
    }
  }

  /** Brings all that was written to the disk, metadata of the images included. */
  async flush(disk: string): Promise<void> {
    await this.#io(disk, 'flush');
  }

  async #io(disk: string, command: string): Promise<void> {
    const device = `/machine/peripheral/${disk}${this.#plain.has(disk) ? '' : '/virtio-backend'}`;
    const line = `qemu-io -d ${device} "${command}"`;
    const output = await this.control.execute('human-monitor-command', { 'command-line': line });
    if (output !== '') throw new Error(`qemu-io: ${String(output)}`);
  }

  /** The VM is on its way to another machine when it returns, and stays so. */
  async beginMigration(): Promise<void> {
    await this.control.execute('migrate-set-parameters', { 'max-bandwidth': 1024 });
    await this.control.execute('migrate', { uri: 'exec:cat >/dev/null' });
    await this.#untilMigration('active');
  }

  async cancelMigration(): Promise<void> {
    await this.control.execute('migrate_cancel');
    await this.#untilMigration('cancelled');
  }

  async #untilMigration(status: string): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      const found = (await this.control.execute('query-migrate')) as { status?: string };
      if (found.status === status) return;
      if (attempt === 100) throw new Error(`migration: expected ${status}, found ${found.status ?? 'none'}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** From now on no file of QEMU's can be written beyond so many bytes. */
  async limitFiles(bytes: number | 'unlimited'): Promise<void> {
    await execa('prlimit', ['--pid', String(this.pid), `--fsize=${bytes}:unlimited`]);
  }

  /** `running`, or why it does not. */
  async status(): Promise<string> {
    return ((await this.control.execute('query-status')) as { status: string }).status;
  }

  /** Ends QEMU as a power cut would. */
  async kill(): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#process;
  }

  /** Shuts QEMU down: its images are clean. */
  async quit(): Promise<void> {
    await this.control.execute('quit');
    await this.#process;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.control.close();
    await this.kill();
  }
}

/** The UUID of the VM of this folder, whenever it is started; `-uuid` in the extra arguments gives it another. */
export function bareUuid({ dir }: Scratch): string {
  const hash = createHash('sha256').update(dir).digest('hex');
  return hash.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12}).*$/, '$1-$2-$3-$4-$5');
}

// A file that reaches its limit (`limitFiles`) is an error of the write, as on a full filesystem, and no signal that ends it.
const startQemu = (args: readonly string[], cwd: string) =>
  execa('sh', ['-c', 'trap "" XFSZ; exec qemu-system-x86_64 "$@"', 'sh', ...args], {
    reject: false,
    stdin: 'ignore',
    cwd,
  });
type Child = ReturnType<typeof startQemu>;

export function imagePath(folder: Scratch, disk: BareDisk): string {
  return disk.file ?? folder.path(`images/${disk.name}.${disk.format}`);
}

/** Where the data of such an image lies. */
export function dataFile(image: string): string {
  return `${image}.data`;
}

async function diskArguments(folder: Scratch, disk: BareDisk, index: number): Promise<string[]> {
  const {
    name,
    format,
    megabytes = 16,
    serial = name,
    behindPort = false,
    throttled = false,
    unlayered = false,
    dataApart = false,
    scsi = false,
    discard = false,
    ide = false,
  } = disk;
  const file = imagePath(folder, disk);
  const apart = dataApart ? ['-o', `data_file=${dataFile(file)},data_file_raw=on`] : [];
  if (disk.file === undefined) await execa('qemu-img', ['create', '-q', '-f', format, ...apart, file, `${megabytes}M`]);
  const node = unlayered
    ? `driver=file,node-name=node-${name},filename=${file}`
    : `driver=${format},node-name=node-${name},file.driver=file,file.filename=${file}${discard ? ',discard=unmap,file.discard=unmap' : ''}`;
  const args = ['-blockdev', node];
  if (throttled) {
    args.push('-object', `throttle-group,id=group-${name},x-iops-total=100000`);
    args.push('-blockdev', `driver=throttle,node-name=top-${name},throttle-group=group-${name},file=node-${name}`);
  }
  if (behindPort) args.push('-device', `pcie-root-port,id=port-${name},chassis=${index + 1}`);
  const bus = behindPort ? `,bus=port-${name}` : '';
  const drive = throttled ? `top-${name}` : `node-${name}`;
  const serialPart = serial === '' ? '' : `,serial=${serial}`;
  if (scsi) {
    args.push('-device', `virtio-scsi-pci,id=scsi-${name}`);
    args.push('-device', `scsi-hd,bus=scsi-${name}.0,id=${name},drive=${drive}${serialPart}`);
  } else if (ide) {
    args.push('-device', `isa-ide,id=ide-${name},iobase=0x1f0,iobase2=0x3f6,irq=14`);
    args.push('-device', `ide-hd,bus=ide-${name}.0,id=${name},drive=${drive},werror=stop${serialPart}`);
  } else args.push('-device', `virtio-blk-pci,id=${name},drive=${drive}${serialPart}${bus}`);
  return args;
}

/** True if the image holds the pattern there; the image must not be in use. */
export async function holdsPattern(
  file: string,
  format: string,
  pattern: number,
  offsetKilobytes: number,
  kilobytes: number,
): Promise<boolean> {
  return await holdsPatterns(file, format, [{ pattern, offsetKilobytes, kilobytes }]);
}

/** All of them, by one process. */
export async function holdsPatterns(
  file: string,
  format: string,
  patterns: readonly { readonly pattern: number; readonly offsetKilobytes: number; readonly kilobytes: number }[],
): Promise<boolean> {
  const commands = patterns.flatMap(({ pattern, offsetKilobytes, kilobytes }) => [
    '-c',
    `read -P ${pattern} ${offsetKilobytes}k ${kilobytes}k`,
  ]);
  const { stdout, stderr, exitCode } = await execa('qemu-io', ['-r', '-U', '-f', format, ...commands, file], {
    reject: false,
  });
  const differs = stdout.includes('Pattern verification failed');
  if (exitCode !== 0 && !differs) throw new Error(`qemu-io: ${stdout} ${stderr}`);
  return exitCode === 0 && !differs;
}
