// A private mount namespace with loop-mounted filesystems that may be frozen for real, and nothing of this machine:
// its root is a tmpfs, and a guard armed before anything else thaws the loops when the test ends, dies or takes too
// long (private-mounts.sh, thaw-guard.c). The unix socket of a freezer inside is reached through `shared`.
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';

const repository = new URL('../..', import.meta.url).pathname;
const env = { PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` };

export interface PrivateMount {
  readonly name: string;
  /** Inside the namespace. */
  readonly path: string;
  readonly mountId: number;
  readonly device: string;
  /** Its number for the guard. */
  readonly index: number;
}

export interface PrivateMounts extends AsyncDisposable {
  /** A tmpfs directory outside; inside it is `/shared`. */
  readonly shared: string;
  readonly mounts: readonly PrivateMount[];
  /** The command line that runs `command` inside; programs there: /bin/freezer, /bin/busybox. */
  readonly inside: (...command: readonly string[]) => [string, string[]];
  /** For a coordinator that stands outside. */
  readonly outside: {
    /** Runs the freezer inside, with its socket and its marker in `shared/run` and an RCU knob of the test's own. */
    readonly freezerPath: string;
    /** The mount table inside. */
    readonly mountinfoPath: string;
  };
  /** FIFREEZE or FITHAW by a stranger; the errno. */
  readonly stranger: (verb: 'freeze' | 'thaw', index: number) => Promise<number>;
}

export interface PrivateMountsOptions {
  /** Name and type of each filesystem. */
  readonly filesystems: Readonly<Record<string, 'ext4' | 'xfs'>>;
  /**
   * Further small ext4 whose images lie on one of the others or of those before (`on`): while that one is frozen by a
   * stranger, this one's disk does not answer.
   */
  readonly nested?: readonly { readonly name: string; readonly on: string; readonly mebibytes?: number }[];
  /** A btrfs over two images, with two subvolumes; each name is a mount point: of its root, and of one subvolume each. */
  readonly btrfs?: readonly [string, string, string];
  /** After this the guard thaws all and ends. */
  readonly boundMs: number;
}

const makeImage = async (path: string, type: 'ext4' | 'xfs', mebibytes = type === 'xfs' ? 320 : 48): Promise<void> => {
  // mkfs.xfs refuses less than 300 MB; on tmpfs only what is written counts.
  const file = await open(path, 'w');
  await file.truncate(mebibytes * 2 ** 20);
  await file.close();
  await execa(`mkfs.${type}`, ['-q', path], { env });
};

/** A btrfs over NAME.img and NAME-2.img; the smallest that mkfs.btrfs makes, and sparse. */
const makePair = async (shared: string, name: string): Promise<void> => {
  const paths = [join(shared, `${name}.img`), join(shared, `${name}-2.img`)];
  for (const path of paths) {
    const file = await open(path, 'w');
    await file.truncate(160 * 2 ** 20);
    await file.close();
  }
  await execa('mkfs.btrfs', ['-q', ...paths], { env });
};

const readMounts = async (pid: number, names: readonly string[], btrfs: readonly string[]): Promise<PrivateMount[]> => {
  const table = (await readFile(`/proc/${pid}/mountinfo`, 'utf8')).trimEnd().split('\n');
  const rows = table.map((line) => line.split(' '));
  // The guard has looked already, from inside; a second look costs nothing and freezing / would cost everything.
  for (const row of rows) {
    const [, , device = '', , point = ''] = row;
    const [type, source] = row.slice(row.indexOf('-') + 1);
    const isOwnBtrfs = btrfs.some((name) => point === `/mnt/${name}`) && source?.startsWith('/dev/loop') === true;
    if ((!device.startsWith('0:') && !device.startsWith('7:')) || (type === 'btrfs' && !isOwnBtrfs)) {
      throw new Error(`expected no block filesystem but loops in the namespace, found ${device} at ${point}`);
    }
  }
  return names.map((name, index) => {
    const path = `/mnt/${name}`;
    const row = rows.find((fields) => fields[4] === path);
    if (row === undefined) throw new Error(`expected ${path} in the namespace's mount table, found none`);
    return { name, path, index, mountId: Number(row[0]), device: row[2] ?? '' };
  });
};

/** Writes the program of `outside.freezerPath`. Paths outside are /shared inside. */
const writeFreezer = async (shared: string, inside: PrivateMounts['inside']): Promise<string> => {
  const [nsenter, words] = inside('/bin/freezer', '--no-kill', '--rcu-knob', '/shared/rcu');
  await writeFile(join(shared, 'rcu'), '0\n');
  const path = join(shared, 'freezer-inside');
  await writeFile(
    path,
    `#!/bin/sh\nmarked=\n[ "$1" = --thaw-marked ] && marked=--thaw-marked\nexec ${[nsenter, ...words].join(' ')} $marked --socket /shared/run/freezer.sock --marker /shared/run/frozen\n`,
    { mode: 0o755 },
  );
  return path;
};

