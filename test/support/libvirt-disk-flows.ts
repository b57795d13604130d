// Flows through virsh in which QEMU cuts, copies or merges disks, under a freeze. They are run in this order, in one
// domain, and leave its disks as they were.
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { beginWrites, lastWrite } from './first-write.js';
import type { LibvirtDomain } from './libvirt-domain.js';
import { MOUNTPOINTS } from './libvirt-filesystems.js';
import { said, type Flow } from './libvirt-flow.js';

const WRITABLE = ['/var/tmp', ...MOUNTPOINTS.slice(1)];
/** The disk that is backed up, and what is on it. */
const BACKED_UP = { disk: 'ext', folder: '/srv/ext' };
const WRITTEN_MIB = 2;

export const diskFlows: readonly Flow[] = [
  {
    name: '`snapshot-create-as --disk-only --atomic --quiesce`',
    seen: '0: Domain snapshot cut created; every disk on an overlay',
    async run(domain) {
      const words = ['cut', '--disk-only', '--atomic', '--quiesce'];
      const snapshot = await domain.virsh('snapshot-create-as', words);
      const sources = await domain.sources();
      const on = sources.every((file) => file.endsWith('.cut')) ? 'every disk on an overlay' : sources.join(' ');
      await lastWrite(domain, await beginWrites(domain, WRITABLE), 10_000);
      return { text: `${said(snapshot)}; ${on}` };
    },
  },
  {
    name: '`blockcommit --shallow --active --pivot`, each disk',
    seen: '0, 0, 0, 0, 0; every disk as before',
    async run(domain) {
      const codes: (number | undefined)[] = [];
      for (const { target } of domain.disks) {
        codes.push((await domain.virsh('blockcommit', [target, '--shallow', '--active', '--pivot'])).exitCode);
      }
      const sources = await domain.sources();
      const as = sources.join() === domain.disks.map(({ file }) => file).join() ? 'as before' : sources.join(' ');
      await domain.run('snapshot-delete', 'cut', '--metadata');
      await lastWrite(domain, await beginWrites(domain, WRITABLE), 10_000);
      return { text: `${codes.join(', ')}; every disk ${as}` };
    },
  },
  {
    name: '`checkpoint-create-as`',
    seen: '0: Domain checkpoint c1 created',
    run: async (domain) => ({
      text: said(await domain.virsh('checkpoint-create-as', ['c1', '--diskspec', domain.disk(BACKED_UP.disk).target])),
    }),
  },
  {
    name: '`domfsfreeze`, `backup-begin` (push), `domfsthaw`',
    seen: '0: Froze 6 filesystem(s); 0: Backup started; 0: Thawed 6 filesystem(s); e2fsck finds nothing in it',
    async run(domain) {
      const target = path.join(domain.dir, 'full.qcow2');
      const text = await backup(domain, { mode: 'push', file: target });
      await jobEnds(domain);
      return { text: `${text}; ${await checked(target)}` };
    },
  },
  {
    name: 'the same, incremental, with a new checkpoint',
    seen: '0: Froze 6 filesystem(s); 0: Backup started; 0: Thawed 6 filesystem(s); holds what was written since',
    async run(domain) {
      await write(domain);
      const target = path.join(domain.dir, 'increment.qcow2');
      const text = await backup(domain, { mode: 'push', file: target, since: 'c1', checkpoint: 'c2' });
      await jobEnds(domain);
      const mebibytes = (await stat(target)).size / 2 ** 20;
      return { text: `${text}; ${holds(mebibytes)}` };
    },
  },
  {
    name: '`domfsfreeze`, `backup-begin` (pull, incremental), `domfsthaw`; read by NBD; `domjobabort`',
    seen: '0: Froze 6 filesystem(s); 0: Backup started; 0: Thawed 6 filesystem(s); holds what was written since; 0',
    async run(domain) {
      await write(domain);
      const socket = path.join(domain.dir, 'nbd.sock');
      const scratch = path.join(domain.dir, 'scratch.qcow2');
      const text = await backup(domain, { mode: 'pull', file: scratch, since: 'c2', socket });
      const { target } = domain.disk(BACKED_UP.disk);
      const dirty = await dirtyMebibytes(socket, target, `backup-${target}`);
      const abort = await domain.virsh('domjobabort');
      for (const name of ['c2', 'c1']) await domain.run('checkpoint-delete', name);
      return { text: `${text}; ${holds(dirty)}; ${said(abort)}` };
    },
  },
];

