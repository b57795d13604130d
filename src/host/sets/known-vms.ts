// Lists the VMs that the state directory knows: those with a folder of their own, and those of which older versions
// left sets.
import { join } from 'node:path';
import { defined } from '../../defined.js';
import { UsageError } from '../../errors.js';
import { describeIdentity, identityKey, uuidPattern, type VmIdentity } from '../vm/identity.js';
import { parsePlace, resolvedText, socketAt } from '../vm/place.js';
import type { Vm } from '../vm/vm.js';
import { oldSets } from './old-folders.js';
import { setNames } from './set-names.js';
import { readRecord, stateFolders, type VmRecord } from './vm-record.js';

export interface KnownVm extends Omit<VmRecord, 'disks'> {
  /** As they are called in its own folder. */
  readonly sets: readonly string[];
}

/**
 * All of them, in no order. Throws a UsageError if the state directory cannot be listed; skips a folder that cannot be
 * read.
 */
export async function knownVms(stateDir: string): Promise<KnownVm[]> {
  const known = new Map<string, KnownVm>();
  for (const key of await stateFolders(stateDir)) {
    const record = await readRecord(stateDir, key).catch(() => undefined);
    if (record === undefined && !uuidPattern.test(key)) continue;
    const identity: VmIdentity = record?.identity ?? { kind: 'uuid', uuid: key.toLowerCase() };
    const sets = await setNames(join(stateDir, key)).catch(() => []);
    known.set(identityKey(identity), { names: [], qmp: [], qga: [], lastSeen: '', ...record, identity, sets });
  }
  // The newest know best.
  const old = (await oldSets(stateDir)).sort((a, b) => (b.createdAt ?? '').localeCompare(a.createdAt ?? ''));
  for (const { identity, folder, set, qmp, qga, createdAt = '' } of old) {
    if (identity === undefined) continue;
    const key = identityKey(identity);
    const there = known.get(key) ?? { identity, names: [], qmp: [], qga: [], lastSeen: createdAt, sets: [] };
    known.set(key, {
      ...there,
      names: withOne(there.names, folder),
      qmp: withOne(there.qmp, qmp === undefined ? undefined : await resolvedText(parsePlace(qmp))),
      qga: withOne(there.qga, qga),
      sets: withOne(there.sets, set),
    });
  }
  return [...known.values()];
}

function withOne(list: readonly string[], more: string | undefined): readonly string[] {
  return more === undefined || list.includes(more) ? list : [...list, more];
}

/**
 * The VMs that were reached as this one is: at its monitor's address, else by its name. There are several if a VM was made
 * anew under the same address or name.
 */
export async function knownAs(stateDir: string, { name, monitor }: Vm): Promise<KnownVm[]> {
  const address = await resolvedText(monitor);
  const known = await knownVms(stateDir);
  const there = known.filter((each) => each.qmp.includes(address));
  return there.length > 0 ? there : known.filter((each) => each.names.includes(name));
}

/** The one VM that was reached at this monitor's address; undefined if there is none, or if there were several. */
export async function knownAt(stateDir: string, { monitor }: Vm): Promise<KnownVm | undefined> {
  const address = await resolvedText(monitor);
  const there = (await knownVms(stateDir)).filter((each) => each.qmp.includes(address));
  return there.length === 1 ? there[0] : undefined;
}

/** The one of them that is meant when nobody answers. Throws a UsageError if that is not known. */
export function theOne(name: string, known: readonly KnownVm[]): KnownVm | undefined {
  const worth = known.length > 1 ? known.filter(({ sets }) => sets.length > 0) : known;
  if (worth.length > 1) {
    const list = worth.map(({ identity, sets, lastSeen }) => {
      return `${identityKey(identity)} (${sets.join(', ')}; last seen ${lastSeen})`;
    });
    const message = `${name} stands for ${worth.length} VMs, and it is not known which: say it with --vm: ${list.join('; ')}`;
    throw new UsageError('E_VM_AMBIGUOUS', message);
  }
  return worth[0] ?? known[0];
}

/**
 * A VM by its UUID, by the name of its folder, or by a name it was given once. Throws a UsageError if that fits
 * several.
 */
export async function recordedVm(stateDir: string, name: string): Promise<Vm | undefined> {
  const known = await knownVms(stateDir);
  const exact = known.find(
    ({ identity }) => identityKey(identity) === name.toLowerCase() || identityKey(identity) === name,
  );
  if (exact !== undefined) return { ...reached(exact, exact.names[0] ?? name), identity: exact.identity };
  const named = known.filter(({ names }) => names.includes(name));
  // VMs that were made anew at the same place: who answers there tells which it is.
  const atOnePlace = new Set(named.map(({ qmp: [first] }) => first)).size === 1;
  const chosen = atOnePlace ? named[0] : theOne(name, named);
  return chosen === undefined ? undefined : reached(chosen, name);
}

function reached({ identity, qmp, qga }: KnownVm, name: string): Vm {
  const [where] = qmp;
  if (where === undefined) {
    const message = `how VM ${name} (${describeIdentity(identity)}) is reached is not known: give --qmp PATH or --vm libvirt:NAME`;
    throw new UsageError('E_NO_VM', message);
  }
  const monitor = parsePlace(where);
  // Monitor and agent are both at libvirt, or neither is.
  const socket = qga.find((each) => each.startsWith('/'));
  const agent = monitor.kind === 'libvirt' ? monitor : socket === undefined ? undefined : socketAt(socket);
  return { name, monitor, ...defined({ agent }) };
}
