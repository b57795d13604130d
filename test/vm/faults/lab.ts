// The guest of the fault matrix: our agent and freezer as installed, three filesystems on two disks, two writers of the
// test's own that note every phase, a probe that writes to each filesystem. All of it is saved once and restored for
// each cell. What runs inside: test/fixtures/fault-lab/fault-lab.c.
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { BridgeError } from '../../../src/errors.js';
import { cached, hashOfFile, hasUsers, keyOf, prune } from '../../../src/testing/cache.js';
import { restoreGuest, saveState, type Guest } from '../../../src/testing/index.js';
import { agentState } from '../../support/agent-guest.js';
import { parseTimeline, type Timeline } from './timeline.js';

const SOURCE = fileURLToPath(new URL('../../fixtures/fault-lab/fault-lab.c', import.meta.url));
const THIS = fileURLToPath(import.meta.url);
const BUILD_LIMIT_MS = 400_000;
const HOOKS = '/etc/fsfreeze-bridge/fsfreeze-hook.d';
export const LAB = '/usr/local/bin/fault-lab';

/** Where the probe writes: ext4 on the root disk, ext4 and xfs on two halves of the other one. */
export const DIRECTORIES = ['/', '/srv/data', '/srv/more'] as const;
/** The one in the middle is resident: it holds while its input is open. */
export const WRITERS = ['10-bystander', '15-resident', '20-holder'] as const;
export type WriterName = (typeof WRITERS)[number];
export const RESIDENT = '15-resident';
/** Milliseconds a phase of the writers may take. */
export const WRITER_LIMITS_MS = { prepare: 5000, freeze: 6000, verify: 2000, thaw: 4000 } as const;

const descriptionOf = (writer: WriterName): string =>
  JSON.stringify({
    ...(writer === RESIDENT ? { resident: true } : {}),
    phases: ['prepare', 'freeze', 'verify', 'thaw'],
    rank: Number.parseInt(writer, 10),
    guarantee: 'held',
    timeout: Object.fromEntries(Object.entries(WRITER_LIMITS_MS).map(([phase, ms]) => [phase, ms / 1000])),
  });

// The second disk gets a table of two partitions; its swap file lies on a filesystem that is frozen with the others.
const SETUP = `set -e
systemctl stop postgresql@15-main postgresql 2>/dev/null || :
systemctl mask --runtime postgresql@15-main >/dev/null 2>&1 || :
umount /srv/data
perl -e 'print "\\0" x 446, pack("C8V2", 0,0,0,0, 0x83,0,0,0, 2048, 1046528), pack("C8V2", 0,0,0,0, 0x83,0,0,0, 1048576, 1048576), "\\0" x 32, "\\x55\\xaa"' >/dev/vdb
blockdev --rereadpt /dev/vdb; udevadm settle
mkfs.ext4 -qF -E lazy_itable_init=0,lazy_journal_init=0 /dev/vdb1; mkfs.xfs -qf /dev/vdb2
mkdir -p /srv/more; mount /dev/vdb1 /srv/data; mount /dev/vdb2 /srv/more
fallocate -l 48M /srv/swap; chmod 600 /srv/swap; mkswap -q /srv/swap
install -m 755 /run/fsb-in/fault-lab ${LAB}
for writer in ${WRITERS.join(' ')}; do install -m 755 /run/fsb-in/fault-lab ${HOOKS}/$writer; done
install -m 644 /run/fsb-in/*.json ${HOOKS}
ln -sf /dev/null ${HOOKS}/50-postgresql
mkdir -p /run/fsb-lab/ctl; : >/run/fsb-lab/timeline
rm -r /run/fsb-in; sync`;

let state: Promise<string> | undefined;

/** The saved state of that guest. Slow once per build of the agent. */
export async function labState(): Promise<string> {
  return await (state ??= buildLabState());
}

async function buildLabState(): Promise<string> {
  const base = await agentState();
  const name = `faults-${keyOf(path.basename(base), await hashOfFile(SOURCE), await hashOfFile(THIS))}`;
  const directory = await cached('states', name, BUILD_LIMIT_MS, async (building) => {
    await using guest = await restoreGuest(base);
    const files = path.join(guest.dir, 'lab');
    await mkdir(files);
    const flags = ['-O2', '-std=gnu11', '-Wall', '-Wextra', '-Werror', '-static', '-pthread'];
    await execa('gcc', [...flags, '-o', path.join(files, 'fault-lab'), SOURCE], { timeout: 60_000 });
    const sources = [path.join(files, 'fault-lab')];
    for (const writer of WRITERS) {
      const file = path.join(files, `${writer}.json`);
      await writeFile(file, descriptionOf(writer));
      sources.push(file);
    }
    await guest.copyIn(sources, '/run/fsb-in');
    await guest.exec(SETUP, { timeoutMs: 120_000 });
    await guest.start([LAB, 'watch', ...DIRECTORIES]);
    await guest.exec(`until [ "$(${LAB} look | grep -c last)" = ${DIRECTORIES.length} ]; do sleep 0.1; done`);
    await guest.exec('sync; sleep 1');
    await saveState(guest, building);
  });
  await prune('states', 'faults-', 2, async (old) => old === directory || (await hasUsers(old)));
  return directory;
}

