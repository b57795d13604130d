// The six steps: how the guest is brought into each, and kept there until the fault has struck.
//   prepare, hold, release   a writer waits in that phase for a file
//   freeze                   a disk that takes no writes, with something to write: a FIFREEZE is under way
//   frozen                   the requester stays at its cut
//   thaw                     a disk that takes no writes: the others are thawed, one FITHAW is under way
import { LAB } from './lab-parts.js';
import type { Lab } from './lab.js';
import type { Requester } from './requesters.js';
import type { Step } from './timeline.js';

/** What keeps the guest in the step. */
export interface Held {
  /** Lets it go. May be called more than once. */
  letGo(): Promise<void>;
  /** A disk takes no writes until then. */
  readonly stalls: boolean;
}

const HOLDER = '20-holder';
const ARRIVAL_MS = 40_000;

async function begun(lab: Lab, phase: string): Promise<void> {
  await lab.line(`begin ${HOLDER} ${phase} `, ARRIVAL_MS);
}

async function arrived(lab: Lab, step: Step): Promise<void> {
  await lab.guest.exec([LAB, 'await', step, String(ARRIVAL_MS - 5000)], { timeoutMs: ARRIVAL_MS });
}

/** Before the requester starts: where it will be stopped on its way. */
export async function prepareStep(lab: Lab, step: Step): Promise<void> {
  if (step === 'prepare') await lab.gate(HOLDER, 'prepare');
  else await lab.gate(HOLDER, 'freeze');
  if (step === 'release') await lab.gate(HOLDER, 'thaw');
}

/** Brings the guest into the step and gives what keeps it there. */
export async function reachStep(lab: Lab, step: Step, requester: Requester): Promise<Held> {
  const held = (letGo: () => Promise<void> | void, stalls = false): Held => ({
    letGo: async () => {
      await letGo();
    },
    stalls,
  });
  const writerGoesOn = async (phase: string): Promise<void> => {
    await lab.letGo(HOLDER, phase);
  };
  if (step === 'prepare') {
    await begun(lab, 'prepare');
    return held(() => writerGoesOn('prepare'));
  }
  await begun(lab, 'freeze');
  switch (step) {
    case 'hold':
      return held(() => writerGoesOn('freeze'));
    case 'freeze': {
      await lab.makeDirty();
      const stall = await lab.stall();
      await writerGoesOn('freeze');
      await arrived(lab, step);
      return held(async () => {
        await stall[Symbol.asyncDispose]();
      }, true);
    }
    case 'frozen':
      requester.stayAtCut();
      await writerGoesOn('freeze');
      await arrived(lab, step);
      await requester.isCut();
      return held(() => {
        requester.goOn();
      });
    case 'thaw': {
      requester.stayAtCut();
      await writerGoesOn('freeze');
      await arrived(lab, 'frozen');
      await requester.isCut();
      const stall = await lab.stall();
      requester.goOn();
      await arrived(lab, step);
      return held(async () => {
        await stall[Symbol.asyncDispose]();
      }, true);
    }
    case 'release':
      requester.stayAtCut(); // so that it is known when it was
      await writerGoesOn('freeze');
      await arrived(lab, 'frozen');
      await requester.isCut();
      requester.goOn();
      await begun(lab, 'thaw');
      return held(() => writerGoesOn('thaw'));
  }
}
