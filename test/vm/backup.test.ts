// Backups of a real guest: a PostgreSQL under load, with its WAL on another disk than its data, is backed up in full and
// then incrementally, and each run is restored, booted and compared with what its clients remember; one of them is started
// from the repository instead. The tool boots runs itself, too, and tells those apart in which something was destroyed.
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { BootVerdict } from '../../src/host/repository/boot-verdict.js';
import type { RunManifest } from '../../src/host/repository/run-manifest.js';
import { QmpClient } from '../../src/qmp/client.js';
import type { QemuGuest } from '../../src/testing/index.js';
import { amcheckFaults, bootCut, compareContents, refusalOf } from '../../vm-images/demo/database.js';
import { startLoad, type Load } from '../../vm-images/demo/load.js';
import { agentGuest, agentState, bridge, bridgeResult, toolProcess } from '../support/agent-guest.js';
import { requires } from '../support/requires.js';

const BUILD_LIMIT_MS = 500_000;
/** Of the runs. */
const STARTED = 1;
const GUEST_PORT = 5432;
/** Where others use the processors as well. */
const BOOT_LIMIT_MS = 400_000;

async function moreTransactions(load: Load, count: number): Promise<void> {
  const goal = load.transactions.length + count;
  while (load.transactions.length < goal) await sleep(20);
}

let guest: QemuGuest;
let repository: string;
const runs: RunManifest[] = [];

async function backUp(...words: readonly string[]): Promise<RunManifest> {
  const made = await bridge(guest, ['backup', 'run', '--to', repository, ...words, '--require', 'application']);
  const said = `${made.stderr}\n${JSON.stringify((made.json as Partial<RunManifest> | undefined)?.evidence)}`;
  expect(made, said).toMatchObject({ exitCode: 0, json: { level: 'application', completion: { outcome: 'ok' } } });
  return made.json as RunManifest;
}

