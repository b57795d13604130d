// Drafts what is recorded of an instant of a VM (sets/point-in-time.ts) before it is cut, and completes it afterwards,
// whatever holds its bytes.
import { defined } from '../../defined.js';
import type { VmDisk } from '../../qmp/block-graph.js';
import { runQmp } from '../../qmp/commands.js';
import { PACKAGE_VERSION } from '../../version.js';
import { clip } from '../guest/clip.js';
import { roundMs } from '../../linux/clock.js';
import type { SetWorth } from '../guest/level.js';
import { requiredLevel, type Requirement } from '../guest/requirement.js';
import { POINT_VERSION, type Marks, type PointDisk, type PointInTime } from '../sets/point-in-time.js';
import type { LeftOut } from '../vm/disk-choice.js';
import type { CutHost } from '../vm/hypervisor.js';
import { placeText } from '../vm/place.js';
import type { Vm } from '../vm/vm.js';
import type { CreatePlan } from './create-plan.js';
import type { HeldCut } from './held-cut.js';

export interface PointOptions {
  readonly vm: Vm;
  readonly requirement: Requirement;
}

/** Its level is `none`. Throws what the monitor throws. */
export async function draftPoint(
  host: CutHost,
  plan: CreatePlan,
  { vm, requirement }: PointOptions,
): Promise<PointInTime> {
  const { name: qemuName } = await runQmp(host, 'query-name', {});
  const { UUID: uuid } = await runQmp(host, 'query-uuid', {});
  const { major, minor, micro, package: distribution } = host.version;
  return {
    pointVersion: POINT_VERSION,
    vm: {
      name: vm.name,
      qmp: placeText(vm.monitor),
      ...defined({ qga: vm.agent === undefined ? undefined : placeText(vm.agent), qemuName }),
      uuid,
      status: plan.status,
    },
    asked: requirement.asked,
    required: requiredLevel(requirement.asked, undefined),
    level: 'none',
    evidence: [],
    leftOut: [...plan.leftOut],
    timings: { steps: [], marks: {} },
    monitorLog: [],
    versions: {
      tool: PACKAGE_VERSION,
      node: process.versions.node,
      qemu: `${major}.${minor}.${micro}${distribution === '' ? '' : ` (${distribution})`}`,
      ...(plan.agent === undefined ? {} : { agent: clip(`${plan.agent.kind} ${plan.agent.version}`) }),
    },
  };
}

/** A disk that is to be cut. */
export function draftDisk(disk: VmDisk): PointDisk {
  return {
    device: disk.device,
    id: disk.id,
    ...defined({ qdev: disk.qdev, serial: disk.serial, pciAddress: disk.pciAddress }),
    virtualSize: disk.virtualSize,
    ...(disk.encryption === undefined ? {} : { encryption: disk.encryption.format }),
    level: 'none',
    evidence: [],
  };
}

export interface PointFacts {
  readonly held: HeldCut;
  readonly worth: SetWorth;
  /** Storage that could not be cut, and is not in the set. */
  readonly missing: readonly LeftOut[];
  readonly steps: PointInTime['timings']['steps'];
  readonly marks: Marks;
  readonly monitorLog: PointInTime['monitorLog'];
}

/** What is known after the cut. `steps` and `monitorLog` may grow until it is written. */
export function cutPoint(
  asked: PointInTime['asked'],
  { held, worth, missing, steps, marks, monitorLog }: PointFacts,
): Pick<PointInTime, 'required' | 'level' | 'evidence' | 'timings' | 'monitorLog' | 'guest'> {
  const { cutSentMs, cutAnsweredMs } = marks;
  return {
    required: requiredLevel(asked, held.report),
    level: worth.level,
    evidence: [...worth.evidence, ...missing.map(({ what, reason }) => `not in the set: ${what}: ${reason}`)],
    timings: {
      steps,
      marks,
      ...(cutSentMs === undefined || cutAnsweredMs === undefined ? {} : { cutMs: roundMs(cutAnsweredMs - cutSentMs) }),
      ...(held.report === undefined
        ? {}
        : { pauseWindowMs: held.report.pauseWindowMs, frozenWindowMs: held.report.frozenWindowMs }),
    },
    monitorLog,
    ...defined({ guest: held.report }),
  };
}
