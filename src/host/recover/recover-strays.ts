// Recovers what no set speaks for: our block nodes and jobs in QEMU, and drafts of killed writers. Layers that somebody
// else put on a running VM's disks (libvirt leaves one when its thaw fails) are told of and never touched.
import { readFile } from 'node:fs/promises';
import { isErrno } from '../../errors.js';
import { imageFile, readDisks, readNodes, type VmDisk } from '../../qmp/block-graph.js';
import type { Monitor } from '../../qmp/monitor.js';
import { runQmp } from '../../qmp/commands.js';
import { dismissJob } from '../../qmp/jobs.js';
import { holdersOf } from '../images/image-file.js';
import { imageOf, keyOrName } from '../images/socket-owner.js';
import { witnessesFor } from '../sets/claims.js';
import type { Manifest } from '../sets/manifest.js';
import { holdsData } from '../images/overlay-data.js';
import { whyInUse } from '../images/use.js';
import { allManifests } from './recover-targets.js';
import { exists, removeFiles } from '../images/durable-file.js';
import type { RecoveryRun } from './recovery-run.js';
import { shellWord } from '../../shell-word.js';

/** Call it after the sets are recovered: what is left then is nobody's. */
export async function recoverStrays(run: RecoveryRun): Promise<void> {
  const manifests = await allManifests(run.options.stateDir);
  for (const monitor of run.monitors) {
    await recoverJobs(run, monitor, manifests);
    await recoverNodes(run, monitor, manifests);
    await tellOfUnknownOverlays(run, monitor, manifests);
  }
  await sweep(run);
}

const ourJob = /^fsb-commit-([0-9a-f]{8})-\d+$/;
/** A job that formats an encrypted overlay which is not in use yet; it is short, and cannot be cancelled. */
const formatJob = /^fsb-[0-9a-f]{8}-\d+-create$/;

async function recoverJobs(run: RecoveryRun, monitor: Monitor, manifests: readonly Manifest[]): Promise<void> {
  for (const { id, status } of await runQmp(monitor, 'query-jobs', {})) {
    if (formatJob.test(id)) {
      const left = `job ${id} (${status}), which formatted an overlay, was left in QEMU`;
      if (status === 'concluded') await dismiss(run, monitor, id, left);
      else run.note('busy', { kind: 'job-left', found: left, did: 'it ends by itself: recover again' });
      continue;
    }
    const setId = ourJob.exec(id)?.[1];
    const owner = manifests.find((manifest) => manifest.id === setId);
    // The job's commit goes on, or has been told of.
    if (setId === undefined || owner?.state === 'committing') continue;
    const found = `job ${id} (${status}) was left in QEMU, and no set is being committed`;
    if (status === 'concluded') {
      await dismiss(run, monitor, id, found);
      continue;
    }
    const did =
      'end it at the monitor: job-complete merges (once it is ready), job-cancel leaves the VM on its overlay';
    const commands = ['job-complete', 'job-cancel'].map((execute) =>
      monitorLine(monitor, { execute, arguments: { id } }),
    );
    run.note('yours', { kind: 'job-left', found, did, commands });
  }
}

async function dismiss(run: RecoveryRun, monitor: Monitor, id: string, found: string): Promise<void> {
  await run.repair({ kind: 'job-left', found, did: 'dismiss it' }, async () => {
    await dismissJob(monitor, id);
    return undefined;
  });
}

const ourNode = /^fsb-([0-9a-f]{8})-\d+$/;

async function recoverNodes(run: RecoveryRun, monitor: Monitor, manifests: readonly Manifest[]): Promise<void> {
  const disks = await readDisks(monitor);
  const nodesInUse = new Set(disks.flatMap(({ node, rootNode }) => [node, rootNode]));
  const filesInUse = await filesOfAll(
    monitor,
    disks.flatMap(({ file, backingFiles }) => [file, ...backingFiles]),
  );
  for (const [name, { image }] of await readNodes(monitor)) {
    const setId = ourNode.exec(name)?.[1];
    const file = imageFile(image.filename);
    const owner = manifests.find(({ id }) => id === setId);
    if (setId === undefined || owner !== undefined || nodesInUse.has(name)) continue;
    if (filesInUse.has(await keyOrName(monitor.path, file))) continue;
    const found = `block node ${name} (${file}) was left in QEMU; no disk uses it, and no set knows it`;
    const did = 'take it out of QEMU, and remove its file if it is empty';
    await run.repair({ kind: 'node-left', found, did }, async () => {
      await runQmp(monitor, 'blockdev-del', { 'node-name': name });
      const witnesses = await witnessesFor(run.options.stateDir, undefined, run.monitors);
      const use = await whyInUse([file], witnesses);
      if (use !== undefined) return `taken out of QEMU; ${file} stays: ${use.why}`;
      if (await holdsData(file)) return `taken out of QEMU; ${file} stays: it holds data`;
      await removeFiles([file]);
      return `taken out of QEMU, and ${file} removed: it was empty`;
    });
  }
}

