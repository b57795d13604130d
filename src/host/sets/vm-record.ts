// Writes down how a VM was reached, in STATE_DIR/VM/vm.json, so that one that is shut off is found again by any of its
// names and sockets, and which images its disks were on (disk-images.ts). VM is its UUID, or a name made of its monitor's socket (vm/identity.ts).
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { BridgeError, isErrno, UsageError } from '../../errors.js';
import { writeDurably } from '../images/durable-file.js';
import { imageFormats } from '../vm/disk-choice.js';
import { identityKey, uuidPattern, type VmIdentity } from '../vm/identity.js';
import { isSomewhere, resolvedText } from '../vm/place.js';
import type { Vm } from '../vm/vm.js';

const imageSchema = v.strictObject({
  /** As the disk is called in QEMU. */
  id: v.string(),
  serial: v.optional(v.string()),
  file: v.string(),
  format: v.picklist(imageFormats),
  /** Images that it was on before, as sets told. */
  earlier: v.array(v.string()),
});
/** A disk, and the image that it was on when the VM was last backed up while it ran. */
export type DiskImage = v.InferOutput<typeof imageSchema>;

const recordSchema = v.strictObject({
  format: v.literal(1),
  /** One of these two. */
  uuid: v.optional(v.pipe(v.string(), v.regex(uuidPattern))),
  address: v.optional(v.string()),
  /** In each list, the one that was used last comes first. */
  names: v.array(v.string()),
  qmp: v.array(v.string()),
  qga: v.array(v.string()),
  lastSeen: v.string(),
  disks: v.optional(v.array(imageSchema)),
});

export interface VmRecord {
  readonly identity: VmIdentity;
  readonly names: readonly string[];
  /** Ways to its monitor, as they are stored: resolved sockets, `libvirt:NAME` (vm/place.ts). */
  readonly qmp: readonly string[];
  readonly qga: readonly string[];
  /** When a command that changes something last worked on it. */
  readonly lastSeen: string;
  /** None if it was never backed up while it ran. */
  readonly disks: readonly DiskImage[];
}

/** Entries of each kind; a proxy or a renamed domain must not make the record grow for ever. */
const KEPT = 8;

/** The record of a folder; undefined if it has none: it is of an older version, or none of ours. */
export async function readRecord(stateDir: string, key: string): Promise<VmRecord | undefined> {
  const file = join(stateDir, key, 'vm.json');
  let json: unknown;
  try {
    json = JSON.parse(await readFile(file, 'utf8'));
  } catch (cause) {
    if (isErrno(cause, 'ENOENT', 'ENOTDIR')) return undefined;
    throw new BridgeError('E_VM_RECORD', `cannot read ${file}`, { cause });
  }
  const parsed = v.safeParse(recordSchema, json);
  if (!parsed.success) {
    const [issue] = parsed.issues;
    throw new BridgeError('E_VM_RECORD', `${file}: ${v.getDotPath(issue) ?? 'the whole'}: ${issue.message}`);
  }
  const { uuid, address = '', names, qmp, qga, lastSeen, disks = [] } = parsed.output;
  const identity: VmIdentity =
    uuid === undefined ? { kind: 'address', address } : { kind: 'uuid', uuid: uuid.toLowerCase() };
  return { identity, names, qmp, qga, lastSeen, disks };
}

/** Writes down how the VM was reached this time. Durable when it returns; the caller holds the VM's lock. */
export async function noteReached(stateDir: string, identity: VmIdentity, vm: Vm): Promise<void> {
  const key = identityKey(identity);
  // A broken record serves nobody, and all it says is learned anew.
  const old = await readRecord(stateDir, key).catch(() => undefined);
  await writeRecord(stateDir, {
    identity,
    names: latest(vm.name === key ? [] : [vm.name], old?.names),
    qmp: latest(isSomewhere(vm.monitor) ? [await resolvedText(vm.monitor)] : [], old?.qmp),
    qga: latest(vm.agent === undefined ? [] : [await resolvedText(vm.agent)], old?.qga),
    lastSeen: new Date().toISOString(),
    disks: old?.disks ?? [],
  });
}

/** Writes down what `change` makes of the images known before. Durable when it returns; the caller holds the VM's lock. */
export async function noteImages(
  stateDir: string,
  identity: VmIdentity,
  change: (before: readonly DiskImage[]) => Promise<readonly DiskImage[]>,
): Promise<void> {
  const record = await readRecord(stateDir, identityKey(identity));
  if (record === undefined) throw new Error('the VM was not reached before');
  await writeRecord(stateDir, { ...record, disks: await change(record.disks) });
}

async function writeRecord(stateDir: string, { identity, disks, ...rest }: VmRecord): Promise<void> {
  const record = {
    format: 1,
    ...(identity.kind === 'uuid' ? { uuid: identity.uuid } : { address: identity.address }),
    ...rest,
    ...(disks.length === 0 ? {} : { disks }),
  };
  const file = join(stateDir, identityKey(identity), 'vm.json');
  await writeDurably(file, `${JSON.stringify(record, undefined, 2)}\n`);
}

function latest(now: readonly string[], before: readonly string[] = []): string[] {
  return [...new Set([...now, ...before])].slice(0, KEPT);
}

/** The folders of the state directory, of VMs and of older versions; empty if it is not there. */
export async function stateFolders(stateDir: string): Promise<string[]> {
  try {
    const entries = await readdir(stateDir, { withFileTypes: true });
    return entries
      .filter((entry) => entry.isDirectory() && !entry.name.startsWith('.'))
      .map(({ name }) => name)
      .sort();
  } catch (cause) {
    if (isErrno(cause, 'ENOENT')) return [];
    throw new UsageError('E_STATE_DIR', `cannot list ${stateDir}`, { cause });
  }
}
