// npm run demo [-- --json]: the main job on a throw-away guest, and its proof. A database under load is held still, both
// disks of its VM are cut in one transaction, and what was cut is booted and compared with what the clients remember;
// then the overlays are merged back under load. Two cuts made wrong on purpose show that the proof can fail.
// Exit 0 only if everything was verified.
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { timeline } from '../../src/cli/bridge/timeline.js';
import { describeError } from '../../src/errors.js';
import { monotonicMs } from '../../src/linux/clock.js';
import type { Manifest } from '../../src/host/sets/manifest.js';
import { bootGuest } from '../../src/testing/index.js';
import type { QemuGuest } from '../../src/testing/index.js';
import { installDebs, waitForAgent } from '../../src/testing/guest-states.js';
import { commandsWhileHeld, commitSnapshot, createSnapshot } from './bridge.js';
import { cutApart, cutWithoutFreeze, type Control } from './controls.js';
import { amcheckFaults, bootCut, compareContents, refusalOf, type Contents, type Cut } from './database.js';
import { faultsOf, needsRecovery, rawCopy } from './disks.js';
import { startLoad, type Load } from './load.js';

const CLIENTS = 8;
const WARM_UP_TRANSACTIONS = 500;
const DEB = fileURLToPath(new URL('../../build/fsfreeze-agent.deb', import.meta.url));

const { json } = parseArgs({ options: { json: { type: 'boolean', default: false } } }).values;
const startMs = monotonicMs();
/** With --json only the last line goes to standard output. */
const print = (text: string): void => {
  (json ? process.stderr : process.stdout).write(`${text}\n`);
};
const step = (text: string): void => {
  print(`[${((monotonicMs() - startMs) / 1000).toFixed(1).padStart(6)} s] ${text}`);
};

interface Proof extends Contents {
  /** What speaks against the cut; verified if empty. */
  readonly against: readonly string[];
  readonly waitedDuring: number;
}

async function demo(): Promise<boolean> {
  step('booting a guest: Debian 12, PostgreSQL with its WAL on a disk of its own');
  await using guest = await bootGuest();
  await guest.waitForSystem();
  step('installing the agent and the freezer (dpkg -i fsfreeze-agent.deb)');
  await installDebs(guest, [DEB]);
  await waitForAgent(guest);
  await guest.startPostgres();

  step(`${CLIENTS} clients commit transactions without a pause`);
  const load = await startLoad(guest.postgresPort, CLIENTS);
  await acknowledge(load, WARM_UP_TRANSACTIONS);

  step('fsfreeze-bridge snapshot create');
  const manifest = await createSnapshot(guest, 'demo', ['--require', 'application']);
  await acknowledge(load, 100);
  if (manifest.guest !== undefined) print(timeline(manifest.guest).join('\n'));
  print(`consistency level: ${manifest.level}\n${manifest.evidence.map((sentence) => `  - ${sentence}`).join('\n')}`);

  const proof = await prove(guest, load, manifest);
  step('fsfreeze-bridge snapshot commit, while the load goes on');
  await commitSnapshot(guest, 'demo');
  await acknowledge(load, 100);
  await load.stop();
  await guest.shutdown();

  step('booting from the disks that were merged');
  await using merged = await bootCut({ root: guest.disk('root'), data: guest.disk('data') });
  const against = [...proof.against, ...(await lostByCommit(merged, load))];

  const controls = await controlCuts(merged);
  for (const { control, failed } of controls) {
    if (failed === null) against.push(`the proof finds nothing against: ${control}`);
  }
  for (const reason of against) print(`NOT VERIFIED: ${reason}`);
  const verified = against.length === 0;
  step(verified ? 'verified' : 'not verified');
  if (json) console.log(JSON.stringify(summary(manifest, proof, controls, verified)));
  return verified;
}

/** What a server started anew from the merged disks does not hold: nothing of it can come from a cache. */
async function lostByCommit(merged: QemuGuest, load: Load): Promise<readonly string[]> {
  const refusal = await refusalOf(merged);
  if (refusal !== undefined) return [`PostgreSQL does not start from the merged disks: ${refusal}`];
  const contents = await compareContents(merged.postgresPort, load.transactions, Infinity, Infinity);
  step(`${contents.acknowledgedBefore} transactions were acknowledged by then, ${contents.missing} are missing`);
  const corruption = await amcheckFaults(merged);
  return [
    ...(contents.missing > 0 ? [`${contents.missing} transactions lost by the commit`] : []),
    ...(corruption === '' ? [] : [corruption]),
  ];
}

/** Waits until `count` more transactions are acknowledged. */
async function acknowledge(load: Load, count: number): Promise<void> {
  const goal = load.transactions.length + count;
  const endMs = monotonicMs() + 60_000;
  while (load.transactions.length < goal) {
    if (monotonicMs() > endMs)
      throw new Error(`the load stands still: expected ${count} more transactions within 60 s`);
    await sleep(20);
  }
}

