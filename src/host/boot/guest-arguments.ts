// The command line of a guest that is booted to be tested: the machine that is recorded, with the run's disks under images
// of its own, the agent's channel, a screen and a serial console, and nothing that leads out of it.
import { defined } from '../../defined.js';
import { UsageError } from '../../errors.js';
import type { Link } from '../repository/chain.js';
import type { accelerators } from '../repository/boot-verdict.js';
import type { MachineFacts } from '../vm/machine-facts.js';
import type { DiskBus } from './boot-options.js';

export type Accelerator = (typeof accelerators)[number];

export interface GuestDisk {
  readonly id: string;
  readonly serial: string | undefined;
  readonly pciAddress: string | undefined;
  /** Takes what the guest writes: an empty qcow2 image of the disk's size, whose header names nothing below it. */
  readonly overlay: string;
  /** The files of the run, the newest first. They are only read. */
  readonly links: readonly Link[];
}

/** Where the guest is seen from the host. */
interface GuestPaths {
  readonly qmp: string;
  readonly agent: string;
  readonly console: string;
}

export interface GuestSetup {
  readonly facts: MachineFacts;
  readonly accelerator: Accelerator;
  readonly uuid: string | undefined;
  readonly disks: readonly GuestDisk[];
  readonly diskBus: DiskBus | undefined;
  /** Files of its flash, in their order; those that the guest writes to are copies. */
  readonly flash: readonly MachineFacts['flash'][number][];
  readonly paths: GuestPaths;
  readonly qemuArgs: readonly string[];
}

/** What a guest that breaks out of QEMU finds: no program that it could start, and no rights that it could gain. */
const SANDBOX = 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny';
const DEFAULT_AGENT_PORT = 'org.qemu.guest_agent.0';
const MIB_BYTES = 1024 * 1024;

/** Throws a UsageError `E_BOOT` for a disk on a bus that is not known here. */
export function guestArguments(setup: GuestSetup): string[] {
  const { facts, accelerator, uuid, disks, flash, paths, qemuArgs } = setup;
  const { arch, machine, cpus, memoryBytes, firmware, kernel, initrd, append, agentPort } = facts;
  const option = (name: string, value: string | undefined): string[] => (value === undefined ? [] : [name, value]);
  return [
    ...['-name', 'boot-test', '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-nic', 'none'],
    // Until whoever looks at it does, and its images have no names any more.
    '-S',
    ...['-sandbox', SANDBOX],
    ...['-machine', machine, '-accel', accelerator, '-cpu', processor(facts, accelerator)],
    ...['-smp', String(cpus), '-m', `${Math.ceil(memoryBytes / MIB_BYTES)}M`],
    ...option('-uuid', uuid),
    ...flash.flatMap((each, unit) => ['-drive', flashOption(unit, each)]),
    // What lies in flash is the firmware; a name without a folder is QEMU's own file.
    ...(flash.length > 0 ? [] : option('-bios', firmware)),
    ...[...option('-kernel', kernel), ...option('-initrd', initrd), ...option('-append', append)],
    // In the order of their PCI addresses, before all else: so /dev/vda is what it was.
    ...diskArguments(inOrder(disks), facts, setup.diskBus),
    ...(arch === 'x86_64' ? ['-vga', 'std'] : []),
    ...['-qmp', `unix:${escaped(paths.qmp)},server=on,wait=off`],
    ...[
      '-chardev',
      `socket,id=console,path=${escaped(paths.console)},server=on,wait=off`,
      '-serial',
      'chardev:console',
    ],
    ...['-chardev', `socket,id=agent,path=${escaped(paths.agent)},server=on,wait=off`, '-device', 'virtio-serial-pci'],
    ...['-device', `virtserialport,chardev=agent,name=${escaped(agentPort ?? DEFAULT_AGENT_PORT)}`],
    ...['-device', 'virtio-rng-pci'],
    ...qemuArgs,
  ];
}

/** Emulation has no processor `host`. */
function processor({ cpu }: MachineFacts, accelerator: Accelerator): string {
  return accelerator === 'tcg' && cpu === 'host' ? 'max' : cpu;
}

