// `fsfreeze-bridge recover`: puts right what killed tools and QEMUs left behind, for one VM or for all of them.
import { join } from 'node:path';
import type { Argv } from 'yargs';
import type { Finding } from '../../host/recover/finding.js';
import { openGuestAgent } from '../../host/guest/guest-agent.js';
import { placeText } from '../../host/vm/place.js';
import { DEFAULT_STATE_DIR } from '../../host/sets/manifest-store.js';
import { recoverVms } from '../../host/recover/recover.js';
import { allTargets, ownerless, type RecoverTarget, type RecoverableVm } from '../../host/recover/recover-targets.js';
import { shellWord } from '../../shell-word.js';
import { DEFAULT_CONFIG_FILE, readConfiguredVms } from '../../host/vm/vm.js';
import { exitCode, type ExitCode } from './exit-codes.js';
import {
  agentTimeout,
  limitMs,
  lockTimeout,
  lockWaitMs,
  monitorTimeout,
  path,
  thawTimeout,
  vmOf,
  withVm,
  type LockArgs,
  type VmArgs,
} from './options.js';
import type { Output } from './output.js';
import type { Result } from './results/results.js';

interface RecoverArgs extends VmArgs, LockArgs {
  'dry-run': boolean;
  'monitor-timeout': number;
  'agent-timeout': number;
  'thaw-timeout': number;
  timeout: number;
}

const EPILOGUE = [
  'Looks at the VM named by --vm or --qmp, else at every VM of the configuration and of the state directory. Thaws a ' +
    'guest that a killed tool held, settles sets whose maker ended (cut or not: the VM knows), removes overlays that no ' +
    'VM, no set and no other image uses and that hold nothing, takes our unused nodes out of QEMU, and goes on with a ' +
    'commit, revert or delete that was begun. What a tool is working on is left alone.',
  'It never removes a file that a VM uses or that holds data of its own, and it does not touch layers that somebody else ' +
    'made (libvirt, for one, after a failed thaw): it says what they are and what to type. Called again it finds nothing ' +
    'but what is left for you.',
].join('\n\n');

export function recoverOptions(yargs: Argv): Argv<RecoverArgs> {
  return withVm(yargs)
    .option('dry-run', { alias: 'n', type: 'boolean', default: false, describe: 'only say what would be done' })
    .option('monitor-timeout', monitorTimeout)
    .option('lock-timeout', lockTimeout)
    .option('agent-timeout', agentTimeout)
    .option('thaw-timeout', thawTimeout)
    .option('timeout', {
      type: 'number',
      default: 3600,
      describe: 'seconds for each disk of a commit that goes on',
      group: 'Limits:',
    })
    .example('$0 recover', 'every VM of this host, after a crash or in a timer')
    .example('$0 recover --vm db1 --dry-run', 'what is there, and what would be done')
    .example('$0 recover --qmp /run/vm1/qmp.sock --qga /run/vm1/qga.sock --json', 'one VM by its sockets')
    .epilogue(EPILOGUE);
}

/** Ends with 0 if nothing is left, 6 if a guest may still be held, 8 if something is left to be done, 3 if a VM is silent or busy. */
export async function runRecover(args: RecoverArgs, output: Output, signal: AbortSignal): Promise<ExitCode> {
  const stateDir = path(args['state-dir']);
  const limits = {
    monitorTimeoutMs: limitMs('monitor-timeout', args['monitor-timeout']),
    lockWaitMs: lockWaitMs(args),
    agentLimits: {
      answerMs: limitMs('agent-timeout', args['agent-timeout']),
      freezeMs: 1,
      thawMs: limitMs('thaw-timeout', args['thaw-timeout']),
    },
    commitMs: limitMs('timeout', args.timeout),
  };
  const targets = await chosenTargets(args, stateDir);
  const command = (vm: RecoverableVm, words: readonly string[]): string => commandLine(args, vm, words);
  const options = { stateDir, limits, openAgent: openGuestAgent, dryRun: args['dry-run'], signal, command };
  const findings = [...(await recoverVms(targets, { ...options, onProgress: output.progress }))];
  if (args.vm === undefined && args.qmp === undefined) findings.push(...(await ownerlessFindings(stateDir)));
  const code = codeOf(findings);
  const names = [...new Set(targets.map(({ vm }) => vm.name))];
  const result = { vms: names, dryRun: args['dry-run'], findings, exitCode: code } satisfies Result<'recover'>;
  output.result(result, () => render(names, findings));
  return code;
}

