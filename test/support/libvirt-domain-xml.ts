// The domain as libvirt's XML: five disks, libvirt's own agent channel (port 0), the fixture's (port 1), a forwarded
// PostgreSQL. What is here decides whether a saved domain can be restored: its text is part of the state's key.
import path from 'node:path';
import type { Accelerator } from '../../src/testing/qemu/accelerator.js';
import { KERNEL_COMMAND_LINE } from '../../src/testing/qemu/machine.js';

export interface DomainDisk {
  /** Its serial too: /dev/disk/by-id/virtio-NAME in the guest. */
  readonly name: string;
  /** In the guest, and for virsh: vda ... */
  readonly target: string;
  readonly file: string;
  readonly format: 'qcow2' | 'raw';
  readonly readOnly?: boolean;
}

export interface DomainParts {
  readonly name: string;
  readonly dir: string;
  readonly kernel: string;
  readonly initrd: string;
  readonly accelerator: Accelerator;
  readonly disks: readonly DomainDisk[];
  /** UEFI instead of SeaBIOS. */
  readonly firmware?: Firmware;
}

export interface Firmware {
  /** Read-only, as the package has it. */
  readonly code: string;
  /** The domain's own copy of its variables (NVRAM). */
  readonly variables: string;
}

// The same for all: a saved domain is restored under its own id, and each libvirtd of the fixture has one such domain.
const UUID = '5f5b0f8e-2d4c-4c43-9a7e-6c2f2b1d0a01';
/** Far from where libvirt begins to put what is hot-plugged. */
const NETWORK_SLOT = '0x1e';

export function domainXml({ name, dir, kernel, initrd, accelerator, disks, firmware }: DomainParts): string {
  return `<domain type='${accelerator === 'kvm' ? 'kvm' : 'qemu'}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>${name}</name><uuid>${UUID}</uuid><memory unit='MiB'>768</memory><vcpu>2</vcpu>
  ${accelerator === 'kvm' ? "<cpu mode='host-passthrough'/>" : ''}
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>${firmware === undefined ? '' : loaderXml(firmware)}
    <kernel>${kernel}</kernel><initrd>${initrd}</initrd><cmdline>${KERNEL_COMMAND_LINE}</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    ${disks.map(diskXml).join('\n    ')}
    <controller type='usb' model='none'/>
    <controller type='virtio-serial' index='0'/>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <channel type='unix'>
      <source mode='bind' path='${execPath(dir)}'/><target type='virtio' name='org.qemu.guest_agent.1'/>
    </channel>
    <serial type='file'><source path='${path.join(dir, 'console.log')}' append='on'/><target port='0'/></serial>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <memballoon model='none'/>
  </devices>
  <seclabel type='none'/>
  <qemu:commandline>
    <qemu:arg value='-netdev'/><qemu:arg value='user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:0-:5432'/>
    <qemu:arg value='-device'/><qemu:arg value='virtio-net-pci,netdev=net0,romfile=,bus=pci.0,addr=${NETWORK_SLOT}'/>
  </qemu:commandline>
</domain>`;
}

function loaderXml({ code, variables }: Firmware): string {
  return `<loader readonly='yes' type='pflash'>${code}</loader><nvram>${variables}</nvram>`;
}

export function diskXml({ name, target, file, format, readOnly = false }: DomainDisk): string {
  return (
    `<disk type='file' device='disk'><driver name='qemu' type='${format}' discard='unmap'/>` +
    `<source file='${file}'/><target dev='${target}' bus='virtio'/><serial>${name}</serial>` +
    `${readOnly ? '<readonly/>' : ''}</disk>`
  );
}

/** Host end of the fixture's port. */
export function execPath(dir: string): string {
  return path.join(dir, 'exec.sock');
}
