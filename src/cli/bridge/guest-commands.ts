// `fsfreeze-bridge status | writers | thaw | wait`: the guest and its agent.
import type { Argv } from 'yargs';
import type { WriterListing } from '../../consistency.js';
import { UsageError } from '../../errors.js';
import { defaultAgentLimits, openGuestAgent, type AgentLimits, type GuestAgent } from '../../host/guest/guest-agent.js';
import { checkSize } from '../../host/guest/report-size.js';
import { thawUntilConfirmed } from '../../host/guest/thaw-guest.js';
import { describeIdentity } from '../../host/vm/identity.js';
import type { Place } from '../../host/vm/place.js';
import { shownVm, type Vm } from '../../host/vm/vm.js';
import { readStatus, type VmStatus } from '../../host/vm-status.js';
import { waitForAgent } from '../../host/guest/wait-for-agent.js';
import { exitCode, type ExitCode } from './exit-codes.js';
import { agentTimeout, limitMs, monitorTimeout, path, vmOf, withVm, type VmArgs } from './options.js';
import type { Output } from './output.js';
import type { Result } from './results/results.js';
import { sizeLine } from './size-line.js';

interface AgentArgs extends VmArgs {
  'agent-timeout': number;
}
interface StatusArgs extends AgentArgs {
  'monitor-timeout': number;
}
interface LimitArgs extends AgentArgs {
  timeout: number;
}

export function statusOptions(yargs: Argv): Argv<StatusArgs> {
  return withVm(yargs)
    .option('monitor-timeout', monitorTimeout)
    .option('agent-timeout', agentTimeout)
    .example('$0 status --vm db1', 'is the monitor there, does the agent answer, what is frozen');
}

/** Exit 3 if a side that was named does not answer. */
export async function runStatus(args: StatusArgs, output: Output): Promise<ExitCode> {
  const vm = await vmOf(args);
  const read = await readStatus({
    vm,
    stateDir: path(args['state-dir']),
    monitorTimeoutMs: limitMs('monitor-timeout', args['monitor-timeout']),
    agentLimits: agentLimits(args),
    openAgent: openGuestAgent,
  });
  const status = { ...read, vm: shownVm(vm) };
  checkSize('status', status);
  output.result(status satisfies Result<'status'>, () => renderStatus(read));
  const silent = 'error' in read.monitor || (vm.agent !== undefined && 'error' in read.agent);
  return exitCode(silent ? 'unreachable' : 'done');
}

export function writersOptions(yargs: Argv): Argv<AgentArgs> {
  return withVm(yargs)
    .option('agent-timeout', agentTimeout)
    .example('$0 writers --vm db1', 'what speaks for the applications in the guest');
}

export async function runWriters(args: AgentArgs, output: Output): Promise<ExitCode> {
  await using agent = await openAgent(args);
  const writers = await agent.coordinator.writers();
  checkSize(`list of ${writers.length} writers`, writers);
  output.result({ writers } satisfies Result<'writers'>, () => [
    ...writers.flatMap(renderWriter),
    ...(writers.length === 0 ? ['the guest has no writers'] : []),
  ]);
  return exitCode('done');
}

function renderWriter(writer: WriterListing): string[] {
  const { name, path, kind, required, rank, phases, guarantee, accompanies, problem, covers, last } = writer;
  const worth = accompanies === true ? 'accompanies' : (guarantee ?? 'no guarantee stated');
  const what = `${kind}, ${required ? 'required' : 'optional'}, rank ${rank}, ${worth}`;
  const lines = [
    `${name}  ${what}  [${phases.join(' ')}]  ${path}${problem === undefined ? '' : `  NOT RUN: ${problem}`}`,
  ];
  if (covers !== undefined) lines.push(`  covers ${covers.join(' ')}`);
  if (last !== undefined) {
    const { session, verdict, reason, durationMs } = last;
    const why = reason === undefined ? '' : ` (${reason})`;
    lines.push(`  last ${verdict}${why}, ${Math.round(durationMs)} ms, session ${session}`);
  }
  return lines;
}