function flashOption(unit: number, { file, format, readOnly }: MachineFacts['flash'][number]): string {
  return `if=pflash,unit=${unit},format=${format},file=${escaped(file)},readonly=${readOnly ? 'on' : 'off'}`;
}

function inOrder(disks: readonly GuestDisk[]): readonly GuestDisk[] {
  const place = ({ pciAddress = '' }: GuestDisk): string => pciAddress;
  return disks.toSorted((a, b) => (place(a) < place(b) ? -1 : place(a) > place(b) ? 1 : 0));
}

function diskArguments(disks: readonly GuestDisk[], facts: MachineFacts, bus: DiskBus | undefined): string[] {
  const controllers = new Map<string, string>();
  const words: string[] = [];
  for (const [index, disk] of disks.entries()) {
    const node = `disk${index}`;
    words.push('-blockdev', JSON.stringify(blockNode(node, disk)));
    const { driver, controller } = busOf(disk, facts, bus);
    const bootindex = facts.disks.find(({ id }) => id === disk.id)?.bootIndex;
    let place = {};
    if (controller !== undefined) {
      if (!controllers.has(controller)) {
        controllers.set(controller, `controller${controllers.size}`);
        words.push('-device', `${controller},id=${controllers.get(controller) ?? ''}`);
      }
      place = { bus: `${controllers.get(controller) ?? ''}.0` };
    }
    const { serial } = disk;
    const device = { driver, drive: node, ...place, ...onError(driver), ...defined({ serial, bootindex }) };
    words.push('-device', JSON.stringify(device));
  }
  return words;
}

function blockNode(name: string, { overlay, links }: GuestDisk): object {
  let below: object | null = null;
  for (const { file } of links.toReversed()) {
    const protocol = { driver: 'file', filename: file, 'read-only': true };
    below = { driver: 'qcow2', 'read-only': true, file: protocol, backing: below };
  }
  // What it writes is thrown away: nothing has to be on a disk.
  const cache = { direct: false, 'no-flush': true };
  const file = { driver: 'file', filename: overlay };
  return { driver: 'qcow2', 'node-name': name, discard: 'unmap', cache, file, backing: below };
}

/** What a SCSI disk may hang on: a record that names anything else is of a VM that is not known here, or was forged. */
const scsiControllers = [
  ...['virtio-scsi-pci', 'virtio-scsi-pci-transitional', 'virtio-scsi-pci-non-transitional', 'pvscsi'],
  ...['megasas', 'megasas-gen2', 'mptsas1068', 'lsi53c810', 'lsi53c895a', 'am53c974', 'dc390'],
];

interface Bus {
  readonly driver: string;
  /** What its bus belongs to, where QEMU does not choose one by itself. */
  readonly controller?: string;
}

const buses: Readonly<Record<DiskBus, Bus>> = {
  virtio: { driver: 'virtio-blk-pci' },
  scsi: { driver: 'scsi-hd', controller: 'virtio-scsi-pci' },
  sata: { driver: 'ide-hd' },
  nvme: { driver: 'nvme' },
};

function busOf({ id }: GuestDisk, { disks }: MachineFacts, bus: DiskBus | undefined): Bus {
  if (bus !== undefined) return buses[bus];
  const recorded = disks.find((disk) => disk.id === id);
  const { model = '', controller } = recorded ?? {};
  if (recorded === undefined || model.startsWith('virtio-blk')) return buses.virtio;
  const hangsOn = controller ?? 'virtio-scsi-pci';
  if (model.startsWith('scsi-') && scsiControllers.includes(hangsOn)) {
    return { driver: 'scsi-hd', controller: hangsOn };
  }
  if (model === 'ide-hd') return buses.sata;
  if (model === 'nvme' || model === 'nvme-ns') return buses.nvme;
  const message = `disk ${id} was a ${model}${controller === undefined ? '' : ` on a ${controller}`}, which a boot test does not know: give --disk-bus`;
  throw new UsageError('E_BOOT', message);
}

/** What this host cannot read or write must not look like damage to the guest: it stands still. An nvme cannot. */
function onError(driver: string): object {
  return driver === 'nvme' ? {} : { werror: 'stop', rerror: 'stop' };
}

/** A comma ends a value in QEMU's option syntax. */
function escaped(value: string): string {
  return value.replaceAll(',', ',,');
}
