// `fsfreeze-bridge snapshot start-args`: prints the words with which a plain QEMU goes on where the VM was.
import { stat } from 'node:fs/promises';
import type { Argv } from 'yargs';
import { UsageError } from '../../errors.js';
import { exists } from '../../host/images/durable-file.js';
import {
  canBeLinked,
  currentImages,
  linkName,
  type CurrentImage,
  type StartImage,
} from '../../host/sets/current-images.js';
import { shellWord } from '../../shell-word.js';
import { viewSnapshots } from '../../host/snapshot-view.js';
import { imageOptions } from '../../qmp/image-name.js';
import { exitCode, type ExitCode } from './exit-codes.js';
import { limitMs, monitorTimeout, storeOf, vmOf, withVm, type VmArgs } from './options.js';
import type { Output } from './output.js';
import type { Result } from './results/results.js';

/** QEMU's bound on the name of a block node, without the ending 0. */
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
  // A set that cannot be read may lie on any other: then the newest image is not known.
  const manifests = await store.readAllOrRefuse();
  const views = await viewSnapshots(store, manifests, vm.monitor, limit);
  const found = await currentImages(views);
  const unknown = found.find(({ image }) => image === undefined);
  if (unknown !== undefined) {
    const notes = views.find(({ manifest }) => manifest.set === unknown.set)?.disks.flatMap((disk) => disk.notes);
    const message = `which image of disk ${unknown.id} is the newest only you can tell (set ${unknown.set})`;
    throw new UsageError('E_NEWEST_UNKNOWN', `${message}: ${notes?.join('; ') ?? 'no reason known'}`);
  }
  const images = found.filter(hasImage);
  for (const { set, disks } of manifests) {
    for (const { id, base } of disks) {
      if (images.some((each) => each.id === id)) continue;
      const message = `disk ${id}: ${base.file} is not there, and no set names a newer image`;
      throw new UsageError('E_NO_IMAGE', `${message}: mount its filesystem, or delete ${set}, which is over`);
    }
  }
  if (images.length === 0) output.warn(`no snapshot set of ${vm.name}: start it from the images it always had`);
  for (const { id, image } of images) {
    if (!canBeLinked(image)) output.warn(`disk ${id} has no link: its image is not opened by its path alone`);
    if (image.keySecret !== undefined) {
      output.warn(`disk ${id} is encrypted: give QEMU its secret, -object secret,id=${image.keySecret},...`);
    }
  }
  const lines = await Promise.all(images.map(startWords));
  output.result({ vm: vm.name, disks: images } satisfies Result<'snapshot start-args'>, () => lines);
  return exitCode('done');
}

function hasImage(image: CurrentImage): image is CurrentImage & { readonly image: StartImage } {
  return image.image !== undefined;
}

const KEY_SECRET = 'encrypt.key-secret';

/** The words for one disk, quoted for a shell. Throws what stat(2) does, unless the image is not there: then QEMU will say so. */
export async function startWords({ id, node, image }: CurrentImage): Promise<string> {
  const { driver, ...rest } = image === undefined ? {} : await openOptions(image);
  return `-blockdev ${shellWord(words({ driver, 'node-name': nodeName(id, node), ...rest }).join(','))}`;
}

async function openOptions({
  file,
  format,
  name = '',
  keySecret,
}: StartImage): Promise<Readonly<Record<string, unknown>>> {
  const named = imageOptions(name);
  if (named !== undefined) return named;
  const encrypted = keySecret === undefined ? {} : { [KEY_SECRET]: keySecret };
  // QEMU refuses a device with the driver of files.
  const isDevice = (await exists(file)) && (await stat(file)).isBlockDevice();
  return { driver: format, ...encrypted, file: { driver: isDevice ? 'host_device' : 'file', filename: file } };
}

/** The options as -blockdev takes them: `a.b=c`. */
function words(options: object, prefix = ''): string[] {
  return Object.entries(options).flatMap(([key, value]: [string, unknown]) => {
    if (typeof value === 'object' && value !== null) return words(value, `${prefix}${key}.`);
    const text = textOf(value);
    const word = `${prefix}${key}=${text.replaceAll(',', ',,')}`;
    // QEMU's names of images leave the format out, -blockdev needs it. Overlays are luks or not encrypted.
    return key === KEY_SECRET ? [`${prefix}encrypt.format=luks`, word] : [word];
  });
}

function textOf(value: unknown): string {
  // `backing=`: no node below.
  if (value === null) return '';
  if (typeof value === 'boolean') return value ? 'on' : 'off';
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** The node's own name, unless QEMU made it up (`#block143`): QEMU does not take such a name itself. Characters as in its id_wellformed. */
function nodeName(id: string, node: string | undefined): string {
  if (node !== undefined && !node.startsWith('#')) return node;
  const name = linkName(id).replace(/^[^A-Za-z]+/, '');
  return (name === '' ? 'disk' : name).slice(0, MAX_NODE_NAME);
}
