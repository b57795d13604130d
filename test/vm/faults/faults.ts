// The faults: how each is done at its instant, and how it is put back by whoever did it. One record per fault; what the
// guest and the label must be afterwards is matrix.ts's and judge.ts's.
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { BridgeError } from '../../../src/errors.js';
import type { GuestKind } from '../../../src/testing/index.js';
import { LAB } from './lab-parts.js';
import type { Lab, Services } from './lab.js';
import type { Requester } from './requesters.js';
import { STEPS, type Step } from './timeline.js';

/** What a fault works on. */
export interface Scene {
  readonly lab: Lab;
  readonly step: Step;
  /** Main processes before the fault. */
  readonly services: Services;
  readonly leaseMs: number;
  /** Not there yet while `arm` runs. */
  readonly requester: Requester;
  /** Called when the guest is done with, last first. */
  readonly atEnd: (undo: () => Promise<void>) => void;
}

interface Struck {
  /** Guest's time of the fault. */
  readonly ns: number;
  /** Puts back what was done: a stopped process continues, a disk takes writes. */
  readonly undo?: () => Promise<void>;
}

export interface Fault {
  /** The guest it needs: user-mode for what happens inside, QEMU for what is done to the machine or by way of its monitor. */
  readonly kind: GuestKind;
  readonly requester: 'client' | 'tool';
  /** Default: 4000 where the lease may end it, else longer. */
  readonly leaseMs?: number;
  /** Before the requester starts. */
  readonly arm?: (scene: Pick<Scene, 'lab' | 'atEnd'>) => Promise<void>;
  readonly words?: (scene: Pick<Scene, 'lab'>) => readonly string[];
  /** Does it. Throws if it could not be done. */
  readonly strike: (scene: Scene) => Promise<Struck>;
  /** How long it lasts until it is put back, by steps. Default 0. */
  readonly lastsMs?: number | Partial<Readonly<Record<Step, number>>>;
  /** In these steps it is put back (or has lasted) before the step is let go. */
  readonly holds?: readonly Step[];
  /** In these it is not put back before the guest is back. */
  readonly staysSo?: readonly Step[];
  /** Until it is put back the guest cannot be asked for anything. */
  readonly mutes?: boolean;
  /** Ends the session at once, whatever the lease. */
  readonly ends?: 'at once';
  /** The agent is gone by it, or may be when its lease ends. */
  readonly agentDies?: boolean;
  /** The guest is not what it was before, even if all is well. */
  readonly spends?: boolean;
}

const HOLDER = '20-holder';
const PHASE_OF: Partial<Readonly<Record<Step, string>>> = { prepare: 'prepare', hold: 'freeze', release: 'thaw' };
export const LEASE_MS = 4000;
/** A stopped agent goes on after this, unless the freezer has killed it at the lease's end. */
const PAUSE_MS = 2000;
const LATE_MS = LEASE_MS - 1200;
const PAST_LEASE_MS = LEASE_MS + 2500;

const signal =
  (name: 'KILL' | 'STOP', ...whom: ('agent' | 'freezer')[]): Fault['strike'] =>
  async ({ lab, services }) => {
    const pids = whom.map((each) => String(services[each]));
    const ns = await lab.strike(['signal', name, ...pids]);
    if (name === 'KILL') return { ns };
    // Whoever was stopped may be dead by then, and its number may be another's.
    const goOn = pids.map((pid) => `case $(cut -d' ' -f3 /proc/${pid}/stat) in T) kill -CONT ${pid};; esac`).join('; ');
    return {
      ns,
      undo: async () => {
        await lab.guest.exec(`{ ${goOn}; } 2>/dev/null; :`);
      },
    };
  };

async function holdOf(lab: Lab): Promise<string> {
  const hold = (await lab.timeline()).holds.find(({ writer }) => writer === HOLDER);
  if (hold === undefined) throw new BridgeError('E_FAULT_MISSED', `${HOLDER} holds nothing`);
  return String(hold.pid);
}

