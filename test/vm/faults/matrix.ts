// The matrix as data: for each fault and step what the requester may be told, or why the cell cannot exist.
import type { GuestKind } from '../../../src/testing/index.js';
import { faultAt, FAULTS, type FaultName } from './faults.js';
import { STEPS, type Step } from './timeline.js';

/**
 * What the requester is told in the end:
 * application, filesystem   exactly this: the fault does not hurt, or costs just that much
 * up to ...                 this at most, or nothing
 * nothing                   no level at all: it was told that there is nothing to use
 */
export type Told = 'application' | 'filesystem' | 'up to application' | 'up to filesystem' | 'up to crash' | 'nothing';

export type Cell = { readonly told: Told } | { readonly reason: string };

const A: Cell = { told: 'application' };
const F: Cell = { told: 'filesystem' };
const upA: Cell = { told: 'up to application' };
const upC: Cell = { told: 'up to crash' };
const none: Cell = { told: 'nothing' };

const noPhase: Cell = {
  reason: 'no phase of a writer runs between the first FIFREEZE and the last FITHAW: there is none that could',
};
const noHold: Cell = { reason: 'in prepare nothing is held yet: there is no hold that could die' };
// Both take s_umount, and so do ours.
const thawWaits: Cell = {
  reason: 'a FITHAW waits in the kernel until ours has returned, and finds nothing frozen then',
};
const freezeWaits: Cell = {
  reason: 'a FIFREEZE waits in the kernel until our call has returned: then it is the one of the next step',
};
const notFrozen: Cell = { reason: 'nothing is frozen: a FITHAW answers EINVAL and changes nothing' };

const rows: Readonly<Record<FaultName, readonly [Cell, Cell, Cell, Cell, Cell, Cell]>> = {
  //                              prepare    hold       freeze   frozen   thaw     release
  'agent SIGKILL': [none, none, none, upC, upC, upA],
  'agent SIGSTOP': [A, A, upC, upC, upA, A],
  "agent's event loop blocked": [A, A, upC, upC, upA, A],
  'freezer SIGKILL': [none, none, none, upC, upC, A],
  'freezer SIGSTOP': [A, A, upC, upC, upC, A],
  'both SIGKILLed together': [none, none, none, upC, upC, upA],
  'guest out of memory': [upA, upA, upA, upA, upA, upA],
  // A writer that did not let go counts as failed, whatever it had held.
  'writer hangs': [F, F, F, F, F, F],
  'writer ignores SIGTERM': [F, F, noPhase, noPhase, noPhase, F],
  'writer forks a daemon that keeps its stdout': [A, A, noPhase, noPhase, noPhase, A],
  'writer floods stdout': [upA, upA, upA, upA, upA, upA],
  'writer dies while it holds': [noHold, F, F, F, F, A],
  'host tool SIGKILL': [none, none, none, none, none, none],
  'host tool SIGSTOP': [upC, upC, upC, upC, upA, upA],
  'agent channel closed': [upC, upC, upC, upA, upA, upA],
  'agent channel stalls': [upC, upC, upC, upC, upA, upA],
  'monitor lost': [none, none, none, upC, upA, upA],
  'QEMU SIGKILL': [none, none, none, upC, upC, upC],
  'QEMU paused and continued': [A, A, A, A, A, A],
  'disk answers ENOSPC, or stalls': [A, A, upC, upA, upC, A],
  'foreign thaw': [notFrozen, notFrozen, upC, upC, thawWaits, notFrozen],
  'foreign freeze': [upC, upC, freezeWaits, A, freezeWaits, A],
};

export function cellOf(fault: FaultName, step: Step): Cell {
  const cell = rows[fault][STEPS.indexOf(step)];
  if (cell === undefined) throw new Error(`no cell ${fault} at ${step}`);
  return cell;
}

export interface CellName {
  readonly fault: FaultName;
  readonly step: Step;
}

/** A cell, and the guest it is done in. */
export interface CellRun extends CellName {
  readonly kind: GuestKind;
}

/** In the guest that the fault needs. */
export function runOf({ fault, step }: CellName): CellRun {
  return { fault, step, kind: faultAt(fault, step).kind };
}

/** What happens inside a guest happens in both kinds alike: it is shown in QEMU once. */
export const ALSO_IN_QEMU: CellRun = { fault: 'agent SIGKILL', step: 'frozen', kind: 'qemu' };

/** All 132, row by row. */
export const ALL_CELLS: readonly CellName[] = FAULTS.flatMap((fault) => STEPS.map((step) => ({ fault, step })));

export const RUN_CELLS: readonly CellName[] = ALL_CELLS.filter(({ fault, step }) => 'told' in cellOf(fault, step));

/** The most telling step of each fault: what `npm test` runs. */
export const TELLING: Readonly<Record<FaultName, Step>> = {
  'agent SIGKILL': 'frozen',
  'agent SIGSTOP': 'frozen',
  "agent's event loop blocked": 'freeze',
  'freezer SIGKILL': 'freeze',
  'freezer SIGSTOP': 'frozen',
  'both SIGKILLed together': 'frozen',
  'guest out of memory': 'frozen',
  'writer hangs': 'release',
  'writer ignores SIGTERM': 'hold',
  'writer forks a daemon that keeps its stdout': 'hold',
  'writer floods stdout': 'frozen',
  'writer dies while it holds': 'frozen',
  'host tool SIGKILL': 'frozen',
  'host tool SIGSTOP': 'frozen',
  'agent channel closed': 'frozen',
  'agent channel stalls': 'frozen',
  'monitor lost': 'frozen',
  'QEMU SIGKILL': 'frozen',
  'QEMU paused and continued': 'frozen',
  'disk answers ENOSPC, or stalls': 'frozen',
  'foreign thaw': 'frozen',
  'foreign freeze': 'hold',
};