export interface Services {
  readonly agent: number;
  readonly freezer: number;
}

export class Lab implements AsyncDisposable {
  readonly guest: Guest;
  #sets = 0;

  private constructor(guest: Guest) {
    this.guest = guest;
  }

  static async restore(): Promise<Lab> {
    return new Lab(await restoreGuest(await labState()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.guest[Symbol.asyncDispose]();
  }

  /** A name for the next set of its disks. */
  nextSet(): string {
    return `cell-${++this.#sets}`;
  }

  /** The only processes of the two units. Throws BridgeError when there are others, or one is missing. */
  async services(): Promise<Services> {
    const of = (unit: string): string => `/sys/fs/cgroup/system.slice/${unit}.service/cgroup.procs`;
    const { stdout } = await this.guest.exec(['/bin/cat', of('fsfreeze-agent'), of('fsfreeze-freezer')]);
    const [agent, freezer, ...more] = stdout.split('\n').filter(Boolean).map(Number);
    if (agent === undefined || freezer === undefined || more.length > 0)
      throw new BridgeError(
        'E_NO_PROCESS',
        `expected agent and freezer, found processes ${stdout.replaceAll('\n', ' ')}`,
      );
    return { agent, freezer };
  }

  /** The guest's running time, in nanoseconds. */
  async nowNs(): Promise<number> {
    return Number((await this.guest.exec([LAB, 'now'])).stdout);
  }

  /** Lets this phase of this writer wait from now on; `letGo` ends it. */
  async gate(writer: WriterName, phase: string): Promise<void> {
    await this.guest.exec(`: >/run/fsb-lab/ctl/wait.${writer}.${phase}`);
  }

  async letGo(writer: WriterName, phase: string): Promise<void> {
    await this.guest.exec(['/bin/rm', '-f', `/run/fsb-lab/ctl/wait.${writer}.${phase}`]);
  }

  async timeline(): Promise<Timeline> {
    return parseTimeline(await this.rawTimeline());
  }

  async rawTimeline(): Promise<string> {
    return (await this.guest.exec(`cat /run/fsb-lab/timeline; ${LAB} look`)).stdout;
  }

  /** Begins anew in a guest that was used before: an empty timeline, writers that behave. */
  async begin(): Promise<void> {
    await this.guest.exec(
      'rm -f /run/fsb-lab/ctl/* /run/fsb-lab/hog-ready /run/fsb-lab/struck; : >/run/fsb-lab/timeline',
    );
  }

  /** Leaves a strike waiting in the guest; `hasStruck` tells when it was done. */
  async armStrike(words: readonly string[]): Promise<void> {
    const line = words.map((word) => `'${word}'`).join(' ');
    const run = `setsid ${LAB} strike ${line} >/run/fsb-lab/struck 2>&1 </dev/null & echo $! >/run/fsb-lab/striker`;
    await this.guest.exec(`${run}; ${LAB} line 10000 'armed '`);
  }

  async disarmStrike(): Promise<void> {
    await this.guest.exec('kill -KILL $(cat /run/fsb-lab/striker) 2>/dev/null; rm -f /run/fsb-lab/striker; :');
  }

  /** A strike was done, or a writer has misbehaved. */
  async hasStruck(): Promise<boolean> {
    const { exitCode } = await this.guest.exec([LAB, 'line', '40', 'shot ', 'act '], { check: false });
    return exitCode === 0;
  }

  /** Waits until a line of the timeline begins so. */
  async line(begin: string, limitMs: number): Promise<void> {
    await this.guest.exec([LAB, 'line', String(limitMs), begin], { timeoutMs: limitMs + 10_000 });
  }

  /** Strikes in the guest: gives the instant. Throws when it could not be done. */
  async strike(words: readonly string[]): Promise<number> {
    const { stdout } = await this.guest.exec([LAB, 'strike', ...words], { timeoutMs: 90_000 });
    return Number(stdout);
  }
}