/** The rates that the jobs of the guest's disks had meanwhile, in bytes per second. */
async function ratesWhile(work: () => Promise<void>): Promise<ReadonlySet<number>> {
  const rates = new Set<number>();
  let isOver = false;
  const looking = async (): Promise<void> => {
    while (!isOver) {
      const jobs = (await guest.monitor.execute('query-block-jobs')) as readonly { readonly speed: number }[];
      for (const { speed } of jobs) rates.add(speed);
      await sleep(50);
    }
  };
  const ending = async (): Promise<void> => {
    try {
      await work();
    } finally {
      isOver = true;
    }
  };
  await Promise.all([looking(), ending()]);
  return rates;
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
  'mmdebstrap',
)('backups of a guest', () => {
  beforeAll(async () => {
    await agentState();
    guest = await agentGuest();
    repository = path.join(guest.dir, 'repository');
    await startsByItself();
  }, BUILD_LIMIT_MS);
  afterAll(async () => {
    await guest[Symbol.asyncDispose]();
  });

  test('hold what was acknowledged before their freeze, and nothing from after the thaw', async () => {
    const load = await startLoad(guest.postgresPort, 4);
    const rates = await ratesWhile(async () => {
      for (const mode of ['--full', '--incremental', '--incremental']) {
        await moreTransactions(load, 300);
        runs.push(await backUp(mode));
      }
    });
    // The guest writes: copying follows it.
    expect(rates.size).toBeGreaterThan(1);
    expect(runs.flatMap(({ monitorLog }) => monitorLog).map(({ command }) => command)).not.toContain('job-finalize');
    await moreTransactions(load, 100);
    await load.stop();
    const sizes = runs.map(({ disks }) => disks.reduce((sum, { copiedBytes }) => sum + copiedBytes, 0));
    expect(Math.max(...sizes.slice(1))).toBeLessThan((sizes[0] ?? 0) / 4);
    const verified = await bridgeResult(toolProcess(['backup', 'verify', '--repo', repository]));
    expect(verified).toMatchObject({ exitCode: 0 });

    for (const [index, { run, timings, disks }] of runs.entries()) {
      const target = path.join(guest.dir, `restored-${index}`);
      const { freezeRequestedMs = NaN, thawAnsweredMs = NaN } = timings.marks;
      const contents = (port: number) => compareContents(port, load.transactions, freezeRequestedMs, thawAnsweredMs);
      if (index === STARTED) {
        await using started = await startVm(run, target);
        expect(await soon(() => contents(started.postgresPort))).toMatchObject({ missing: 0, foreign: 0 });
        continue;
      }
      const restored = await bridgeResult(toolProcess(['backup', 'restore', run, target, '--from', repository]));
      expect(restored).toMatchObject({ exitCode: 0 });
      const image = (serial: string) => {
        const disk = disks.find((each) => each.serial === serial);
        return { file: path.join(target, disk?.file.name ?? ''), format: 'qcow2' as const };
      };
      await using booted = await bootCut({ root: image('root'), data: image('data') });
      expect(await refusalOf(booted)).toBeUndefined();
      const known = await contents(booted.postgresPort);
      expect(known).toMatchObject({ missing: 0, foreign: 0 });
      expect(known.acknowledgedBefore).toBeGreaterThanOrEqual(300 * (index + 1));
      expect(await amcheckFaults(booted)).toBe('');
    }
  }, 900_000);

  test('start by themselves, and one whose cluster or root is destroyed is told apart and ends its chain', async () => {
    const [, damaged, good] = runs;
    if (damaged === undefined || good === undefined) throw new Error('expected three runs');
    const question = [
      '--run',
      `runuser -u postgres -- psql -d demo -Atc 'select count(*) from ledger'`,
      '--expect',
      '^[1-9]',
    ];
    // The increment after it holds this block, too, and is as good as before.
    const offset = await offsetOf(`${guest.image.postgresql.data}/global/pg_control`);
    await destroy(damaged, 'root', offset, '4k');
    const before = sumsOf(repository);
    const [passed, noCluster] = await Promise.all([
      boot(good, ...question, '--check-timeout', '300'),
      // What it lacks does not come by waiting.
      boot(damaged, ...question, '--check-timeout', '30'),
    ]);
    expect(passed, passed.text).toMatchObject({ exitCode: 0, boot: { problems: [], notes: [] } });
    expect(passed.boot.checks.map(({ what, passed: isGood }) => [what, isGood])).toEqual([
      ['filesystems', true],
      ['writers', true],
      [question[1], true],
      ['kernel messages', true],
    ]);
    expect(noCluster.exitCode, noCluster.text).toBe(10);
    expect(noCluster.boot.problems.join('; ')).toMatch(
      /writers: 50-postgresql was verified in the backup, and is .*; runuser/,
    );
    expect(sumsOf(repository)).toEqual(before);

    const next = await backUp();
    for (const disk of next.disks) {
      expect(disk).toMatchObject({ kind: 'full' });
      expect(disk.why).toContain(`run ${damaged.run} failed its boot test (`);
    }
    await destroy(next, 'root', 0, '64k');
    const noRoot = await boot(next);
    expect(noRoot.exitCode, noRoot.text).toBe(10);
    expect(noRoot.boot.problems).toEqual(['the guest powered off, restarted or panicked before its agent answered']);
    expect(noRoot.boot.notes.join()).toMatch(/its console ends with: .*root/);
    expect(noRoot.boot.agentMs).toBeUndefined();
    const time = ({ boot: { agentMs, testMs } }: Booted): string => `${agentMs ?? 'no'} of ${testMs} ms`;
    console.log(`agent of: sound ${time(passed)}, no cluster ${time(noCluster)}, no root ${time(noRoot)}`);
  }, 900_000);
});

