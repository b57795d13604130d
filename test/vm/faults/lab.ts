// A guest of the fault matrix: our agent and freezer as installed, three filesystems on two disks, two writers of the
// test's own that note every phase, a probe that writes to each filesystem. Which kind a fault needs is faults.ts's
// matter, what is inside lab-parts.ts's. What runs inside: test/fixtures/fault-lab/fault-lab.c.
import { BridgeError, UsageError } from '../../../src/errors.js';
import type { Guest, GuestKind } from '../../../src/testing/index.js';
import { QemuGuest } from '../../../src/testing/qemu/qemu-guest.js';
import { LAB, type WriterName } from './lab-parts.js';
import { labState, qemuLab } from './lab-qemu.js';
import { labImage, userModeLab } from './lab-user-mode.js';
import { parseTimeline, type Timeline } from './timeline.js';

/** A guest with all that the lab needs in it, and how its kind does what is done from outside. */
export interface LabGuest {
  readonly guest: Guest;
  /** The second disk takes no more writes until that is disposed of; reads and flushes go on. */
  stall(): Promise<AsyncDisposable>;
  /** The same, but not before the guest is told, and at once then. */
  readonly armStall?: () => Promise<ArmedStall>;
}

export interface ArmedStall {
  /** For `strike`. */
  readonly words: readonly string[];
  readonly letGo: () => Promise<void>;
}

const MAKERS: Readonly<Record<GuestKind, () => Promise<LabGuest>>> = { qemu: qemuLab, 'user-mode': userModeLab };

/** Builds what labs are made from, of each kind. Slow once per build of the agent. */
export async function prepareLabs(): Promise<void> {
  await labImage();
  await labState();
}

export interface Services {
  readonly agent: number;
  readonly freezer: number;
}

export class Lab implements AsyncDisposable {
  readonly guest: Guest;
  readonly #made: LabGuest;
  #sets = 0;

  private constructor(made: LabGuest) {
    this.guest = made.guest;
    this.#made = made;
  }

  static async restore(kind: GuestKind): Promise<Lab> {
    return new Lab(await MAKERS[kind]());
  }

  /** The guest, for what needs its monitor. Throws UsageError `E_CAPABILITY` for a kind without one. */
  get machine(): QemuGuest {
    const { guest } = this;
    guest.requires('monitor');
    if (!(guest instanceof QemuGuest)) throw new Error('a guest with a monitor is one in QEMU');
    return guest;
  }

  /**
   * Leaves something to write, for a FIFREEZE to wait for. Before the disk is stalled: a journal that cannot be written
   * stops whoever makes more. Little: a guest without memory waits for pages that are under way.
   */
  async makeDirty(): Promise<void> {
    await this.guest.exec('dd if=/dev/zero of=/srv/data/dirty bs=1M count=1 conv=notrunc 2>/dev/null');
  }

  /** The second disk takes no more writes until that is disposed of; reads and flushes go on. */
  async stall(): Promise<AsyncDisposable> {
    return await this.#made.stall();
  }

  /** The same, but when the guest is told. Throws UsageError for a kind whose disks are stalled from outside alone. */
  async armStall(): Promise<ArmedStall> {
    const { armStall } = this.#made;
    if (armStall === undefined)
      throw new UsageError(
        'E_CAPABILITY',
        `a disk of a guest of kind ${this.guest.kind} is stalled from outside alone`,
      );
    return await armStall();
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
    const files = `${of('fsfreeze-agent')} ${of('fsfreeze-freezer')}`;
    // The child that passes the agent's word to the watchdog is none that a fault is done to.
    const others = 'read -r name </proc/$pid/comm && [ "$name" = agent-heartbeat ] || echo $pid';
    const { stdout } = await this.guest.exec(`for pid in $(cat ${files}); do ${others}; done`);
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
    return (await this.guest.exec([LAB, 'look'])).stdout;
  }

  /** Begins anew in a guest that was used before: an empty timeline, writers that behave. */
  async begin(): Promise<void> {
    await this.guest.exec('cd /run/fsb-lab; rm -f ctl/* hold.* tried.* hog-ready struck; : >timeline');
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
