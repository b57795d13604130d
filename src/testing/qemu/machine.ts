// The virtual machine as QEMU's command line. It decides whether a saved state can be restored, so its text (without paths)
// is part of a state's key.
import { acceleratorArguments, type Accelerator } from './accelerator.js';
import { blockNodes, diskDevice, type GuestDisk } from '../disks.js';
import type { GuestPaths } from '../guest-folder.js';

export interface Machine {
  readonly kernel: string;
  readonly initrd: string;
  readonly memoryMiB: number;
  readonly cpus: number;
  readonly accelerator: Accelerator;
  /** Ports of the guest that are reached at free ports of the host's loopback. */
  readonly ports: readonly number[];
  /** In the order of the guest's /dev/vda, vdb ...; the first one holds the root filesystem. */
  readonly disks: readonly GuestDisk[];
}

// Emulated beside other work, the kernel's test of its timer fails now and then, and panics: `no_timer_check`.
export const KERNEL_COMMAND_LINE =
  'root=/dev/vda ro console=ttyS0 quiet net.ifnames=0 systemd.show_status=false mitigations=off panic=1 no_timer_check';

/** One UUID for all guests: one that is restored has read it before it was saved, and goes on believing it. */
const UUID = 'f5b00000-0000-4000-8000-000000000001';

/** The command line. With `incoming` the machine waits for a state to be loaded. */
export function machineArguments(machine: Machine, paths: GuestPaths, incoming: boolean): string[] {
  const socket = (id: string, file: string) => ['-chardev', `socket,id=${id},path=${escape(file)},server=on,wait=off`];
  return [
    ...['-machine', 'pc', ...acceleratorArguments(machine.accelerator)],
    ...['-smp', String(machine.cpus), '-m', String(machine.memoryMiB)],
    ...['-uuid', UUID],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...['-kernel', machine.kernel, '-initrd', machine.initrd, '-append', KERNEL_COMMAND_LINE],
    ...['-chardev', `file,id=console,path=${escape(paths.consolePath)},append=on`, '-serial', 'chardev:console'],
    ...[...socket('qmp', paths.qmpPath), '-mon', 'chardev=qmp,mode=control'],
    ...[...socket('fixture', paths.fixtureQmpPath), '-mon', 'chardev=fixture,mode=control'],
    ...['-device', 'virtio-serial-pci,id=serial0'],
    ...[...socket('qga', paths.qgaPath), '-device', port(1, 'qga', 'org.qemu.guest_agent.0')],
    ...[...socket('exec', paths.execPath), '-device', port(2, 'exec', 'org.qemu.guest_agent.1')],
    // restrict: the guest reaches nothing but the forwarded connections; port 0: QEMU takes a free one.
    ...['-netdev', ['user,id=net0,restrict=on', ...machine.ports.map(forward)].join(',')],
    ...['-device', 'virtio-net-pci,netdev=net0,romfile='],
    ...['-device', 'virtio-rng-pci'],
    ...machine.disks.flatMap((disk) => blockNodes(disk).flatMap((node) => ['-blockdev', JSON.stringify(node)])),
    ...machine.disks.flatMap((disk) => ['-device', JSON.stringify(diskDevice(disk))]),
    ...(incoming ? ['-incoming', 'defer'] : []),
  ];
}

function forward(guestPort: number): string {
  return `hostfwd=tcp:127.0.0.1:0-:${guestPort}`;
}

function port(nr: number, chardev: string, name: string): string {
  return `virtserialport,bus=serial0.0,nr=${nr},chardev=${chardev},name=${name},id=port-${chardev}`;
}

/** A comma ends a value in QEMU's option syntax. */
function escape(file: string): string {
  return file.replaceAll(',', ',,');
}