async function prove(guest: QemuGuest, load: Load, manifest: Manifest): Promise<Proof> {
  const against: string[] = [];
  if (manifest.level !== 'application') against.push(`level ${manifest.level}`);
  const held = commandsWhileHeld(manifest);
  if (held.join() !== 'transaction') against.push(`while it was held the monitor got: ${held.join(', ')}`);
  const cut = cutOf(manifest);

  step('the ext4 of the cut, before anything mounts it');
  if (await needsRecovery(await rawCopy(cut.root, guest.dir, 'cut')))
    against.push('the ext4 of the cut needs recovery');

  step('booting a second guest from the cut');
  await using booted = await bootCut(cut);
  const refusal = await refusalOf(booted);
  if (refusal !== undefined) throw new Error(`PostgreSQL does not start from the cut: ${refusal}`);
  const marks = manifest.timings.marks;
  const [freezeMs, frozenMs, thawMs, thawedMs] = [
    marks.freezeRequestedMs ?? NaN,
    marks.freezeAnsweredMs ?? NaN,
    marks.thawRequestedMs ?? NaN,
    marks.thawAnsweredMs ?? NaN,
  ];
  const transactions = [...load.transactions];
  const contents = await compareContents(booted.postgresPort, transactions, freezeMs, thawedMs);
  if (contents.missing > 0) against.push(`${contents.missing} transactions acknowledged before the freeze are missing`);
  if (contents.foreign > 0) against.push(`${contents.foreign} transactions begun after the thaw are there`);
  if (contents.acknowledgedBefore < 200)
    against.push(`only ${contents.acknowledgedBefore} transactions to prove it by`);
  const frozenWindowMs = manifest.timings.frozenWindowMs ?? NaN;
  const waitedDuring = transactions.filter(
    ({ sentMs, acknowledgedMs = Infinity }) =>
      sentMs < thawMs && acknowledgedMs > frozenMs && acknowledgedMs - sentMs >= frozenWindowMs,
  ).length;
  if (waitedDuring === 0) against.push('no transaction waited while the guest was frozen');
  step(
    `the database of the cut: ${contents.acknowledgedBefore} acknowledged before the freeze, ${contents.missing} missing, ` +
      `${contents.foreign} foreign; ${waitedDuring} waited while it was frozen`,
  );

  step('pg_amcheck');
  const corruption = await amcheckFaults(booted);
  if (corruption !== '') against.push(corruption);
  step('after a clean shutdown: e2fsck -fn, xfs_repair -n');
  const { root, data } = { root: booted.disk('root'), data: booted.disk('data') };
  await booted.shutdown();
  against.push(...(await faultsOf(await rawCopy(root, booted.dir, 'root'), await rawCopy(data, booted.dir, 'data'))));
  return { ...contents, against, waitedDuring };
}

function cutOf(manifest: Manifest): Cut {
  const base = (serial: string) => {
    const disk = manifest.disks.find((each) => each.serial === serial);
    if (disk === undefined) throw new Error(`the snapshot holds no disk ${serial}`);
    return { file: disk.base.file, format: 'qcow2' as const };
  };
  return { root: base('root'), data: base('data') };
}

async function controlCuts(guest: QemuGuest): Promise<readonly Control[]> {
  const load = await startLoad(guest.postgresPort, CLIENTS);
  step('control: an atomic cut without a freeze');
  const unfrozen = await cutWithoutFreeze(guest, load);
  step(`the proof says: ${unfrozen.failed ?? 'nothing'}`);
  step('control: the disks cut one after the other');
  const apart = await cutApart(guest, load);
  step(`the proof says: ${apart.failed ?? 'nothing'}`);
  await load.stop();
  return [unfrozen, apart];
}

function summary(manifest: Manifest, proof: Proof, controls: readonly Control[], verified: boolean): object {
  return {
    consistency: manifest.level,
    disks: manifest.disks,
    filesystems: manifest.guest?.filesystems ?? [],
    writers: manifest.guest?.writers ?? [],
    pauseWindowMs: manifest.timings.pauseWindowMs,
    frozenWindowMs: manifest.timings.frozenWindowMs,
    cutMs: manifest.timings.cutMs,
    acknowledgedBefore: proof.acknowledgedBefore,
    waitedDuring: proof.waitedDuring,
    missing: proof.missing,
    foreign: proof.foreign,
    controls,
    verified,
  };
}

// A guest must not outlive its demo, but `await using` needs no help from here: QEMU dies with this process.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(128));
try {
  process.exitCode = (await demo()) ? 0 : 1;
} catch (error) {
  console.error(`demo: ${describeError(error)}`);
  process.exitCode = 1;
}
