// `snapshot create --check`: tells what a cut would hold, and what it could be worth at most. It looks where create
// looks, asks the agent how it stands, and changes nothing.
import { randomBytes } from 'node:crypto';
import { satisfies, type ConsistencyLevel } from '../../consistency.js';
import { overlayRefusal, planCreate, type CreatePlan, type PlanOptions } from './create-plan.js';
import { planOverlays, readRoom, type Room } from './overlays.js';
import type { LeftOut } from '../vm/disk-choice.js';
import { openHypervisor } from '../vm/open-hypervisor.js';

export interface CheckOptions extends PlanOptions {
  readonly minFreeBytes: number;
  readonly monitorTimeoutMs: number;
}

export interface CreateCheck {
  readonly vm: string;
  /** QEMU's run state. */
  readonly status: string;
  readonly disks: readonly {
    readonly id: string;
    readonly file: string;
    readonly format: string;
    readonly below: readonly string[];
    readonly dataFiles: readonly string[];
    readonly encryption?: string;
  }[];
  readonly leftOut: readonly LeftOut[];
  /** Those of `leftOut` that the guest may write to and nobody chose to leave out. */
  readonly missing: readonly LeftOut[];
  readonly agent: { readonly kind: string; readonly version: string } | undefined;
  readonly level: {
    readonly asked: ConsistencyLevel;
    readonly atMost: ConsistencyLevel;
    readonly why: string;
  };
  /** The level asked for may be reached. */
  readonly satisfied: boolean;
  readonly rooms: readonly Room[];
}

/** Throws what createSnapshot throws before it does anything, but not for a level that cannot be had, nor for space. */
export async function checkCreate(options: CheckOptions): Promise<CreateCheck> {
  await using monitor = await openHypervisor(options.vm.monitor, { timeoutMs: options.monitorTimeoutMs });
  const lenient = { ...options, requirement: { asked: 'crash', allowLower: true } } as const;
  const plan = await planCreate(monitor, lenient, overlayRefusal(monitor));
  try {
    const overlays = await planOverlays(plan.chosen, 'check', randomBytes(4).toString('hex'), options.vm.overlayDir);
    const { atMost, asked, why } = await levelOf(plan, options);
    return {
      vm: options.vm.name,
      status: plan.status,
      disks: plan.chosen.map(({ id, file, format, backingFiles, dataFiles, encryption }) => ({
        id,
        file,
        format,
        below: backingFiles,
        dataFiles,
        ...(encryption === undefined ? {} : { encryption: encryption.format }),
      })),
      leftOut: plan.leftOut,
      missing: plan.missing,
      agent: plan.agent === undefined ? undefined : { kind: plan.agent.kind, version: plan.agent.version },
      level: { asked, atMost, why },
      satisfied: satisfies(atMost, asked),
      rooms: await readRoom(overlays, options.minFreeBytes),
    };
  } finally {
    await plan.agent?.[Symbol.asyncDispose]();
  }
}

async function levelOf(
  { agent, whyNoAgent }: CreatePlan,
  { requirement: { asked } }: CheckOptions,
): Promise<CreateCheck['level']> {
  const least = asked === 'auto' ? 'filesystem' : asked;
  if (agent === undefined) return { asked: least, atMost: 'crash', why: whyNoAgent ?? 'there is no agent' };
  if (agent.kind === 'stock') {
    return { asked: least, atMost: 'filesystem', why: 'a stock qemu-ga proves at most filesystem' };
  }
  const writers = (await agent.coordinator.writers()).filter(
    ({ problem, accompanies }) => problem === undefined && accompanies !== true,
  );
  if (writers.length === 0) {
    return { asked: least, atMost: 'filesystem', why: 'no writer in the guest speaks for an application' };
  }
  const names = writers.map(({ name }) => name).join(', ');
  const wanted = asked === 'auto' ? 'application' : asked;
  return { asked: wanted, atMost: 'application', why: `if what the guest runs is held by its writers (${names})` };
}
