// `fsfreeze-bridge snapshot list | show | commit | revert | delete`: the commands for sets that were made.
import type { Argv } from 'yargs';
import { defined } from '../../defined.js';
import type { SetView } from '../../host/sets/set-view.js';
import { findAndLockVm, openAndLockVm } from '../../host/sets/vm-lock.js';
import { commitShutOff, commitSnapshot, type Committed } from '../../host/snapshot-commit.js';
import { deleteSnapshot, type DeleteOptions } from '../../host/snapshot-delete.js';
import { revertSnapshot } from '../../host/snapshot-revert.js';
import { viewSnapshots } from '../../host/snapshot-view.js';
import { confirmWith } from '../../confirm-prompt.js';
import { exitCode, type ExitCode } from './exit-codes.js';
import {
  bytesPerSecond,
  diskTimeout,
  limitMs,
  lockRequest,
  lockTimeout,
  monitorTimeout,
  path,
  setName,
  speed,
  storeOf,
  vmOf,
  withVm,
  yes,
  type LockArgs,
  type VmArgs,
} from './options.js';
import type { Output } from './output.js';
import { renderLine, renderView } from './render-manifest.js';
import type { Result } from './results/results.js';

interface ListArgs extends VmArgs {
  'monitor-timeout': number;
}
interface SetArgs extends ListArgs {
  set: string;
}
interface AskingArgs extends SetArgs, LockArgs {
  yes: boolean;
}
interface CommitArgs extends AskingArgs {
  timeout: number;
  speed: number | undefined;
  disk: string[] | undefined;
  offline: boolean;
}

function withSet(yargs: Argv): Argv<SetArgs> {
  return withVm(yargs).positional('set', setName).option('monitor-timeout', monitorTimeout);
}

export function listOptions(yargs: Argv): Argv<ListArgs> {
  return withVm(yargs)
    .option('monitor-timeout', monitorTimeout)
    .example('$0 snapshot list --vm db1', 'all sets of the VM, oldest first, with what they are worth now');
}

export async function runList(args: ListArgs, output: Output): Promise<ExitCode> {
  const vm = await vmOf(args);
  const limit = limitMs('monitor-timeout', args['monitor-timeout']);
  const store = await storeOf(args, vm, limit);
  const { manifests, unreadable } = await store.readAll();
  const views = await viewSnapshots(store, manifests, vm.monitor, limit);
  const result = { vm: vm.name, sets: views.map(summary), unreadable } satisfies Result<'snapshot list'>;
  output.result(result, () => [
    ...views.map(renderLine),
    ...unreadable.map(({ set, reason }) => `${set}  unreadable: ${reason}`),
    ...(manifests.length + unreadable.length === 0 ? [`no snapshot sets of ${vm.name}`] : []),
  ]);
  return exitCode('done');
}

export function showOptions(yargs: Argv): Argv<SetArgs> {
  return withSet(yargs).example('$0 snapshot show nightly --vm db1', 'disks, files, level now and its evidence');
}

/** If the maker of the set was killed, the VM is asked what became of it. */
export async function runShow(args: SetArgs, output: Output): Promise<ExitCode> {
  const vm = await vmOf(args);
  const limit = limitMs('monitor-timeout', args['monitor-timeout']);
  const store = await storeOf(args, vm, limit);
  const manifest = await store.read(args.set);
  const [view] = await viewSnapshots(store, [manifest], vm.monitor, limit);
  if (view === undefined) throw new Error(`no view of ${args.set}`);
  for (const note of view.notes) output.warn(`${args.set}: ${note}`);
  output.result(viewJson(view), () => renderView(view));
  return exitCode('done');
}

export function commitOptions(yargs: Argv): Argv<CommitArgs> {
  return withAnswer(withSet(yargs))
    .option('disk', {
      type: 'string',
      array: true,
      nargs: 1,
      describe: 'only this disk of the set (id, serial, node or file); may be repeated',
    })
    .option('offline', {
      type: 'boolean',
      default: false,
      describe: 'the VM is shut off: qemu-img merges, if nobody uses the images',
    })
    .option('timeout', diskTimeout)
    .option('speed', speed)
    .example('$0 snapshot commit nightly --vm db1', 'merge the overlays back while the guest writes on')
    .example('$0 snapshot commit nightly --vm db1 --disk vdb', 'merge one disk; the others stay cut')
    .example('$0 snapshot commit nightly --vm db1 --offline', 'the same with the VM shut off')
    .epilogue(
      'The state of the cut is gone afterwards, of the disks that were merged. Refused while somebody copies from a base, ' +
        'or another image lies on it. A disk that cannot be merged is named (exit 5), and the others are merged. An ' +
        'interrupted commit goes on when it is called again. Asks if only you can say which of base and overlay is newer.',
    );
}

