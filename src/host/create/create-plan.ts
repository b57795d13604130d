// Plans a cut: looks at the VM and at the guest, and refuses what cannot succeed. Changes nothing.
import { stat } from 'node:fs/promises';
import { QuiesceError, CutError, UnreachableError, UsageError, describeError } from '../../errors.js';
import type { DiskRef } from '../../consistency.js';
import type { VmDisk } from '../../qmp/block-graph.js';
import { runQmp } from '../../qmp/commands.js';
import type { Monitor } from '../../qmp/monitor.js';
import { readOutside } from '../../qmp/outside.js';
import { runFileAmong } from '../images/run-file.js';
import { fileKey } from '../images/same-file.js';
import { backingNameOf } from '../vm/backing-name.js';
import { chooseDisks, guestRefs, type DiskChoice } from '../vm/disk-choice.js';
import { whyNotItsAgent } from '../guest/agent-owner.js';
import type { AgentLimits, GuestAgent, OpenGuestAgent } from '../guest/guest-agent.js';
import type { CutHost, OverlayHost } from '../vm/hypervisor.js';
import { checkReached, crashWillDo, type Requirement } from '../guest/requirement.js';
import { linkIn } from '../sets/current-images.js';
import { shellWord } from '../../shell-word.js';
import { refuseMigration } from '../vm/migration.js';
import type { Vm } from '../vm/vm.js';

export interface PlanOptions {
  readonly vm: Vm;
  readonly disks: readonly string[];
  readonly requirement: Requirement;
  readonly agentLimits: AgentLimits;
  readonly openAgent: OpenGuestAgent;
}

export interface CreatePlan extends DiskChoice {
  /** QEMU's run state. */
  readonly status: string;
  readonly all: readonly VmDisk[];
  /** In the order of `chosen`. */
  readonly refs: readonly (DiskRef | undefined)[];
  /** The caller closes it. */
  readonly agent: GuestAgent | undefined;
  /** Why there is no agent to hold the guest. */
  readonly whyNoAgent: string | undefined;
}

/** Why what is planned cannot be done with a disk, though it is sound in itself. */
export type WhyNot = (disk: VmDisk, all: readonly VmDisk[]) => Promise<string | undefined>;

/** Throws UsageError, CutError, UnreachableError or QuiesceError: what cannot succeed, before anything is done. */
export async function planCreate(monitor: CutHost, options: PlanOptions, whyNot: WhyNot): Promise<CreatePlan> {
  const { status, running } = await runQmp(monitor, 'query-status', {});
  await refuseMigration(monitor, 'nothing was cut');
  await refuseBlockJobs(monitor);
  const all = await monitor.disks();
  await refuseOnRun(all);
  const facts = { refusals: await refusalsOf(all, whyNot), outside: await readOutside(monitor) };
  const choice = chooseDisks(all, options.disks, facts);
  const plan = { ...choice, status, all, refs: guestRefs(choice.chosen, all) };
  const { agent, why } = running
    ? await findAgent(monitor, options)
    : { agent: undefined, why: `the VM is ${status}: its guest cannot be held` };
  if (agent === undefined) checkReached(options.requirement, 'crash', undefined, why ?? 'there is no agent');
  return { ...plan, agent, whyNoAgent: why };
}

async function refusalsOf(all: readonly VmDisk[], whyNot: WhyNot): Promise<ReadonlyMap<VmDisk, string>> {
  const refusals = new Map<VmDisk, string>();
  for (const disk of all) {
    const why = (await whyNotThere(disk)) ?? (await whyNot(disk, all));
    if (why !== undefined) refusals.set(disk, why);
  }
  return refusals;
}

/** Why no overlay can be laid on disks that are sound in themselves. */
export function overlayRefusal(host: Pick<OverlayHost, 'whyNoOverlay'>): WhyNot {
  return async (disk, all) =>
    (await whyMoves(disk)) ??
    (await backingNameOf(disk)).why ??
    (await whyNoMergeBack(disk, all)) ??
    (await host.whyNoOverlay(disk));
}

