// How a domain comes up: restored by `virsh restore` from a saved one, which is made once for each agent and cached. The
// saved one was booted by libvirt from the image's disks and three blank ones, on which four filesystems were made.
import { chmod, copyFile, mkdir } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { Reverter } from '../../src/reverter.js';
import { chooseAccelerator } from '../../src/testing/qemu/accelerator.js';
import { cacheDirectory, cached, hashOfFile, hasUsers, keyOf, markUser, prune } from '../../src/testing/cache.js';
import { createBlank, createOverlay } from '../../src/testing/disks.js';
import { processorName } from '../../src/testing/guest-states.js';
import { startPostgresLine, type GuestImage } from '../../src/testing/guest-image.js';
import { guestImage } from '../../src/testing/image.js';
import { step } from '../../src/testing/progress.js';
import { qemuVersion } from '../../src/testing/qemu/qemu-version.js';
import { LibvirtDomain, DISK_NAMES } from './libvirt-domain.js';
import { FILESYSTEMS } from './libvirt-filesystems.js';
import { domainXml, type DomainDisk, type DomainParts, type Firmware } from './libvirt-domain-xml.js';
import { LibvirtHost } from './libvirt.js';

/** Who serves org.qemu.guest_agent.0: the package as built, or Debian's qemu-ga with its dispatcher of hooks. */
export type AgentKind = 'ours' | 'stock';

const DEB = fileURLToPath(new URL('../../build/fsfreeze-agent.deb', import.meta.url));
const BUILD_LIMIT_MS = 400_000;
const NAME = 'fsb';
const MEMORY = 'memory';

/** Debian's unit has no hook (its qemu-ga is started without -F): this one has. */
const STOCK_AGENT = `set -eu
cat >/etc/systemd/system/stock-agent.service <<'UNIT'
[Unit]
Description=stock qemu-ga on libvirt's channel
[Service]
ExecStartPre=/bin/mkdir -p /run/stock
ExecStart=/usr/sbin/qemu-ga --method virtio-serial --path /dev/virtio-ports/org.qemu.guest_agent.0 --statedir /run/stock -F/etc/qemu/fsfreeze-hook
KillMode=process
[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload; systemctl enable --now stock-agent
`;

const OUR_AGENT = 'dpkg -i /var/tmp/debs/*.deb 2>&1; code=$?; rm -rf /var/tmp/debs; exit $code';

/** A running domain with this agent in it, its clock set, libvirt's agent channel answering; about 2 s. */
export async function startDomain(host: LibvirtHost, agent: AgentKind): Promise<LibvirtDomain> {
  const domain = await restoreDomain(host, await domainState(agent));
  try {
    await domain.waitForAgent();
  } catch (cause) {
    await domain[Symbol.asyncDispose]();
    throw cause;
  }
  return domain;
}

/** The folder of the saved domain with this agent. Slow once per build of the agent; the first one boots a guest. */
export async function domainState(agent: AgentKind): Promise<string> {
  const image = await guestImage();
  const key = await machineKey(image);
  const booted = await savedDomain(`libvirt-booted-${key}`, 'booted', (host) => bootDomain(host, image));
  await prune('states', 'libvirt-booted-', 2, async (old) => old === booted || (await hasUsers(old)));

  const installed = agent === 'ours' ? [OUR_AGENT, await hashOfFile(DEB)] : [STOCK_AGENT];
  const state = await savedDomain(`libvirt-agent-${keyOf(key, ...installed)}`, agent, async (host) => {
    const domain = await restoreDomain(host, booted);
    await install(domain, agent);
    return domain;
  });
  await prune('states', 'libvirt-agent-', 4, async (old) => old === state || (await hasUsers(old)));
  return state;
}

async function savedDomain(
  name: string,
  what: string,
  make: (host: LibvirtHost) => Promise<LibvirtDomain>,
): Promise<string> {
  return await cached('states', name, BUILD_LIMIT_MS, async (building) => {
    await step(`saved domain (${what})`, async () => {
      await using host = await LibvirtHost.start();
      const image = await guestImage();
      await using domain = await make(host);
      await domain.exec(['/bin/sync']);
      await domain.run('save', path.join(host.dir, MEMORY));
      for (const { name: disk, file } of domain.disks) {
        // Over the image, or over nothing: a state can be deleted without the others.
        const ground = image.disks.find((one) => one.name === disk);
        const base = ground === undefined ? ['-b', ''] : ['-b', ground.file, '-F', ground.format];
        await execa('qemu-img', ['rebase', '-q', '-f', 'qcow2', ...base, file]);
        await chmod(file, 0o444);
      }
      await execa('mv', [path.join(host.dir, MEMORY), ...domain.disks.map(({ file }) => file), building]);
    });
  });
}