/** A writer misbehaves in the phase that is under way; where none is, so does the process that is its hold. */
const writer =
  (inPhase: string, toHold: (pid: string) => readonly string[]): Fault['strike'] =>
  async ({ lab, step }) => {
    const phase = PHASE_OF[step];
    if (phase === undefined || (inPhase === 'die' && step === 'release'))
      return { ns: await lab.strike([...toHold(await holdOf(lab))]) };
    return { ns: await lab.strike(['write', `/run/fsb-lab/ctl/act.${HOLDER}.${phase}`, inPhase]) };
  };
const nobody = (): never => {
  throw new BridgeError('E_FAULT_MISSED', 'no phase of a writer is under way');
};

/** What is done on the host: the guest's time is taken just before. */
async function onHost({ lab }: Scene, act: () => Promise<void> | void): Promise<number> {
  const ns = await lab.strike(['none']);
  await act();
  return ns;
}

function sure(is: boolean, otherwise: string): void {
  if (!is) throw new BridgeError('E_FAULT_MISSED', otherwise);
}

function toolOf({ requester: { tool } }: Scene) {
  if (tool === undefined) throw new BridgeError('E_FAULT_MISSED', 'the requester is not the host tool');
  return tool;
}

const SMALL_KIB = 3072;

/** A folder that takes no more than a few MiB, and no longer than the cell lasts. */
async function smallFolder(scene: Pick<Scene, 'lab' | 'atEnd'>): Promise<string> {
  const folder = path.join(scene.lab.guest.dir, 'small');
  await mkdir(folder);
  await execa('mount', ['-t', 'tmpfs', '-o', `size=${SMALL_KIB}k`, 'fsb-small', folder]);
  scene.atEnd(async () => {
    await execa('umount', ['--lazy', folder]);
  });
  return folder;
}

/** More than any reply buffer between the agent and the host takes, sixteen times over. */
export const FLOOD = `${JSON.stringify({ execute: 'guest-info' })}\n`.repeat(600);

export const foreignPlace = (what: 'freeze' | 'thaw', step: Step): string => {
  if (step === 'freeze') return '/'; // the only one that is frozen by then
  return what === 'thaw' && step === 'thaw' ? '/srv/data' : '/srv/more';
};

/** A daemon that a writer left is the writer's own, and nobody else's to end. */
export async function endDaemons(lab: Lab): Promise<void> {
  const { notes } = await lab.timeline();
  const daemons = notes.filter(([kind]) => kind === 'daemon').map(([, , , pid]) => pid);
  if (daemons.length > 0) await lab.guest.exec(`kill -KILL ${daemons.join(' ')} 2>/dev/null; :`);
}