/** Loop devices whose backing file lies in `folder`. */
const loopsOf = async (folder: string): Promise<string[]> => {
  const { stdout } = await execa('losetup', ['-l', '-n', '-O', 'NAME,BACK-FILE'], { env });
  // The path is shown from the root of a mount that is gone: only its last two parts can be relied on.
  return stdout.split('\n').filter((line) => line.includes(`/${basename(folder)}/`));
};

/**
 * Builds the freezer and the guard, makes the images and the namespace. Needs root, loop devices, gcc, make, unshare,
 * nsenter, busybox (static) and the mkfs programs.
 * @throws Error if anything but the test's own loops could be frozen from inside.
 */
export const privateMounts = async (options: PrivateMountsOptions): Promise<PrivateMounts> => {
  const { filesystems, nested = [], btrfs = [] } = options;
  const names = [...Object.keys(filesystems), ...nested.map(({ name }) => name), ...btrfs];
  const shared = await mkdtemp('/dev/shm/fsb-mounts-');
  const undo: (() => Promise<unknown>)[] = [() => rm(shared, { recursive: true, force: true, maxRetries: 5 })];
  const dispose = async (): Promise<void> => {
    const failures: unknown[] = [];
    for (const step of undo.splice(0).reverse()) await step().catch((error: unknown) => failures.push(error));
    if (failures.length > 0) throw new AggregateError(failures, 'the private mounts could not all be undone');
  };
  try {
    await execa('make', ['-C', join(repository, 'qga/freezer'), 'all', `OUT=${shared}`]);
    await execa(
      'gcc',
      ['-std=c11', '-Wall', '-Wextra', '-Werror', '-O2', '-static', '-s'].concat([
        '-o',
        join(shared, 'thaw-guard'),
        join(repository, 'test/support/thaw-guard.c'),
      ]),
    );
    for (const [name, type] of Object.entries(filesystems)) await makeImage(join(shared, `${name}.img`), type);
    for (const { name, mebibytes = 16 } of nested) await makeImage(join(shared, `${name}.img`), 'ext4', mebibytes);
    if (btrfs[0] !== undefined) await makePair(shared, btrfs[0]);

    const script = join(repository, 'test/support/private-mounts.sh');
    const words = [
      ...Object.keys(filesystems),
      ...nested.map(({ name, on }) => `${name}@${on}`),
      ...(btrfs.length === 0 ? [] : [btrfs.join('%')]),
    ];
    const seconds = String(Math.ceil(options.boundMs / 1000));
    const guard = execa('unshare', ['-m', '--propagation', 'private', 'sh', script, shared, seconds, ...words], {
      env,
      reject: false,
      buffer: { stdout: false },
    });
    undo.push(async () => {
      guard.stdin.end();
      await Promise.race([guard, sleep(10_000)]);
      if (guard.exitCode === null) throw new Error(`the guard (pid ${String(guard.pid)}) does not end`);
      for (let tries = 0; (await loopsOf(shared)).length > 0; tries += 1) {
        if (tries === 50) throw new Error(`loop devices are left: ${(await loopsOf(shared)).join('; ')}`);
        await sleep(100);
      }
    });
    const answers = createInterface({ input: guard.stdout })[Symbol.asyncIterator]();
    const answer = async (): Promise<string> => {
      const line = await Promise.race([answers.next(), sleep(20_000, undefined, { ref: false })]);
      if (line?.done === false) return line.value;
      const { stderr, exitCode } = await Promise.race([
        guard,
        sleep(1000).then(() => ({ stderr: '', exitCode: null })),
      ]);
      throw new Error(`expected an answer of the guard, found none (exit ${String(exitCode)}): ${stderr}`);
    };
    const ready = await answer();
    if (ready !== 'ready' || guard.pid === undefined) throw new Error(`expected the guard to be ready, found ${ready}`);
    const pid = guard.pid;
    const mounts = await readMounts(pid, names, btrfs);
    const inside: PrivateMounts['inside'] = (...command) => ['nsenter', ['-m', '-t', String(pid), '--', ...command]];
    return {
      shared,
      mounts,
      inside,
      outside: { freezerPath: await writeFreezer(shared, inside), mountinfoPath: `/proc/${pid}/mountinfo` },
      stranger: async (verb, index) => {
        guard.stdin.write(`${verb} ${index}\n`);
        return Number(await answer());
      },
      [Symbol.asyncDispose]: dispose,
    };
  } catch (error) {
    await dispose();
    throw error;
  }
};