export async function runCommit(args: CommitArgs, output: Output, signal: AbortSignal): Promise<ExitCode> {
  const { manifest, foreign } = await commitWithLock(args, output, signal);
  for (const file of foreign) output.warn(`${file} is merged, but not known to be the set's own: left alone`);
  const merged = manifest.disks.filter((disk) => disk.merged).length;
  output.result({ ...manifest, foreign } satisfies Result<'snapshot commit'>, () => [
    `snapshot set ${manifest.set}: ${merged} disks merged back${merged === manifest.disks.length ? '' : ` of ${manifest.disks.length}`}`,
  ]);
  return exitCode(foreign.length === 0 ? 'done' : 'left');
}

async function commitWithLock(args: CommitArgs, output: Output, signal: AbortSignal): Promise<Committed> {
  const speed = bytesPerSecond('speed', args.speed);
  const limits = {
    ...defined({ disks: args.disk }),
    limitMs: limitMs('timeout', args.timeout),
    ...defined({ speed }),
    onProgress: output.progress,
  };
  if (args.offline) {
    return await withLock(
      args,
      'commit',
      output,
      signal,
      async (options) => await commitShutOff({ ...options, ...limits }),
    );
  }
  const work = { operation: 'commit', set: args.set } as const;
  const request = lockRequest(args, await vmOf(args), work, { signal, onProgress: output.progress });
  await using open = await openAndLockVm(request, { timeoutMs: limitMs('monitor-timeout', args['monitor-timeout']) });
  const { store, hypervisor } = open;
  const about = {
    store,
    stateDir: path(args['state-dir']),
    set: args.set,
    confirm: confirmWith(args.yes, signal),
    signal,
  };
  return await commitSnapshot(hypervisor, { ...about, ...limits });
}

export function revertOptions(yargs: Argv): Argv<AskingArgs> {
  return withAnswer(withSet(yargs))
    .example('$0 snapshot revert nightly --vm db1', 'back to the cut; the VM must be shut off')
    .epilogue(
      'Everything written since the cut is dropped: the overlays are replaced by empty ones. The bases, which hold the cut, ' +
        'are not touched, and the set stays. Start the VM from the overlays, or from the bases if the set is deleted.',
    );
}

/** For revert, delete and the commit of a VM that is shut off: `work` has the VM's lock, and may ask before it loses anything. */
async function withLock<T>(
  args: AskingArgs,
  operation: 'revert' | 'delete' | 'commit',
  output: Output,
  signal: AbortSignal,
  work: (options: DeleteOptions) => Promise<T>,
): Promise<T> {
  const vm = await vmOf(args);
  const monitorTimeoutMs = limitMs('monitor-timeout', args['monitor-timeout']);
  const request = lockRequest(args, vm, { operation, set: args.set }, { signal, onProgress: output.progress });
  await using locked = await findAndLockVm(request, monitorTimeoutMs);
  const confirm = confirmWith(args.yes, signal);
  const stateDir = path(args['state-dir']);
  return await work({
    store: locked.store,
    stateDir,
    set: args.set,
    monitor: vm.monitor,
    monitorTimeoutMs,
    confirm,
    signal,
  });
}

export async function runRevert(args: AskingArgs, output: Output, signal: AbortSignal): Promise<ExitCode> {
  const manifest = await withLock(args, 'revert', output, signal, revertSnapshot);
  const files = manifest.disks.map(({ overlay }) => overlay.file);
  output.result(manifest satisfies Result<'snapshot revert'>, () => [
    `reverted to ${manifest.set}; start the VM from: ${files.join(', ')}`,
  ]);
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
  const { files, foreign } = await withLock(args, 'delete', output, signal, deleteSnapshot);
  for (const file of foreign) output.warn(`${file} is not the set's own any more: left alone`);
  output.result({ deleted: args.set, files, foreign } satisfies Result<'snapshot delete'>, () => [
    `deleted ${args.set}`,
    ...files.map((file) => `  ${file}`),
  ]);
  return exitCode('done');
}

function withAnswer(yargs: Argv<SetArgs>): Argv<AskingArgs> {
  return yargs.option('lock-timeout', lockTimeout).option('yes', yes);
}

function summary({ manifest, level, notes }: SetView): Result<'snapshot list'>['sets'][number] {
  const { set, state, level: levelAtCut, required, createdAt, disks, timings } = manifest;
  return { set, state, level, levelAtCut, required, createdAt, disks: disks.length, timings, notes };
}

/** The manifest with the levels as they are now, and what a person has to know. */
function viewJson({ manifest, level, disks, notes }: SetView): Result<'snapshot show'> {
  return {
    ...manifest,
    level,
    levelAtCut: manifest.level,
    disks: manifest.disks.flatMap((disk, index) => {
      const view = disks[index];
      return view === undefined ? [] : [{ ...disk, ...view }];
    }),
    notes,
  };
}