export const faultRecords = {
  'agent SIGKILL': {
    kind: 'user-mode',
    requester: 'client',
    strike: signal('KILL', 'agent'),
    ends: 'at once',
    agentDies: true,
  },
  'agent SIGSTOP': {
    kind: 'user-mode',
    requester: 'client',
    strike: signal('STOP', 'agent'),
    lastsMs: {
      prepare: PAUSE_MS,
      hold: PAUSE_MS,
      freeze: PAST_LEASE_MS,
      frozen: PAST_LEASE_MS,
      thaw: PAUSE_MS,
      release: PAUSE_MS,
    },
    agentDies: true,
  },
  "agent's event loop blocked": {
    kind: 'user-mode',
    requester: 'client',
    strike: async ({ lab, services, step }) => {
      const ms = step === 'freeze' || step === 'frozen' ? PAST_LEASE_MS : PAUSE_MS;
      return {
        ns: await lab.strike(['block', String(services.agent), String(ms)]),
        undo: async () => {
          await Promise.resolve();
        },
      };
    },
    lastsMs: {
      prepare: PAUSE_MS,
      hold: PAUSE_MS,
      freeze: PAST_LEASE_MS,
      frozen: PAST_LEASE_MS,
      thaw: PAUSE_MS,
      release: PAUSE_MS,
    },
    agentDies: true,
  },
  'freezer SIGKILL': { kind: 'user-mode', requester: 'client', strike: signal('KILL', 'freezer'), ends: 'at once' },
  'freezer SIGSTOP': {
    kind: 'user-mode',
    requester: 'client',
    strike: signal('STOP', 'freezer'),
    // At the cut its requester asks for the thaw late: whoever waits for the freezer then must know when the lease ends.
    lastsMs: {
      prepare: PAUSE_MS,
      hold: PAUSE_MS,
      freeze: PAST_LEASE_MS,
      frozen: LATE_MS,
      thaw: PAST_LEASE_MS,
      release: PAUSE_MS,
    },
    holds: ['frozen'],
    staysSo: ['frozen'],
  },
  'both SIGKILLed together': {
    kind: 'user-mode',
    requester: 'client',
    strike: signal('KILL', 'agent', 'freezer'),
    ends: 'at once',
    agentDies: true,
  },
  'guest out of memory': {
    kind: 'user-mode',
    requester: 'client',
    leaseMs: 20_000,
    spends: true,
    arm: async ({ lab }: Pick<Scene, 'lab'>) => {
      await lab.guest.exec('swapon /srv/swap 2>/dev/null; grep -q /srv/swap /proc/swaps');
      // A unit of its own: what the kernel kills in the fixture's would be stopped as a whole.
      await lab.guest.exec(
        `systemctl reset-failed fsb-hog 2>/dev/null; systemd-run -q --unit=fsb-hog -p OOMPolicy=continue ${LAB} hog 32`,
      );
      await lab.guest.exec('until [ -e /run/fsb-lab/hog-ready ]; do sleep 0.05; done', { timeoutMs: 60_000 });
    },
    strike: async ({ lab }) => {
      const ns = await lab.strike(['write', '/run/fsb-lab/ctl/hog', 'on']);
      return {
        ns,
        undo: async () => {
          await lab.line('hogged ', 60_000);
        },
      };
    },
    holds: STEPS,
  },
  'writer hangs': { kind: 'user-mode', requester: 'client', strike: writer('hang', (pid) => ['signal', 'STOP', pid]) },
  'writer ignores SIGTERM': { kind: 'user-mode', requester: 'client', strike: writer('ignore-term', nobody) },
  'writer forks a daemon that keeps its stdout': {
    kind: 'user-mode',
    requester: 'client',
    strike: async (scene) => ({
      ...(await writer('daemon', nobody)(scene)),
      undo: async () => {
        await endDaemons(scene.lab);
      },
    }),
  },
  'writer floods stdout': {
    kind: 'user-mode',
    requester: 'client',
    strike: writer('flood', () => ['write', `/run/fsb-lab/ctl/act.${HOLDER}.held`, 'flood']),
    lastsMs: { freeze: 500, frozen: 500, thaw: 500 },
    holds: ['freeze', 'frozen', 'thaw'],
  },
  'writer dies while it holds': {
    kind: 'user-mode',
    requester: 'client',
    strike: writer('die', (pid) => ['signal', 'KILL', pid]),
  },
  'host tool SIGKILL': {
    kind: 'qemu',
    requester: 'tool',
    strike: async (scene) => ({
      ns: await onHost(scene, async () => {
        toolOf(scene).kill('SIGKILL');
        await scene.requester.done;
      }),
    }),
  },
  'host tool SIGSTOP': {
    kind: 'qemu',
    requester: 'tool',
    strike: async (scene) => {
      const tool = toolOf(scene);
      const ns = await onHost(scene, async () => {
        tool.kill('SIGSTOP');
        sure(await tool.isStopped(), 'the tool is not stopped');
      });
      return {
        ns,
        undo: async () => {
          tool.kill('SIGCONT');
          await Promise.resolve();
        },
      };
    },
    lastsMs: PAST_LEASE_MS,
  },
  'agent channel closed': {
    kind: 'qemu',
    requester: 'tool',
    strike: async (scene) => ({
      ns: await onHost(scene, () => {
        sure(toolOf(scene).channel.cut() >= 1, 'the tool has no connection to the agent');
      }),
    }),
  },
  'agent channel stalls': {
    kind: 'qemu',
    requester: 'tool',
    strike: async (scene) => {
      const { channel } = toolOf(scene);
      const ns = await onHost(scene, () => {
        channel.holdReplies();
        sure(channel.inject(FLOOD), 'the tool has no connection to the agent');
      });
      return {
        ns,
        // Nobody can be given 600 answers that it did not ask for: the stall ends as a connection that is lost.
        undo: async () => {
          channel.cut();
          channel.releaseReplies();
          await Promise.resolve();
        },
      };
    },
    lastsMs: PAST_LEASE_MS,
  },
  'monitor lost': {
    kind: 'qemu',
    requester: 'tool',
    strike: async (scene) => ({
      ns: await onHost(scene, () => {
        sure(toolOf(scene).monitor.cut() >= 1, 'the tool has no connection to the monitor');
      }),
    }),
  },
  'QEMU SIGKILL': {
    kind: 'qemu',
    requester: 'tool',
    spends: true,
    strike: async (scene) => ({
      ns: await onHost(scene, async () => {
        await scene.lab.machine.kill();
        await toolOf(scene).refuse();
      }),
    }),
  },
  'QEMU paused and continued': {
    kind: 'qemu',
    requester: 'client',
    leaseMs: LEASE_MS, // shorter than the pause: it is running time that counts
    strike: async (scene) => {
      const { machine } = scene.lab;
      const ns = await onHost(scene, async () => {
        await machine.pause();
        sure((await machine.runState()) === 'paused', 'the guest is not paused');
      });
      return {
        ns,
        undo: async () => {
          await machine.resume();
        },
      };
    },
    lastsMs: PAST_LEASE_MS,
    holds: STEPS,
    mutes: true,
  },
  'disk answers ENOSPC, or stalls': {
    kind: 'user-mode',
    requester: 'client',
    strike: async (scene) => {
      const { lab, step } = scene;
      if (step === 'freeze' || step === 'thaw') return { ns: await lab.strike(['none']) }; // it stalls already
      await lab.makeDirty();
      const stall = await lab.stall();
      return {
        ns: await lab.strike(['none']),
        undo: async () => {
          await stall[Symbol.asyncDispose]();
        },
      };
    },
    lastsMs: { prepare: PAUSE_MS, hold: PAUSE_MS, freeze: PAST_LEASE_MS, thaw: PAST_LEASE_MS, release: PAUSE_MS },
    holds: ['freeze', 'thaw'],
  },
  'foreign thaw': {
    kind: 'user-mode',
    requester: 'client',
    strike: async ({ lab, step }) => ({ ns: await lab.strike(['foreign', 'thaw', foreignPlace('thaw', step)]) }),
  },
  'foreign freeze': {
    kind: 'user-mode',
    requester: 'client',
    strike: async ({ lab, step }) => {
      const place = foreignPlace('freeze', step);
      const ns = await lab.strike(['foreign', 'freeze', place]);
      return { ns };
    },
  },
} as const satisfies Readonly<Record<string, Fault>>;