/** Starts the run to stay, with the guest's ports on this host; its images are whole then. */
async function startVm(run: string, target: string): Promise<AsyncDisposable & { readonly postgresPort: number }> {
  const network = ['-netdev', `user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:0-:${GUEST_PORT}`];
  const words = [...network, '-device', 'virtio-net-pci,netdev=net0,romfile='].map((word) => `--qemu-arg=${word}`);
  // This host knows nothing of the VM that was backed up, and still runs.
  const state = ['--state-dir', path.join(guest.dir, 'state-of-another-host')];
  const given = ['--from', repository, '--start', '--accel', 'tcg', ...state, ...words];
  const { exitCode, json, stderr } = await bridgeResult(
    toolProcess(['backup', 'restore', run, target, ...given], { timeoutMs: BOOT_LIMIT_MS }),
  );
  const { pid = 0, agentMs, startMs, streamMs, disks = [] } = json as Started;
  try {
    expect(exitCode, stderr).toBe(0);
    expect(agentMs).toBeGreaterThan(0);
    for (const { file } of disks) {
      const { stdout } = await execa('qemu-img', ['info', '-U', '--output=json', file]);
      expect(JSON.parse(stdout)).not.toHaveProperty('backing-filename');
    }
    console.log(
      `started after ${startMs ?? NaN} ms, agent ${agentMs ?? NaN} ms later, copied in ${streamMs ?? NaN} ms`,
    );
    await using monitor = await QmpClient.connect(path.join(target, 'qmp.sock'));
    const ports = await monitor.execute('human-monitor-command', { 'command-line': 'info usernet' });
    const [, port] = /HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)/.exec(String(ports)) ?? [];
    const end = (): Promise<void> => {
      process.kill(pid, 'SIGKILL');
      return Promise.resolve();
    };
    return { postgresPort: Number(port), [Symbol.asyncDispose]: end };
  } catch (error) {
    if (pid > 0) process.kill(pid, 'SIGKILL');
    throw error;
  }
}

interface Started {
  readonly pid?: number;
  readonly startMs?: number;
  readonly agentMs?: number;
  readonly streamMs?: number;
  readonly disks?: readonly { readonly file: string }[];
}

/** What it gives, once it does: the agent answers before the last application has started. */
async function soon<T>(ask: () => Promise<T>): Promise<T> {
  for (const endMs = performance.now() + 120_000; ;) {
    try {
      return await ask();
    } catch (error) {
      if (performance.now() > endMs) throw error;
      await sleep(500);
    }
  }
}

/** PostgreSQL starts with the guest, and the agent runs commands for the host. */
async function startsByItself(): Promise<void> {
  await guest.exec(
    `systemctl enable ${guest.image.postgresql.unit} &&
     printf '[bridge]\\npolicy=full\\n' >>/etc/qemu/qemu-ga.conf && sync`,
  );
}

interface Booted {
  readonly exitCode: number | undefined;
  readonly boot: BootVerdict;
  readonly text: string;
}

async function boot({ run }: RunManifest, ...words: readonly string[]): Promise<Booted> {
  const given = ['--boot', '--no-sums', '--accel', 'tcg', '--scratch', guest.dir, ...words];
  const { exitCode, json, stderr } = await bridgeResult(
    toolProcess(['backup', 'verify', run, '--repo', repository, ...given], { timeoutMs: BOOT_LIMIT_MS }),
  );
  const [judged] = (json as { runs?: { boot: BootVerdict }[] }).runs ?? [];
  const text = `${JSON.stringify(json)} ${stderr}`;
  if (judged === undefined) throw new Error(`not booted: ${text}`);
  return { exitCode, boot: judged.boot, text };
}

/** Where on its disk the file of the root filesystem begins, in bytes. */
async function offsetOf(file: string): Promise<number> {
  const { stdout } = await guest.exec(`filefrag -v ${file}`);
  const block = /^\s*0:\s+0\.\.\s*\d+:\s+(\d+)\.\./m.exec(stdout)?.[1];
  if (block === undefined) throw new Error(`expected an extent, found ${stdout}`);
  return Number(block) * 4096;
}

/** Writes other bytes into what a run holds of a disk; they have a place in its own file already. */
async function destroy({ run, disks }: RunManifest, serial: string, offset: number, length: string): Promise<void> {
  const disk = disks.find((each) => each.serial === serial);
  const [key = ''] = readdirSync(repository).filter((name) => existsSync(path.join(repository, name, run)));
  const file = path.join(repository, key, run, disk?.file.name ?? '');
  chmodSync(file, 0o600);
  const { size } = statSync(file);
  await execa('qemu-io', ['-f', 'qcow2', '-c', `write -P 0xa5 ${offset} ${length}`, file]);
  expect(statSync(file).size).toBe(size);
}

/** Of every file of every run, by name. */
function sumsOf(folder: string): Readonly<Record<string, string>> {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => !/(^|\/)(locks|booted|verified)(\/|$)/.test(name))
    .filter((name) => statSync(path.join(folder, name)).isFile());
  return Object.fromEntries(
    files.map((name) => [
      name,
      createHash('sha256')
        .update(readFileSync(path.join(folder, name)))
        .digest('hex'),
    ]),
  );
}
