// Controls: cuts made wrong on purpose, which the demo's proof must refuse. A proof that cannot fail proves nothing.
import { execa } from 'execa';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { monotonicMs } from '../../src/linux/clock.js';
import { readDisks } from '../../src/qmp/block-graph.js';
import { QmpClient } from '../../src/qmp/client.js';
import type { QemuGuest } from '../../src/testing/index.js';
import { bootCut, compareContents, refusalOf, type Cut } from './database.js';
import { needsRecovery, rawCopy } from './disks.js';
import type { Load } from './load.js';

export interface Control {
  readonly control: string;
  /** What the proof said against it; null if it found nothing, and then the proof is worth nothing. */
  readonly failed: string | null;
}

/** An atomic cut of both disks, without a freeze: the ext4 must need its journal. */
export async function cutWithoutFreeze(guest: QemuGuest, load: Load): Promise<Control> {
  // The journal is clean for moments after a checkpoint of its own: cut while the load writes.
  const seen = load.transactions.length;
  while (load.transactions.length < seen + 20) await sleep(20);
  const { root } = await cutBy(guest, 'unfrozen', async (cut) => {
    await cut(['root', 'data']);
  });
  const dirty = await needsRecovery(await rawCopy(root, guest.dir, 'unfrozen'));
  return { control: 'atomic cut without a freeze', failed: dirty ? 'the ext4 needs recovery' : null };
}

/** The WAL's disk, a CHECKPOINT, and two seconds later the data's disk: the database must be lost or incomplete. */
export async function cutApart(guest: QemuGuest, load: Load): Promise<Control> {
  const control = 'the disk of the WAL cut first, then a CHECKPOINT, the data disk 2 s later';
  let secondMs = 0;
  const cut = await cutBy(guest, 'apart', async (take) => {
    await take(['data']);
    await guest.exec('runuser -u postgres -- psql -qc CHECKPOINT');
    await sleep(2000);
    secondMs = monotonicMs();
    await take(['root']);
  });
  await using booted = await bootCut(cut);
  const refusal = await refusalOf(booted);
  if (refusal !== undefined) return { control, failed: refusal };
  const { missing } = await compareContents(booted.postgresPort, load.transactions, secondMs, monotonicMs());
  return { control, failed: missing > 0 ? `${missing} acknowledged transactions are missing` : null };
}

type Take = (names: readonly ('root' | 'data')[]) => Promise<void>;

/** Makes overlays for both disks, lets `how` cut, each call of it in one transaction, and gives what was cut. */
async function cutBy(guest: QemuGuest, name: string, how: (take: Take) => Promise<void>): Promise<Cut> {
  await using monitor = await QmpClient.connect(guest.qmpPath);
  const disks = await readDisks(monitor);
  const layerOf = (name: 'root' | 'data') => {
    const { node, file } = disks.find(({ id }) => id === guest.disk(name).device) ?? {};
    if (node === undefined || file === undefined) throw new Error(`the VM has no disk ${name}`);
    return { node, file, format: 'qcow2' as const };
  };
  const cut = { root: layerOf('root'), data: layerOf('data') };
  for (const disk of ['root', 'data'] as const) {
    const file = path.join(guest.dir, `${disk}-${name}.qcow2`);
    const { file: backing, format } = cut[disk];
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', backing, '-F', format, file], { timeout: 20_000 });
    await monitor.execute('blockdev-add', {
      driver: 'qcow2',
      'node-name': `${disk}-${name}`,
      file: { driver: 'file', filename: file },
      backing: null,
    });
  }
  await how(async (names) => {
    const actions = names.map((disk) => ({
      type: 'blockdev-snapshot',
      data: { node: cut[disk].node, overlay: `${disk}-${name}` },
    }));
    await monitor.execute('transaction', { actions });
  });
  return cut;
}
