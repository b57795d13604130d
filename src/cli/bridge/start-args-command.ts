// `fsfreeze-bridge snapshot start-args`: what a plain QEMU is to be started with, so that it goes on where the VM was.
import type { Argv } from 'yargs';
import { UsageError } from '../../errors.js';
import { currentImages, linkName, type CurrentImage } from '../../host/sets/current-images.js';
import { shellWord } from '../../host/shell-word.js';
import { viewSnapshots } from '../../host/snapshot-view.js';
import { exitCode, type ExitCode } from './exit-codes.js';
import { limitMs, monitorTimeout, storeOf, vmOf, withVm, type VmArgs } from './options.js';
import type { Output } from './output.js';

/** QEMU's bound, without the ending 0. */
const MAX_NODE_NAME = 31;

interface StartArgs extends VmArgs {
  'monitor-timeout': number;
}

export function startArgsOptions(yargs: Argv): Argv<StartArgs> {
  return withVm(yargs)
    .option('monitor-timeout', monitorTimeout)
    .example('eval "set -- $($0 snapshot start-args --vm db1)"', 'a -blockdev for each disk that a set holds')
    .epilogue(
      'After a cut the VM writes to overlays: started from its old images it would go on from the cut, and spoil it. The node ' +
        "names are those the disks had at the cut. The links in .images of the VM's state folder lead to the same files: give " +
        'QEMU what they lead to (readlink), not the links, which the next cut switches. A libvirt domain needs none of ' +
        'this: its definition is kept right.',
    );
}

export async function runStartArgs(args: StartArgs, output: Output): Promise<ExitCode> {
  const vm = await vmOf(args);
  const limit = limitMs('monitor-timeout', args['monitor-timeout']);
  const store = await storeOf(args, vm, limit);
  // One that cannot be read may lie on any other.
  const manifests = await store.readAllOrRefuse();
  const views = await viewSnapshots(store, manifests, vm.qmp, limit);
  const images = currentImages(views);
  const unknown = images.find(({ image }) => image === undefined);
  if (unknown !== undefined) {
    const notes = views.find(({ manifest }) => manifest.set === unknown.set)?.disks.flatMap((disk) => disk.notes);
    const message = `which image of disk ${unknown.id} is the newest only you can tell (set ${unknown.set})`;
    throw new UsageError('E_NEWEST_UNKNOWN', `${message}: ${notes?.join('; ') ?? 'no reason known'}`);
  }
  if (images.length === 0) output.warn(`no snapshot set of ${vm.name}: start it from the images it always had`);
  output.result({ vm: vm.name, disks: images }, () => images.map(startWords));
  return exitCode('done');
}

function startWords({ id, node, image }: CurrentImage): string {
  const { file = '', format = '' } = image ?? {};
  const options = [
    `driver=${format}`,
    `node-name=${nodeName(id, node)}`,
    'file.driver=file',
    `file.filename=${file.replaceAll(',', ',,')}`,
  ];
  return `-blockdev ${shellWord(options.join(','))}`;
}

/** QEMU makes names that it does not take itself (`#block143`). The characters are those of its identifiers (id_wellformed). */
function nodeName(id: string, node: string | undefined): string {
  if (node !== undefined && !node.startsWith('#')) return node;
  const name = linkName(id).replace(/^[^A-Za-z]+/, '');
  return (name === '' ? 'disk' : name).slice(0, MAX_NODE_NAME);
}