async function tellOfUnknownOverlays(
  run: RecoveryRun,
  monitor: Monitor,
  manifests: readonly Manifest[],
): Promise<void> {
  const overlays = manifests.flatMap(({ disks }) => disks.map(({ overlay }) => overlay.file));
  const known = await filesOfAll(monitor, overlays);
  for (const disk of await readDisks(monitor)) {
    const { file, id, backingFiles } = disk;
    const [base] = backingFiles;
    if (base === undefined || disk.readOnly || known.has(await keyOrName(monitor.path, file))) continue;
    const image = (await imageOf(monitor.path, file)) ?? file;
    if (await isThrownAway(image)) continue;
    const line = await commandLineOf(image);
    // The VM was started with this image: an ordinary clone.
    if (line?.includes(file) === true) continue;
    const maker =
      line === undefined ? 'who made it is not known' : 'QEMU was not started with it: somebody made a snapshot';
    const found = `disk ${id} of the running VM writes to ${file}, which lies on ${base}; no set knows it, and ${maker}`;
    const { name } = await runQmp(monitor, 'query-name', {});
    const isLibvirts = disk.node.startsWith('libvirt-') || line?.includes('libvirt') === true;
    run.note('yours', {
      kind: 'overlay-unknown',
      found,
      did: isLibvirts
        ? 'left alone; libvirt makes one and reports a failure if its thaw fails. Keep it, or merge it back through libvirt'
        : 'left alone; keep it, or merge it back: the first command merges, the second ends it once the job is ready (query-jobs)',
      commands: isLibvirts
        ? [
            `virsh ${connect(run)}blockcommit ${shellWord(name ?? 'DOMAIN')} ${shellWord(file)} --shallow --active --pivot --wait`,
          ]
        : mergeLines(monitor, disk, await nodeOf(monitor, base)),
    });
  }
}

/**
 * True for a disk whose writes are to be lost at the end: QEMU has removed the file already (`snapshot=on`), or libvirt
 * made it (`<transient/>`: IMAGE.TRANSIENT-DOMAIN). A merge would change what must stay as it is.
 */
async function isThrownAway(file: string): Promise<boolean> {
  return /\.TRANSIENT-[^/]+$/.test(file) || !(await exists(file));
}

async function filesOfAll(monitor: Monitor, names: readonly string[]): Promise<ReadonlySet<string>> {
  return new Set(await Promise.all(names.map((name) => keyOrName(monitor.path, name))));
}

/** The words for virsh that say where libvirt was reached; none if that is virsh's own choice. */
function connect({ options }: RecoveryRun): string {
  const uris = options.vm.monitors.map((place) => (place.kind === 'libvirt' ? place.uri : undefined));
  const uri = uris.find((each) => each !== undefined);
  return uri === undefined ? '' : `--connect ${shellWord(uri)} `;
}

/** The arguments of the QEMU that has the file open, one per line; undefined if there is none we may look at. */
async function commandLineOf(file: string): Promise<string | undefined> {
  const lines: string[] = [];
  for (const { pid } of await holdersOf(file)) {
    if (pid === undefined) continue;
    const text = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (text !== '') lines.push(text.split('\0').join('\n'));
  }
  return lines.length === 0 ? undefined : lines.join('\n');
}

async function nodeOf(monitor: Monitor, file: string): Promise<string | undefined> {
  return [...(await readNodes(monitor))].find(([, { drv, image }]) => {
    return drv !== 'file' && imageFile(image.filename) === file;
  })?.[0];
}

function mergeLines(monitor: Monitor, { rootNode }: VmDisk, baseNode: string | undefined): string[] {
  if (baseNode === undefined) return [];
  const commit = { 'job-id': 'merge', device: rootNode, 'base-node': baseNode };
  return [
    monitorLine(monitor, { execute: 'block-commit', arguments: commit }),
    monitorLine(monitor, { execute: 'job-complete', arguments: { id: 'merge' } }),
  ];
}

function monitorLine(monitor: Monitor, command: object): string {
  const lines = [{ execute: 'qmp_capabilities' }, command].map((each) => JSON.stringify(each));
  return `printf '%s\\n' ${lines.map(shellWord).join(' ')} | socat -t5 - ${shellWord(`UNIX-CONNECT:${monitor.path}`)}`;
}

async function sweep(run: RecoveryRun): Promise<void> {
  const { store, options } = run;
  const found = await store.sweep(isGone, true);
  if (found.length === 0) return;
  const about = {
    kind: 'file-left',
    found: `drafts of writers that were killed: ${found.join(', ')}`,
    did: 'remove them',
  } as const;
  if (options.dryRun) {
    run.note('planned', about);
    return;
  }
  await run.repair(about, async () => {
    await store.sweep(isGone, false);
    return undefined;
  });
}

function isGone(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return isErrno(error, 'ESRCH');
  }
}