async function chosenTargets(args: RecoverArgs, stateDir: string): Promise<readonly RecoverTarget[]> {
  const config = path(args.config);
  if (args.vm === undefined && args.qmp === undefined) {
    return await allTargets(stateDir, config, config !== DEFAULT_CONFIG_FILE);
  }
  const vm = await vmOf(args);
  const entries = args.qmp === undefined ? await readConfiguredVms(config, false) : [];
  return [{ vm, configured: entries.some(({ name }) => name === args.vm) }];
}

async function ownerlessFindings(stateDir: string): Promise<Finding[]> {
  return (await ownerless(stateDir)).map(({ folder, reason }) => ({
    vm: folder,
    kind: 'folder-unknown',
    status: 'yours',
    found: `${join(stateDir, folder)}: ${reason}`,
    did: 'repair what is in it, or remove it; its overlays are found by "qemu-img info --backing-chain" of the VM\'s images',
    commands: [],
  }));
}

function codeOf(findings: readonly Finding[]): ExitCode {
  if (findings.some(({ thawUnconfirmed }) => thawUnconfirmed === true)) return exitCode('thaw-unconfirmed');
  if (findings.some(({ status }) => status !== 'done' && status !== 'busy')) return exitCode('left');
  const isSilent = findings.some(({ kind }) => kind === 'vm-unreachable' || kind === 'vm-busy');
  return exitCode(isSilent ? 'unreachable' : 'done');
}

function commandLine(args: RecoverArgs, vm: RecoverableVm, words: readonly string[]): string {
  const stateDir = path(args['state-dir']);
  const config = path(args.config);
  const given = [
    ...whichVm(vm, words),
    ...(config === DEFAULT_CONFIG_FILE || !vm.configured ? [] : ['--config', config]),
    ...(stateDir === DEFAULT_STATE_DIR ? [] : ['--state-dir', stateDir]),
  ];
  return ['fsfreeze-bridge', ...words, ...given].map(shellWord).join(' ');
}

function whichVm({ name, configured, monitors: [monitor], agent }: RecoverableVm, words: readonly string[]): string[] {
  if (!configured && monitor?.kind === 'libvirt') {
    return ['--vm', `libvirt:${monitor.domain}`, ...(monitor.uri === undefined ? [] : ['--connect', monitor.uri])];
  }
  return [
    '--vm',
    name,
    ...(configured || monitor === undefined || words.includes('--qmp') ? [] : ['--qmp', placeText(monitor)]),
    ...(configured || agent === undefined || words.includes('--qga') ? [] : ['--qga', placeText(agent)]),
  ];
}

function render(names: readonly string[], findings: readonly Finding[]): string[] {
  const quiet = names.filter((name) => findings.every(({ vm }) => vm !== name));
  return [
    ...findings.flatMap(({ vm, status, found, did, commands }) => [
      `${vm}: ${found}`,
      `  ${label[status]}: ${did}`,
      ...commands.map((command) => `    ${command}`),
    ]),
    ...(quiet.length === 0 ? [] : [`nothing to recover: ${quiet.join(', ')}`]),
    ...(names.length === 0 ? ['no VM is known: neither the configuration nor the state directory names one'] : []),
  ];
}

const label = {
  done: 'done',
  planned: 'would do',
  yours: 'LEFT FOR YOU',
  busy: 'not now',
  failed: 'FAILED',
} as const;
