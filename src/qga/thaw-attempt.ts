// One attempt to thaw a guest through its agent, and what is taken for a confirmation. Repeating it is
// until-confirmed.ts; the attempt of a stock session, which also counts, is stock-coordinator.ts. What an error means is
// never read from its text: the status is asked.
import type { FreezeReport } from '../consistency.js';
import type { Deadline } from '../deadline.js';
import { RemoteError } from '../rpc/errors.js';
import type { AgentCaller } from './client.js';
import { timeLeft } from './until-confirmed.js';

/**
 * Each call gets its own limit. None outlives the deadline but the question that follows a thaw: what was thawed in time
 * is not to go unconfirmed.
 */
export interface AttemptLimits {
  readonly askMs: number;
  readonly thawTryMs: number;
  readonly deadline: Deadline;
}

/**
 * Thaws the session of a coordinator. Gives the final report; undefined if the guest is thawed, but our agent knows no
 * such session. An agent that is idle confirms nothing while its own report of the session says `frozen`: it gave up
 * without a confirmation. Throws what AgentCaller.call does, and an Error if nothing is confirmed.
 */
export async function thawOwnSession(
  client: AgentCaller,
  { askMs, thawTryMs, deadline }: AttemptLimits,
  session: string,
): Promise<FreezeReport | undefined> {
  try {
    const { report } = await client.call('bridge-thaw', { session }, { timeoutMs: timeLeft(deadline, thawTryMs) });
    if (report.state !== 'thawed') throw new Error(`bridge-thaw answered a report in state ${report.state}`);
    return report;
  } catch (error) {
    if (!(error instanceof RemoteError)) throw error;
    const { status, report } = await client.call('bridge-status', {}, { timeoutMs: askMs });
    if (report?.session === session) {
      if (report.state === 'thawed') return report;
      throw error;
    }
    if (status.state === 'idle' && report?.state === 'frozen') throw error;
    if (status.state === 'idle' || (status.session !== undefined && status.session !== session)) return undefined;
    throw error;
  }
}

/**
 * Thaws the session of this id, of which nobody has the object any more, through our agent. Gives whether it was frozen:
 * false for a session that is over. Throws as `thawOwnSession` does.
 */
export async function thawNamedSession(
  client: AgentCaller,
  { askMs, thawTryMs, deadline }: AttemptLimits,
  session: string,
): Promise<boolean> {
  const { status, report: last } = await client.call('bridge-status', {}, { timeoutMs: timeLeft(deadline, askMs) });
  const isIdle = status.state === 'idle';
  // Another session than the one meant: the one meant is over, and the other is not ours to end.
  if (!isIdle && status.session !== undefined && status.session !== session) return false;
  // Idle confirms nothing while the last session, whosever it was, is not known to be thawed.
  if (isIdle && last?.state !== 'frozen') return false;
  if (isIdle && last?.session !== session) {
    throw new Error(`the agent does not know that session ${last?.session ?? ''} is thawed`);
  }
  const { report } = await client.call('bridge-thaw', { session }, { timeoutMs: timeLeft(deadline, thawTryMs) });
  if (report.state !== 'thawed') throw new Error(`after the thaw the agent's report is ${report.state}`);
  return true;
}

/** Thaws whatever a host froze, through our agent. Gives whether anything was frozen. Throws as `thawOwnSession` does. */
export async function thawAnySession(client: AgentCaller, limits: AttemptLimits): Promise<boolean> {
  const { status } = await client.call('bridge-status', {}, { timeoutMs: timeLeft(limits.deadline, limits.askMs) });
  const thawed = await plainThawOfOurs(client, limits);
  return status.state !== 'idle' || thawed > 0;
}

/**
 * The number of filesystems thawed. The command is sent whatever the status says: the agent answers with what it owes, a
 * thaw that nobody confirmed included. Its error is harmless only if its own last report tells of a guest that is thawed.
 */
async function plainThawOfOurs(client: AgentCaller, { askMs, thawTryMs, deadline }: AttemptLimits): Promise<number> {
  let failure: RemoteError | undefined;
  let thawed = 0;
  try {
    thawed = Number(await client.call('guest-fsfreeze-thaw', {}, { timeoutMs: timeLeft(deadline, thawTryMs) }));
  } catch (error) {
    if (!(error instanceof RemoteError)) throw error;
    failure = error;
  }
  const { status, report } = await client.call('bridge-status', {}, { timeoutMs: askMs });
  if (status.state !== 'idle') throw failure ?? new Error(`after the thaw the agent is ${status.state}`);
  if (report !== undefined && report.state !== 'thawed') throw failure ?? new Error('its last session is not thawed');
  // A command that is switched off while nothing is frozen owes nothing.
  if (failure !== undefined && report === undefined && failure.class !== 'CommandNotFound') throw failure;
  return thawed;
}

/**
 * Thaws through a stock qemu-ga. Gives whether anything was frozen. The status decides, since qemu-ga answers an error if
 * only its hook failed. Throws as `thawOwnSession` does.
 */
export async function thawStock(client: AgentCaller, { askMs, thawTryMs, deadline }: AttemptLimits): Promise<boolean> {
  let thawed: number | undefined;
  try {
    thawed = Number(await client.call('guest-fsfreeze-thaw', {}, { timeoutMs: timeLeft(deadline, thawTryMs) }));
  } catch (error) {
    if (!(error instanceof RemoteError)) throw error;
  }
  const state = await client.call('guest-fsfreeze-status', {}, { timeoutMs: askMs });
  if (state === 'frozen') throw new Error('guest-fsfreeze-status says frozen after guest-fsfreeze-thaw');
  return thawed !== 0;
}
