// Writes down how a VM was reached, in STATE_DIR/VM/vm.json, so that one that is shut off is found again by any of its
// names and sockets. VM is its UUID, or a name made of its monitor's socket (vm/identity.ts).
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { BridgeError, isErrno, UsageError } from '../../errors.js';
import { writeDurably } from '../images/durable-file.js';
import { identityKey, uuidPattern, type VmIdentity } from '../vm/identity.js';
import { isSomewhere, resolvedText } from '../vm/place.js';
import type { Vm } from '../vm/vm.js';

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
});

export interface VmRecord {
  readonly identity: VmIdentity;
  readonly names: readonly string[];
  /** Ways to its monitor, as they are stored: resolved sockets, `libvirt:NAME` (vm/place.ts). */
  readonly qmp: readonly string[];
  readonly qga: readonly string[];
  /** When a command that changes something last worked on it. */
  readonly lastSeen: string;
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
  const { uuid, address = '', names, qmp, qga, lastSeen } = parsed.output;
  const identity: VmIdentity =
    uuid === undefined ? { kind: 'address', address } : { kind: 'uuid', uuid: uuid.toLowerCase() };
  return { identity, names, qmp, qga, lastSeen };
}

/** Writes down how the VM was reached this time. Durable when it returns; the caller holds the VM's lock. */
export async function noteReached(stateDir: string, identity: VmIdentity, vm: Vm): Promise<void> {
  const key = identityKey(identity);
  // A broken record serves nobody, and all it says is learned anew.
  const old = await readRecord(stateDir, key).catch(() => undefined);
  const record = {
    format: 1,
    ...(identity.kind === 'uuid' ? { uuid: identity.uuid } : { address: identity.address }),
    names: latest(vm.name === key ? [] : [vm.name], old?.names),
    qmp: latest(isSomewhere(vm.monitor) ? [await resolvedText(vm.monitor)] : [], old?.qmp),
    qga: latest(vm.agent === undefined ? [] : [await resolvedText(vm.agent)], old?.qga),
    lastSeen: new Date().toISOString(),
  };
  await writeDurably(join(stateDir, key, 'vm.json'), `${JSON.stringify(record, undefined, 2)}\n`);
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
