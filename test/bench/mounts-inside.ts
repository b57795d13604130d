// What bench -- mounts runs in a mount namespace and a process namespace of its own: makes the mounts, plans a session as
// the agent does, looks again as it does while writers are held, and prints one line of JSON. Freezes nothing: it has no
// freezer.
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate, setTimeout } from 'node:timers/promises';
import { silentLog } from '../../src/freeze/options.js';
import { StepClock } from '../../src/freeze/judgement/report.js';
import { Outcome } from '../../src/freeze/session/ending.js';
import { SessionFindings } from '../../src/freeze/session/findings.js';
import { withDefaults } from '../../src/freeze/settings.js';

export interface MountsFigures {
  readonly mounts: number;
  readonly namespaces: number;
  /** Milliseconds. `loop`: processor time of this process between two turns of its event loop, `wall` on the clock. */
  readonly plan: { readonly cpu: number; readonly loop: number; readonly wall: number };
  /** The same where a driver has superblocks that sysfs does not list: every namespace is read. */
  readonly planOfAll: MountsFigures['plan'];
  /** Milliseconds on the clock, of the look while writers are held. */
  readonly unchanged: readonly number[];
  readonly oneTmpfsMore: readonly number[];
  readonly oneBindMore: readonly number[];
  /** Milliseconds of processor time, of the look after the release. */
  readonly last: number;
  readonly heapMiB: number;
}

const [dir = '', mountsText = '', namespacesText = ''] = process.argv.slice(2);
const wanted = { mounts: Number(mountsText), namespaces: Number(namespacesText) };

const run = (file: string, ...words: readonly string[]): void => {
  execFileSync(file, words, { stdio: ['ignore', 'ignore', 'inherit'] });
};

/** A tree of 200 bind mounts, and copies of it: `mount` is started a few hundred times, and not 40,000. */
function makeMounts(): void {
  const image = join(dir, 'image');
  run('truncate', '-s', '16M', image);
  run('mkfs.ext4', '-q', image);
  const jail = join(dir, 'jail');
  mkdirSync(jail);
  run('mount', '-o', 'loop', image, jail);
  mkdirSync(join(jail, 'source'));
  const each = Math.min(200, wanted.mounts);
  for (let copy = 0; copy < wanted.mounts / each; copy++) {
    const folder = join(jail, `user${copy}`);
    mkdirSync(folder);
    if (copy > 0) {
      run('mount', '--rbind', join(jail, 'user0'), folder);
      continue;
    }
    run('mount', '--bind', folder, folder);
    for (let place = 1; place < each; place++) {
      mkdirSync(join(folder, `lib${place}`));
      run('mount', '--bind', join(jail, 'source'), join(folder, `lib${place}`));
    }
  }
}

async function makeNamespaces(): Promise<void> {
  for (let one = 0; one < wanted.namespaces; one++) {
    const { pid } = spawn('unshare', ['--mount', '--propagation', 'private', 'sleep', 'infinity'], { stdio: 'ignore' });
    const own = readlinkSync('/proc/self/ns/mnt');
    while (readlinkSync(`/proc/${pid ?? 0}/ns/mnt`) === own) await setTimeout(10);
  }
}

async function measured(work: () => Promise<void>): Promise<MountsFigures['plan']> {
  const cpuMs = (): number => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1000;
  };
  let [loop, wall, isOver] = [0, 0, false];
  const watch = async (): Promise<void> => {
    while (!isOver) {
      const [cpu, at] = [cpuMs(), performance.now()];
      await setImmediate();
      loop = Math.max(loop, cpuMs() - cpu);
      wall = Math.max(wall, performance.now() - at);
    }
  };
  const watching = watch();
  const before = cpuMs();
  await work();
  const cpu = cpuMs() - before;
  isOver = true;
  await watching;
  return { cpu, loop, wall };
}

/** As the agent has it: one coordinator's settings for many sessions. */
const settings = withDefaults({ runtimeDir: dir, writerFolders: [] });

function findings(): SessionFindings {
  const request = { requester: 'bench', require: 'filesystem', leaseMs: 10_000 } as const;
  const head = { id: 'bench', request, leaseMs: 10_000, clock: new StepClock(() => performance.now()) };
  return new SessionFindings(settings, head, new Outcome('bench', silentLog));
}

async function plan(session: SessionFindings): Promise<void> {
  const { filesystems } = await session.plan();
  if (filesystems.mountpoints.length < wanted.mounts) throw new Error('not all mounts were seen');
}

async function second(session: SessionFindings): Promise<number[]> {
  const samples: number[] = [];
  for (let round = 0; round < 5; round++) {
    const startMs = performance.now();
    await session.lookAgain();
    samples.push(performance.now() - startMs);
  }
  return samples;
}

// Where systemd has it; without it nobody knows what FUSE mounts there are, and every namespace is asked.
run('mount', '-t', 'fusectl', 'fusectl', '/sys/fs/fuse/connections');
makeMounts();
await makeNamespaces();
const first = findings();
const planned = await measured(async () => {
  await plan(first);
});
const made = readFileSync('/proc/filesystems', 'latin1');
writeFileSync(join(dir, 'filesystems'), `${made}\tvfat\n`);
run('mount', '--bind', join(dir, 'filesystems'), '/proc/filesystems');
// Other than the first saw it, so that all is looked at anew.
run('mount', '-t', 'tmpfs', 'tmpfs', '/mnt');
const session = findings();
const planOfAll = await measured(async () => {
  await plan(session);
});
const unchanged = await second(session);
run('mount', '-t', 'tmpfs', 'tmpfs', '/mnt');
const oneTmpfsMore = await second(session);
run('mount', '--bind', join(dir, 'jail'), '/mnt');
const oneBindMore = await second(session);
const { cpu: last } = await measured(async () => {
  await session.released();
});
const heapMiB = process.memoryUsage().heapUsed / 1024 / 1024;
const figures: MountsFigures = {
  ...wanted,
  plan: planned,
  planOfAll,
  unchanged,
  oneTmpfsMore,
  oneBindMore,
  last,
  heapMiB,
};
process.stdout.write(`${JSON.stringify(figures)}\n`, () => {
  // Of a process namespace's first process: all others end with it.
  process.exit(0);
});
