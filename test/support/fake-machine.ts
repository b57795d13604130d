// A sysfs tree and a mount table in a directory: disks of the kinds that the disk lookup must tell apart, without a
// machine that has them.
import { appendFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';

export class FakeMachine {
  readonly sysRoot: string;
  readonly udevRoot: string;
  readonly mountinfoPath: string;
  readonly procRoot: string;
  #mounts: string[] = [];
  #nextMount = 30;
  #nextMinor = 0;

  constructor(dir: string) {
    this.sysRoot = join(dir, 'sys');
    this.udevRoot = join(dir, 'udev');
    this.mountinfoPath = join(dir, 'mountinfo');
    this.procRoot = join(dir, 'proc');
    for (const name of ['block', 'class/block', 'dev/block', 'fs/btrfs', 'devices'])
      mkdirSync(join(this.sysRoot, name), { recursive: true });
    mkdirSync(join(this.udevRoot, 'data'), { recursive: true });
    this.mount({ device: '0:21', mountpoint: '/proc', type: 'proc', source: 'proc' });
  }

  file(path: string, text: string | Uint8Array): void {
    const full = join(this.sysRoot, path);
    mkdirSync(dirname(full), { recursive: true });
    writeFileSync(full, text);
  }

  procFile(path: string, text: string): void {
    const full = join(this.procRoot, path);
    mkdirSync(dirname(full), { recursive: true });
    writeFileSync(full, text);
  }

  /** An iSCSI disk of a session with the target at this address; without one the kernel does not tell it. */
  iscsiDisk(name: string, session: number, address?: string): string {
    if (address !== undefined)
      this.file(`class/iscsi_connection/connection${session}:0/persistent_address`, `${address}\n`);
    const path = `devices/platform/host3/session${session}/target3:0:0/3:0:0:1/block/${name}`;
    return this.block(path, { major: 8 });
  }

  /** A network card `eth0` with 192.0.2.2/24, the way to all else, and a bridge `cni0` with the pods of 10.42.0.0/24. */
  network(): void {
    this.file('devices/pci0000:00/0000:00:09.0/virtio9/net/eth0/uevent', 'INTERFACE=eth0\n');
    this.link('devices/pci0000:00/0000:00:09.0/virtio9/net/eth0/device', 'devices/pci0000:00/0000:00:09.0/virtio9');
    this.link('class/net/eth0', 'devices/pci0000:00/0000:00:09.0/virtio9/net/eth0');
    this.file('devices/virtual/net/cni0/uevent', 'DEVTYPE=bridge\nINTERFACE=cni0\n');
    this.link('class/net/cni0', 'devices/virtual/net/cni0');
    const route = (device: string, destination: string, gateway: string, mask: string): string =>
      [device, destination, gateway, '0003', '0', '0', '100', mask, '0', '0', '0'].join('\t');
    this.procFile(
      'net/route',
      [
        'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT',
        route('eth0', '00000000', '010200C0', '00000000'),
        route('eth0', '000200C0', '00000000', '00FFFFFF'),
        route('cni0', '00002A0A', '00000000', '00FFFFFF'),
        '',
      ].join('\n'),
    );
    this.procFile(
      'net/fib_trie',
      'Local:\n  +-- 192.0.2.0/24 2 0 2\n     |-- 192.0.2.2\n        /32 host LOCAL\n     |-- 192.0.2.255\n        /32 link BROADCAST\n',
    );
  }

  link(path: string, target: string): void {
    const full = join(this.sysRoot, path);
    mkdirSync(dirname(full), { recursive: true });
    symlinkSync(relative(dirname(full), join(this.sysRoot, target)), full);
  }

  /** A block device at a path below sysfs, `devices/.../block/vda`; gives its `MAJOR:MINOR`. */
  block(path: string, { major = 254, partition = false, iostats = '1' } = {}): string {
    const number = `${major}:${this.#nextMinor++}`;
    const name = basename(path);
    this.file(`${path}/dev`, `${number}\n`);
    this.writes(path, 0);
    if (partition) this.file(`${path}/partition`, '1\n');
    else {
      this.file(`${path}/queue/iostats`, `${iostats}\n`);
      this.link(`block/${name}`, path);
    }
    this.link(`class/block/${name}`, path);
    this.link(`dev/block/${number}`, path);
    return number;
  }

  /** `MAJOR:MINOR` of a block device that was made. */
  number(name: string): string {
    return readFileSync(join(this.sysRoot, 'class/block', name, 'dev'), 'utf8').trim();
  }

  /** Sets the write counter of a block device. */
  writes(path: string, count: number): void {
    this.file(`${path}/stat`, `10 0 80 1 ${count} 0 ${count * 8} 1 0 1 1 0 0 0 0 0 0\n`);
  }

  /** A virtio-blk disk behind its own PCI function. */
  virtioDisk(name: string, slot: number, serial?: string): { readonly path: string; readonly device: string } {
    const pci = `devices/pci0000:00/0000:00:${slot.toString(16).padStart(2, '0')}.0`;
    const path = `${pci}/virtio${slot}/block/${name}`;
    mkdirSync(join(this.sysRoot, pci), { recursive: true });
    this.link(`${pci}/driver`, 'bus/pci/drivers/virtio-pci');
    const device = this.block(path);
    if (serial !== undefined) this.file(`${path}/serial`, serial);
    return { path, device };
  }

  mount(mount: {
    readonly device: string;
    readonly mountpoint: string;
    readonly type?: string;
    readonly source?: string;
    readonly root?: string;
    readonly parent?: number;
    readonly options?: string;
    /** Default: `options`. */
    readonly superOptions?: string;
  }): number {
    const { device, mountpoint, type = 'ext4', source = '/dev/x', root = '/', parent, options = 'rw' } = mount;
    const superOptions = mount.superOptions ?? options;
    const id = this.#nextMount++;
    const parentId = parent ?? (mountpoint === '/' ? 1 : this.#rootId());
    const line = `${id} ${parentId} ${device} ${root} ${mountpoint} ${options},relatime shared:${id} - ${type} ${source} ${superOptions}`;
    this.#mounts.push(line);
    // Not written anew: some tests have thousands.
    appendFileSync(this.mountinfoPath, `${line}\n`);
    return id;
  }

  #rootId(): number {
    const line = this.#mounts.find((mount) => mount.split(' ')[4] === '/');
    return line === undefined ? 1 : Number(line.split(' ')[0]);
  }
}
