// The command line of a guest that is started from a run: the machine that is recorded, with the run's disks under images of
// its own, the agent's channel, a screen and a serial console. One that is booted to be tested has nothing that leads out of
// it, and is thrown away; one that stays has what its user gives it.
import { defined } from '../../defined.js';
import { UsageError } from '../../errors.js';
import { KEY_OBJECT } from '../images/luks-key.js';
import type { Link } from '../repository/chain.js';
import { fileNode, needsKey } from '../repository/chain-name.js';
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
  /** One more monitor: each serves one client at a time. Only a guest that stays has it. */
  readonly userQmp?: string;
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
  /** The name of a VM that stays; without it, the guest is tested and thrown away. */
  readonly stays?: string;
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
  const monitors = [paths.qmp, ...(paths.userQmp === undefined ? [] : [paths.userQmp])];
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none', ...whatFor(setup)],
    // Until whoever started it says so.
    '-S',
    ...['-machine', machine, '-accel', accelerator, '-cpu', processor(facts, accelerator)],
    ...['-smp', String(cpus), '-m', `${Math.ceil(memoryBytes / MIB_BYTES)}M`],
    ...option('-uuid', uuid),
    ...flash.flatMap((each, unit) => ['-drive', flashOption(unit, each)]),
    // What lies in flash is the firmware; a name without a folder is QEMU's own file.
    ...(flash.length > 0 ? [] : option('-bios', firmware)),
    ...[...option('-kernel', kernel), ...option('-initrd', initrd), ...option('-append', append)],
    ...(disks.some(({ links }) => needsKey(links)) ? ['-object', KEY_OBJECT] : []),
    // In the order of their PCI addresses, before all else: so /dev/vda is what it was.
    ...diskArguments(inOrder(disks), setup),
    ...(arch === 'x86_64' ? ['-vga', 'std'] : []),
    ...monitors.flatMap((path) => ['-qmp', `unix:${escaped(path)},server=on,wait=off`]),
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

function whatFor({ stays, qemuArgs }: GuestSetup): string[] {
  const sandbox = ['-sandbox', SANDBOX];
  if (stays === undefined) return ['-name', 'boot-test', '-no-reboot', '-nic', 'none', ...sandbox];
  // Of two, QEMU takes the stricter: its user's would not count.
  return ['-name', `guest=${escaped(stays)}`, ...(qemuArgs.includes('-sandbox') ? [] : sandbox)];
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

/** What the disk of this place in the command line writes to. */
function nodeAt(index: number): string {
  return `disk${index}`;
}

/** Disks with the names of the nodes that they write to. */
export function withNodes(disks: readonly GuestDisk[]): readonly (GuestDisk & { readonly node: string })[] {
  return inOrder(disks).map((disk, index) => ({ ...disk, node: nodeAt(index) }));
}

function diskArguments(disks: readonly GuestDisk[], { facts, diskBus, stays }: GuestSetup): string[] {
  const controllers = new Map<string, string>();
  const words: string[] = [];
  for (const [index, disk] of disks.entries()) {
    const node = nodeAt(index);
    words.push('-blockdev', JSON.stringify(blockNode(node, disk, stays === undefined)));
    const { driver, controller } = busOf(disk, facts, diskBus);
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

function blockNode(name: string, { overlay, links }: GuestDisk, isThrownAway: boolean): object {
  let below: object | null = null;
  for (const link of links.toReversed()) {
    const readOnly = { 'read-only': true };
    below = { driver: 'qcow2', ...readOnly, file: fileNode(link, readOnly), backing: below };
  }
  // Of what is thrown away nothing has to be on a disk.
  const cache = { direct: false, 'no-flush': isThrownAway };
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
  const message = `disk ${id} was a ${model}${controller === undefined ? '' : ` on a ${controller}`}, which no guest is started with: give --disk-bus`;
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
