// bench -- pause: how long applications are held by `snapshot create`, with 2 and with 8 disks, in turns. Between the
// freeze request and the thaw reply the monitor gets exactly one command, the transaction.
import { sessionSteps } from '../../src/consistency.js';
import type { Manifest } from '../../src/host/sets/manifest.js';
import type { QemuGuest } from '../../src/testing/index.js';
import { commandsWhileHeld, commitSnapshot, createSnapshot } from '../../vm-images/demo/bridge.js';
import { addFilesystem, benchGuest } from './guests.js';
import { compare, measure, type Row } from './table.js';

const ROUNDS = 10;
const CUT_LIMIT_MS = 10;
const GROWTH_LIMIT = 1.3;

export async function pause(): Promise<readonly Row[]> {
  await using two = await benchGuest();
  await using eight = await benchGuest();
  for (let disk = 0; disk < 6; disk++) await addFilesystem(eight, `extra${disk}`, disk % 2 === 0 ? 'ext4' : 'xfs');
  const of2: Manifest[] = [];
  const of8: Manifest[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    of2.push(await snapshot(two, 2, round));
    of8.push(await snapshot(eight, 8, round));
  }
  const steps = sessionSteps.map((step) =>
    compare(`${step}, ms (8 disks / 2)`, stepOf(of8, step), stepOf(of2, step), null),
  );
  return [
    ...steps,
    measure('cut of 2 disks, ms', values(of2, 'cutMs'), CUT_LIMIT_MS),
    measure('cut of 8 disks, ms', values(of8, 'cutMs'), CUT_LIMIT_MS),
    measure('monitor commands while held, 2 disks', of2.map(transactionsWhileHeld), 1),
    measure('monitor commands while held, 8 disks', of8.map(transactionsWhileHeld), 1),
    compare('frozen window, ms (8 disks / 2)', values(of8, 'frozenWindowMs'), values(of2, 'frozenWindowMs'), null),
    compare('pause window, ms (8 disks / 2)', values(of8, 'pauseWindowMs'), values(of2, 'pauseWindowMs'), GROWTH_LIMIT),
  ];
}

async function snapshot(guest: QemuGuest, disks: number, round: number): Promise<Manifest> {
  const set = `round-${round}`;
  const manifest = await createSnapshot(guest, set);
  if (manifest.disks.length !== disks) throw new Error(`expected ${disks} disks cut, found ${manifest.disks.length}`);
  if (manifest.level !== 'application') throw new Error(`expected level application, found ${manifest.level}`);
  await commitSnapshot(guest, set);
  return manifest;
}

function stepOf(manifests: readonly Manifest[], name: (typeof sessionSteps)[number]): number[] {
  return manifests.map(({ guest }) => {
    const { startMs, endMs } = guest?.steps.find(({ step }) => step === name) ?? { startMs: NaN, endMs: NaN };
    return endMs - startMs;
  });
}

function values(manifests: readonly Manifest[], name: 'cutMs' | 'pauseWindowMs' | 'frozenWindowMs'): number[] {
  return manifests.map(({ timings }) => timings[name] ?? NaN);
}

/** Throws if one of them is not the transaction. */
function transactionsWhileHeld(manifest: Manifest): number {
  const commands = commandsWhileHeld(manifest);
  const other = commands.find((command) => command !== 'transaction');
  if (other !== undefined) throw new Error(`expected only the transaction while held, found ${other}`);
  return commands.length;
}
