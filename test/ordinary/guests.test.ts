// Guests as people have them, which our own images are not: what libvirt's own freeze, ours and a whole cut answer on each,
// and the level. Printed as a table at the end.
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { GuestImage } from '../../src/testing/guest-image.js';
import { agentImage } from '../support/agent-guest.js';
import { createOn, domainBridge, images } from '../support/libvirt-bridge.js';
import type { LibvirtDomain } from '../support/libvirt-domain.js';
import { bootedDomain } from '../support/libvirt-state.js';
import { LIBVIRT_NEEDS, LibvirtHost } from '../support/libvirt.js';
import { requires } from '../support/requires.js';
import { CONTAINER, containerAnswers } from './container.js';

const OVMF = { code: '/usr/share/OVMF/OVMF_CODE_4M.fd', variables: '/usr/share/OVMF/OVMF_VARS_4M.fd' };
/** As an installer makes it: a partition of type EFI system, vfat, mounted all the time. */
const SYSTEM_PARTITION = `set -e
[ -d /sys/firmware/efi ]
disk=/dev/disk/by-id/virtio-efi
mkfs.vfat $disk >/dev/null
mkdir -p /boot/efi
mount $disk /boot/efi
mkdir -p /boot/efi/EFI/debian
echo x >/boot/efi/EFI/debian/grub.cfg`;
/** Each recursive bind doubles what is there: 15 of them are 32,768 mounts, less what the kernel's limit refuses. */
const MANY_MOUNTS = `set -e
mkdir -p /srv/jails/a
mount --bind /srv/jails /srv/jails
mount --make-rprivate /srv/jails
n=1
while [ $n -lt 20000 ]; do
  mkdir -p /srv/jails/$n
  mount --rbind /srv/jails /srv/jails/$n
  mount --make-rprivate /srv/jails/$n
  n=$(wc -l </proc/self/mountinfo)
done
echo $n`;

interface Report {
  readonly outcome: string;
  readonly level: string;
}

interface Row {
  readonly guest: string;
  readonly virsh: string;
  readonly ours: string;
  readonly cut: string;
}

const rows: Row[] = [];
let host: LibvirtHost;
beforeAll(async () => {
  host = await LibvirtHost.start();
}, 60_000);
afterAll(async () => {
  await host[Symbol.asyncDispose]();
  console.table(rows);
});

async function seconds<Result>(what: () => Promise<Result>): Promise<[Result, string]> {
  const startMs = performance.now();
  const result = await what();
  return [result, `${((performance.now() - startMs) / 1000).toFixed(1)} s`];
}

/** The level that bridge-freeze and bridge-thaw tell, as any requester sends them. */
async function bridgeFreeze(domain: LibvirtDomain): Promise<Report> {
  const send = async (execute: string, args: object): Promise<unknown> => {
    const command = JSON.stringify({ execute, arguments: args });
    const { exitCode, stdout, stderr } = await domain.virsh('qemu-agent-command', ['--timeout', '90', command]);
    if (exitCode !== 0) throw new Error(`${execute}: ${stderr}`);
    return (JSON.parse(stdout) as { return: unknown }).return;
  };
  const lease = { session: 'ordinary', 'lease-ms': 30_000, require: 'none' };
  await send('bridge-freeze', lease);
  const thawed = await send('bridge-thaw', { session: lease.session });
  return (thawed as { report: Report }).report;
}

/** All three ways to freeze a guest; notes what they answered. */
async function frozenByAll(domain: LibvirtDomain, guest: string) {
  const [freeze, virshSeconds] = await seconds(() => domain.virsh('domfsfreeze'));
  const thaw = await domain.virsh('domfsthaw');
  const [session, oursSeconds] = await seconds(() => bridgeFreeze(domain));
  const originals = await images(domain);
  const [manifest, cutSeconds] = await seconds(() => createOn(domain, 's1', '--require', 'crash'));
  expect(await domainBridge(domain, 'snapshot', 'commit', 's1')).toMatchObject({ exitCode: 0 });
  expect(await images(domain)).toEqual(originals);
  rows.push({
    guest,
    virsh: `${freeze.stdout || freeze.stderr} (${virshSeconds}); ${thaw.stdout || thaw.stderr}`,
    ours: `${session.level}, ${session.outcome} (${oursSeconds})`,
    cut: `${manifest.level} (${cutSeconds})`,
  });
  return { freeze, thaw, session, manifest };
}

requires(...LIBVIRT_NEEDS, OVMF.code)('ordinary guests', () => {
  let image: GuestImage;
  beforeAll(async () => {
    image = await agentImage('podman-debian-12');
  }, 600_000);

  test('UEFI, its system partition on vfat and mounted', async () => {
    await using domain = await bootedDomain(host, image, { blank: ['efi'], firmware: OVMF });
    await domain.exec(SYSTEM_PARTITION);
    const { freeze, thaw, session, manifest } = await frozenByAll(domain, 'UEFI');
    expect([freeze.exitCode, thaw.exitCode]).toEqual([0, 0]);
    expect(session).toMatchObject({ level: 'filesystem', outcome: 'ok' });
    expect(manifest.level).toBe('filesystem');
  });

  test('a PostgreSQL container of podman', async () => {
    await using domain = await bootedDomain(host, image);
    await domain.exec(CONTAINER, { timeoutMs: 280_000 });
    const { freeze, thaw, session, manifest } = await frozenByAll(domain, 'PostgreSQL in a container');
    expect([freeze.exitCode, thaw.exitCode]).toEqual([0, 0]);
    // The writer that ships does not look into containers, and says so.
    expect(session).toMatchObject({ level: 'filesystem', outcome: 'incomplete' });
    expect(manifest.level).toBe('filesystem');
    await domain.exec(containerAnswers());
  });

  test('20,000 mounts', async () => {
    await using domain = await bootedDomain(host, image);
    const { stdout } = await domain.exec(MANY_MOUNTS, { timeoutMs: 280_000 });
    expect(Number(stdout.trim())).toBeGreaterThan(20_000);
    const { freeze, thaw, session, manifest } = await frozenByAll(domain, '20,000 mounts');
    expect([freeze.exitCode, thaw.exitCode]).toEqual([0, 0]);
    expect(session).toMatchObject({ level: 'filesystem', outcome: 'ok' });
    expect(manifest.level).toBe('filesystem');
  });
});