export type FaultName = keyof typeof faultRecords;
export const FAULTS = Object.keys(faultRecords) as readonly FaultName[];

/** ENOSPC at the cut is another fault than a stall, with another requester. */
const noSpaceAtCut: Fault = {
  kind: 'qemu',
  requester: 'tool',
  arm: async (scene) => {
    await smallFolder(scene);
  },
  words: ({ lab }) => ['--overlay-dir', path.join(lab.guest.dir, 'small'), '--min-free', '0'],
  strike: async (scene) => {
    const folder = path.join(scene.lab.guest.dir, 'small');
    const ns = await onHost(scene, async () => {
      await execa('sh', [
        '-c',
        `dd if=/dev/zero of=${folder}/full bs=4k 2>/dev/null; [ "$(stat -f -c %f ${folder})" = 0 ]`,
      ]);
    });
    return {
      ns,
      undo: async () => {
        await execa('mount', ['-o', 'remount,size=512m', folder]);
        const { machine } = scene.lab;
        if ((await machine.runState()) !== 'running') await machine.resume();
      },
    };
  },
  lastsMs: 1500,
  mutes: true,
  spends: true,
};

/** The fault as it is done at this step. */
export function faultAt(name: FaultName, step: Step): Fault {
  return name === 'disk answers ENOSPC, or stalls' && step === 'frozen' ? noSpaceAtCut : faultRecords[name];
}