async function whyMoves({ file }: VmDisk): Promise<string | undefined> {
  const link = await linkIn(file);
  if (link === undefined) return undefined;
  const how = `start it from what the link leads to, as "readlink ${shellWord(link)}" says`;
  return `the VM was started from the link ${link}, which the cut would switch: ${how}`;
}

/** QEMU may have a file open that has no name (`snapshot=on`), or one that only QEMU can reach. */
async function whyNotThere({ file }: VmDisk): Promise<string | undefined> {
  try {
    await stat(file);
    return undefined;
  } catch (error) {
    return `its image cannot be found from here (${describeError(error)})`;
  }
}

// Parts of one file, for instance: while one is merged back, the other needs the file as it is.
async function whyNoMergeBack(disk: VmDisk, all: readonly VmDisk[]): Promise<string | undefined> {
  if (!disk.file.startsWith('/')) return undefined;
  const own = await fileKey(disk.file);
  for (const other of all) {
    if (other === disk) continue;
    const keys = await Promise.all([other.file, ...other.backingFiles].map(fileKey));
    if (!keys.includes(own)) continue;
    return `disk ${other.id === '' ? other.node : other.id} lies in the same file: its overlay could not be merged back`;
  }
  return undefined;
}

interface FoundAgent {
  readonly agent: GuestAgent | undefined;
  readonly why: string | undefined;
}

async function findAgent(monitor: Monitor, options: PlanOptions): Promise<FoundAgent> {
  const { vm, requirement, agentLimits, openAgent } = options;
  if (vm.agent === undefined) return { agent: undefined, why: 'no guest-agent socket was given (--qga)' };
  let agent: GuestAgent;
  try {
    agent = await openAgent(vm.agent, agentLimits);
  } catch (error) {
    if (error instanceof UnreachableError && crashWillDo(requirement)) {
      return { agent: undefined, why: describeError(error) };
    }
    throw error;
  }
  try {
    const foreign = await whyNotItsAgent(monitor, vm.agent, agent);
    // Not held: it may be another VM's guest.
    if (foreign !== undefined) {
      await agent[Symbol.asyncDispose]();
      return { agent: undefined, why: foreign };
    }
    const { state, requester, session } = await agent.coordinator.status();
    if (state === 'idle') return { agent, why: undefined };
    const message = `the guest is already held (${state}) by ${requester ?? 'somebody'}, session ${session ?? 'unknown'}`;
    if (!crashWillDo(requirement)) throw new QuiesceError('E_BUSY', `${message}; nothing was cut`);
    await agent[Symbol.asyncDispose]();
    return { agent: undefined, why: message };
  } catch (error) {
    await agent[Symbol.asyncDispose]();
    throw error;
  }
}

/** Which images a VM lies on that was started from a backup is recorded: what is laid on them would be left behind. */
async function refuseOnRun(disks: readonly VmDisk[]): Promise<void> {
  for (const { id, node, file, backingFiles } of disks) {
    const found = await runFileAmong([file, ...backingFiles]);
    if (found === undefined) continue;
    const lies = `disk ${id === '' ? node : id} still lies on ${found.file}, of backup run ${found.run}: nothing was cut`;
    const command = `fsfreeze-bridge backup recover --repo ${shellWord(found.repository)}`;
    throw new UsageError('E_UNFINISHED', `${lies}; to have it copied to the end: ${command}`);
  }
}

// A running job holds its node, so the transaction would fail: say so before the guest is held.
async function refuseBlockJobs(monitor: Monitor): Promise<void> {
  // A concluded job holds nothing any more: somebody has yet to dismiss it.
  const jobs = (await runQmp(monitor, 'query-block-jobs', {})).filter(({ status }) => status !== 'concluded');
  if (jobs.length === 0) return;
  const list = jobs.map(({ type, device }) => `${type} ${device}`).join(', ');
  throw new CutError('E_BLOCK_JOB', `the VM runs block jobs (${list}): nothing was cut; wait until they end`);
}