interface Backup {
  readonly mode: 'push' | 'pull';
  /** Target, or with pull the scratch file. */
  readonly file: string;
  readonly since?: string;
  readonly checkpoint?: string;
  readonly socket?: string;
}

/** Begins a backup of one disk while all filesystems are frozen; says what virsh said. */
async function backup(domain: LibvirtDomain, { mode, file, since, checkpoint, socket }: Backup): Promise<string> {
  const { target } = domain.disk(BACKED_UP.disk);
  const place = mode === 'push' ? 'target' : 'scratch';
  const incremental = since === undefined ? '' : `<incremental>${since}</incremental>`;
  const server = socket === undefined ? '' : `<server transport='unix' socket='${socket}'/>`;
  const disk = `<disk name='${target}' type='file'><${place} file='${file}'/><driver type='qcow2'/></disk>`;
  const xml = `<domainbackup mode='${mode}'>${incremental}${server}<disks>${disk}</disks></domainbackup>`;
  const words = [await domain.host.file(xml)];
  if (checkpoint !== undefined) {
    const disks = `<disks><disk name='${target}' checkpoint='bitmap'/></disks>`;
    words.push(await domain.host.file(`<domaincheckpoint><name>${checkpoint}</name>${disks}</domaincheckpoint>`));
  }
  const freeze = await domain.virsh('domfsfreeze');
  const begin = await domain.virsh('backup-begin', words);
  const thaw = await domain.virsh('domfsthaw');
  return [freeze, begin, thaw].map(said).join('; ');
}

async function jobEnds(domain: LibvirtDomain): Promise<void> {
  for (let tries = 0; !/Job type:\s+None/.test(await domain.run('domjobinfo')); tries += 1) {
    if (tries === 300) throw new Error('the backup does not end');
    await sleep(100);
  }
}

async function write(domain: LibvirtDomain): Promise<void> {
  const file = `${BACKED_UP.folder}/written`;
  await domain.exec(`dd if=/dev/urandom of=${file} bs=1M count=${WRITTEN_MIB} conv=fsync status=none`);
}

/** The disk that is backed up has one ext4 and no partitions. */
async function checked(file: string): Promise<string> {
  const raw = `${file}.raw`;
  await execa('qemu-img', ['convert', '-O', 'raw', file, raw]);
  const env = { PATH: `${process.env['PATH'] ?? ''}:/sbin:/usr/sbin` };
  const { exitCode, stdout } = await execa('e2fsck', ['-fn', raw], { reject: false, env });
  return exitCode === 0 ? 'e2fsck finds nothing in it' : `e2fsck: ${String(exitCode)}: ${stdout}`;
}

function holds(mebibytes: number): string {
  const increment = mebibytes >= WRITTEN_MIB && mebibytes < 10 * WRITTEN_MIB;
  return increment ? 'holds what was written since' : `holds ${mebibytes} MiB`;
}

async function dirtyMebibytes(socket: string, name: string, bitmap: string): Promise<number> {
  const server = { type: 'unix', path: socket };
  const image = { driver: 'nbd', export: name, server, 'x-dirty-bitmap': `qemu:dirty-bitmap:${bitmap}` };
  const { stdout } = await execa('qemu-img', ['map', '--output=json', `json:${JSON.stringify(image)}`]);
  // With a bitmap in place of the map, dirty is told as a range without data.
  const ranges = JSON.parse(stdout) as { length: number; data: boolean }[];
  return ranges.filter(({ data }) => !data).reduce((sum, { length }) => sum + length, 0) / 2 ** 20;
}
