// `fsfreeze-bridge snapshot list | show | commit | revert | delete`: what is done with sets that were made.
import type { Argv } from 'yargs';
import type { Manifest } from '../../host/sets/manifest.js';
import { openMonitors } from '../../host/vm/monitors.js';
import { openHypervisor } from '../../host/vm/open-hypervisor.js';
import { settleState } from '../../host/sets/set-state.js';
import { commitSnapshot } from '../../host/snapshot-commit.js';
import { deleteSnapshot } from '../../host/snapshot-delete.js';
import { revertSnapshot } from '../../host/snapshot-revert.js';
import { confirmWith } from './confirm-prompt.js';
import { exitCode, type ExitCode } from './exit-codes.js';
import { bytesPerSecond, limitMs, monitorTimeout, storeOf, vmOf, withVm, type VmArgs } from './options.js';
import type { Output } from './output.js';
import { renderLine, renderManifest } from './render-manifest.js';

interface SetArgs extends VmArgs {
  set: string;
  'monitor-timeout': number;
}
interface CommitArgs extends SetArgs {
  timeout: number;
  speed: number | undefined;
}
interface AskingArgs extends SetArgs {
  yes: boolean;
}

function withSet(yargs: Argv): Argv<SetArgs> {
  return withVm(yargs)
    .positional('set', { type: 'string', demandOption: true, describe: 'name of the snapshot set' })
    .option('monitor-timeout', monitorTimeout);
}

export function listOptions(yargs: Argv): Argv<VmArgs> {
  return withVm(yargs).example('$0 snapshot list --vm db1', 'all sets of the VM, oldest first');
}

export async function runList(args: VmArgs, output: Output): Promise<ExitCode> {
  const vm = await vmOf(args);
  const { manifests, unreadable } = await storeOf(args, vm).readAll();
  const sets = manifests.map((manifest) => summary(manifest));
  output.result({ vm: vm.name, sets, unreadable }, () => [
    ...manifests.map(renderLine),
    ...unreadable.map(({ set, reason }) => `${set}  unreadable: ${reason}`),
    ...(manifests.length + unreadable.length === 0 ? [`no snapshot sets of ${vm.name}`] : []),
  ]);
  return exitCode('done');
}

export function showOptions(yargs: Argv): Argv<SetArgs> {
  return withSet(yargs).example('$0 snapshot show nightly --vm db1', 'disks, files, level and its evidence');
}

/** Settles a set whose maker was killed, if the VM answers. */
export async function runShow(args: SetArgs, output: Output): Promise<ExitCode> {
  const vm = await vmOf(args);
  const store = storeOf(args, vm);
  let manifest = await store.read(args.set);
  if (manifest.state === 'creating' || manifest.state === 'cutting') {
    await using monitors = await openMonitors([vm.qmp], limitMs('monitor-timeout', args['monitor-timeout']));
    if (monitors.open.length === 0) output.warn(`the VM does not answer: whether ${args.set} was cut is not known`);
    else manifest = await settleState(monitors.open, store, manifest);
  }
  output.result(manifest, () => renderManifest(manifest));
  return exitCode('done');
}

export function commitOptions(yargs: Argv): Argv<CommitArgs> {
  return withSet(yargs)
    .option('timeout', { type: 'number', default: 3600, describe: 'seconds for each disk', group: 'Limits:' })
    .option('speed', { type: 'number', describe: 'MiB per second at most' })
    .example('$0 snapshot commit nightly --vm db1', 'merge the overlays back while the guest writes on')
    .epilogue('The state of the cut is gone afterwards. An interrupted commit goes on when it is called again.');
}

export async function runCommit(args: CommitArgs, output: Output, signal: AbortSignal): Promise<ExitCode> {
  const vm = await vmOf(args);
  const speed = bytesPerSecond(args.speed);
  await using hypervisor = await openHypervisor(vm.qmp, {
    timeoutMs: limitMs('monitor-timeout', args['monitor-timeout']),
  });
  const manifest = await commitSnapshot(hypervisor, {
    store: storeOf(args, vm),
    set: args.set,
    limitMs: limitMs('timeout', args.timeout),
    ...(speed === undefined ? {} : { speed }),
    signal,
    onProgress: output.progress,
  });
  output.result(manifest, () => [`snapshot set ${manifest.set}: ${manifest.disks.length} disks merged back`]);
  return exitCode('done');
}

export function revertOptions(yargs: Argv): Argv<AskingArgs> {
  return withAnswer(withSet(yargs))
    .example('$0 snapshot revert nightly --vm db1', 'back to the cut; the VM must be shut off')
    .epilogue(
      'Everything written since the cut is dropped: the overlays are replaced by empty ones. The bases, which hold the cut, ' +
        'are not touched, and the set stays. Start the VM from the overlays, or from the bases if the set is deleted.',
    );
}

/** What revert and delete need alike: both ask first, and only touch what no VM uses. */
async function asking(args: AskingArgs, signal: AbortSignal) {
  const vm = await vmOf(args);
  return {
    store: storeOf(args, vm),
    set: args.set,
    qmp: vm.qmp,
    monitorTimeoutMs: limitMs('monitor-timeout', args['monitor-timeout']),
    confirm: confirmWith(args.yes, signal),
    signal,
  };
}

export async function runRevert(args: AskingArgs, output: Output, signal: AbortSignal): Promise<ExitCode> {
  const manifest = await revertSnapshot(await asking(args, signal));
  const files = manifest.disks.map(({ overlay }) => overlay.file);
  output.result(manifest, () => [`reverted to ${manifest.set}; start the VM from: ${files.join(', ')}`]);
  return exitCode('done');
}

export function deleteOptions(yargs: Argv): Argv<AskingArgs> {
  return withAnswer(withSet(yargs))
    .example('$0 snapshot delete nightly --vm db1', 'forget the set and remove the files of it that nobody uses')
    .epilogue(
      'Never deletes what a VM or a newer set uses: commit first. With the VM shut off, deleting a set that was not ' +
        'committed drops what the VM wrote since the cut (asked before).',
    );
}

export async function runDelete(args: AskingArgs, output: Output, signal: AbortSignal): Promise<ExitCode> {
  const files = await deleteSnapshot(await asking(args, signal));
  output.result({ deleted: args.set, files }, () => [`deleted ${args.set}`, ...files.map((file) => `  ${file}`)]);
  return exitCode('done');
}

function withAnswer(yargs: Argv<SetArgs>): Argv<AskingArgs> {
  return yargs.option('yes', { alias: 'y', type: 'boolean', default: false, describe: 'do not ask' });
}

function summary({ set, state, level, required, createdAt, disks, timings }: Manifest): object {
  return { set, state, level, required, createdAt, disks: disks.length, timings };
}