export function thawOptions(yargs: Argv): Argv<LimitArgs> {
  return withVm(yargs)
    .option('agent-timeout', agentTimeout)
    .option('timeout', { type: 'number', default: 30, describe: 'seconds for all attempts together', group: 'Limits:' })
    .example('$0 thaw --vm db1', 'end whatever a host froze in the guest, and see it confirmed');
}

export async function runThaw(args: LimitArgs, output: Output): Promise<ExitCode> {
  await using agent = await openAgent(args);
  const { wasFrozen } = await thawUntilConfirmed(agent, limitMs('timeout', args.timeout));
  output.result({ thawed: true, wasFrozen } satisfies Result<'thaw'>, () => [
    wasFrozen ? 'thawed' : 'it was not frozen',
  ]);
  return exitCode('done');
}

export function waitOptions(yargs: Argv): Argv<LimitArgs> {
  return withVm(yargs)
    .option('agent-timeout', agentTimeout)
    .option('timeout', { type: 'number', default: 120, describe: 'seconds to wait', group: 'Limits:' })
    .example('$0 wait --vm db1 --timeout 300', 'until the agent answers, after a boot for instance');
}

export async function runWait(args: LimitArgs, output: Output, signal: AbortSignal): Promise<ExitCode> {
  const where = agentPlace(await vmOf(args));
  const limit = limitMs('timeout', args.timeout);
  await using agent = await waitForAgent(openGuestAgent, where, limit, signal, output.progress);
  const { kind, version } = agent;
  output.result({ kind, version } satisfies Result<'wait'>, () => [
    `${kind === 'stock' ? 'stock qemu-ga' : 'fsfreeze-agent'} ${version} answers`,
  ]);
  return exitCode('done');
}

function agentLimits(args: AgentArgs): AgentLimits {
  return { ...defaultAgentLimits, answerMs: limitMs('agent-timeout', args['agent-timeout']) };
}

async function openAgent(args: AgentArgs): Promise<GuestAgent> {
  return await openGuestAgent(agentPlace(await vmOf(args)), agentLimits(args));
}

function agentPlace(vm: Vm): Place {
  if (vm.agent === undefined)
    throw new UsageError('E_NO_AGENT', `VM ${vm.name}: no guest-agent socket, give --qga PATH`);
  return vm.agent;
}

function renderStatus({ vm, monitor, agent }: VmStatus): string[] {
  const which = 'error' in monitor ? '' : ` (${describeIdentity(monitor.identity)})`;
  const lines = [`VM ${vm.name}${which}`];
  if ('error' in monitor) lines.push(`  monitor: ${monitor.error.message}`);
  else {
    lines.push(`  monitor: QEMU ${monitor.qemu}, ${monitor.status}`);
    for (const { id, format, file, readOnly, set, trouble } of monitor.disks) {
      const belongs = set === undefined ? '' : `, overlay of snapshot set ${set}`;
      const cannot = trouble === undefined ? '' : `: ${trouble}`;
      lines.push(`  disk ${id}: ${file} (${format}${readOnly ? ', read-only' : ''}${belongs})${cannot}`);
    }
    for (const overlay of monitor.overlays) lines.push(`  overlay ${sizeLine(overlay)}`);
    for (const wrong of monitor.startedWrong) lines.push(`  STARTED FROM AN OLD IMAGE: ${wrong}`);
    for (const { id, type, status } of monitor.jobs) lines.push(`  job ${id}: ${type}, ${status}`);
  }
  if ('error' in agent) lines.push(`  agent: ${agent.error.message}`);
  else {
    const lease = agent.remainingMs === undefined ? '' : `, thaws itself in ${(agent.remainingMs / 1000).toFixed(1)} s`;
    const holder = agent.requester === undefined ? '' : ` by ${agent.requester}`;
    lines.push(`  agent: ${agent.kind} ${agent.version}, ${agent.state}${holder}${lease}`);
  }
  return lines;
}