async function restoreDomain(host: LibvirtHost, state: string): Promise<LibvirtDomain> {
  const image = await guestImage();
  const dir = await domainDirectory(host);
  const overlays = DISK_NAMES.map(async (name, index): Promise<DomainDisk> => {
    const base = { file: path.join(state, `${name}.qcow2`), format: 'qcow2' } as const;
    return { name, target: target(index), ...(await createOverlay(path.join(dir, `${name}.qcow2`), base)) };
  });
  const disks = await Promise.all(overlays);
  const xml = await host.file(domainXml(await parts(image, dir, disks)));
  const atEnd = new Reverter();
  const domain = new LibvirtDomain(host, NAME, dir, disks, atEnd);
  try {
    await host.run(['define', xml]);
    await host.run(['restore', path.join(state, MEMORY), '--xml', xml]);
    atEnd.push('mark on the state', await markUser(state, await domain.pid()));
    await domain.exec(['/bin/date', '-s', `@${(Date.now() / 1000).toFixed(3)}`]);
  } catch (cause) {
    await domain[Symbol.asyncDispose]();
    throw cause;
  }
  return domain;
}

/** From the image's disks and three blank ones, on which four filesystems are made. */
async function bootDomain(host: LibvirtHost, image: GuestImage): Promise<LibvirtDomain> {
  const blank = DISK_NAMES.slice(image.disks.length);
  return await bootPrepared(host, image, { blank }, async (domain) => {
    await domain.exec(startPostgresLine(image), { timeoutMs: 120_000 });
    await domain.exec(FILESYSTEMS, { timeoutMs: 120_000 });
  });
}

export interface BootedDomainOptions {
  /** Names of blank disks of 512 MiB each, after those of the image. */
  readonly blank?: readonly string[];
  /** UEFI instead of SeaBIOS: the firmware's code, and the variables that the domain gets a copy of. */
  readonly firmware?: Firmware;
}

/** A domain that boots now, from an image with an agent in it: for what no saved one has. About 15 s. */
export async function bootedDomain(
  host: LibvirtHost,
  image: GuestImage,
  options: BootedDomainOptions = {},
): Promise<LibvirtDomain> {
  return await bootPrepared(host, image, options, async (domain) => {
    await domain.waitForAgent();
  });
}

async function bootPrepared(
  host: LibvirtHost,
  image: GuestImage,
  { blank = [], firmware }: BootedDomainOptions,
  prepare: (domain: LibvirtDomain) => Promise<void>,
): Promise<LibvirtDomain> {
  const dir = await domainDirectory(host);
  const names = [...image.disks.map(({ name }) => name), ...blank];
  const files = names.map(async (name, index): Promise<DomainDisk> => {
    const base = image.disks.find((disk) => disk.name === name);
    const file = path.join(dir, `${name}.qcow2`);
    const disk = base === undefined ? createBlank(file, 512) : createOverlay(file, base);
    return { name, target: target(index), ...(await disk) };
  });
  const machine = await parts(image, dir, await Promise.all(files));
  await host.run(['define', await host.file(domainXml(await withFirmware(machine, firmware)))]);
  const domain = new LibvirtDomain(host, NAME, dir, machine.disks, new Reverter());
  try {
    await domain.run('start');
    await domain.waitForGuest();
    await domain.exec('systemctl is-system-running --wait', { timeoutMs: 120_000, check: false });
    await prepare(domain);
  } catch (cause) {
    await domain[Symbol.asyncDispose]();
    throw cause;
  }
  return domain;
}

async function withFirmware(machine: DomainParts, firmware: Firmware | undefined): Promise<DomainParts> {
  if (firmware === undefined) return machine;
  const variables = path.join(machine.dir, 'variables.fd');
  await copyFile(firmware.variables, variables);
  return { ...machine, firmware: { ...firmware, variables } };
}

async function install(domain: LibvirtDomain, agent: AgentKind): Promise<void> {
  if (agent === 'ours') {
    await domain.copyIn([DEB], '/var/tmp/debs');
    await domain.exec(OUR_AGENT, { timeoutMs: 180_000 });
  } else {
    await domain.exec(STOCK_AGENT);
  }
  await domain.waitForAgent();
}

async function domainDirectory(host: LibvirtHost): Promise<string> {
  const dir = path.join(host.dir, 'domain');
  await mkdir(dir);
  return dir;
}

async function parts(image: GuestImage, dir: string, disks: readonly DomainDisk[]): Promise<DomainParts> {
  const { kernel, initrd } = image;
  return { name: NAME, dir, kernel, initrd, accelerator: await chooseAccelerator(kernel), disks };
}

function target(index: number): string {
  return `vd${String.fromCodePoint(97 + index)}`;
}

/** All that a saved domain fits to. */
async function machineKey(image: GuestImage): Promise<string> {
  const machine = await parts(image, '/', []);
  const processor = machine.accelerator === 'kvm' ? await processorName() : '';
  const { stdout: libvirt } = await execa('virsh', ['--version']);
  const fits = [image.key, image.buildId, await qemuVersion(), libvirt, domainXml(machine), processor, FILESYSTEMS];
  return keyOf(...fits, cacheDirectory());
}
