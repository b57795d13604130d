// Finds out which VM is meant: by socket paths or a libvirt domain given on the command line, or by an entry of the
// configuration file (validated whole: a misspelt member must not silently mean "no agent").
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import * as v from 'valibot';
import { defined } from '../../defined.js';
import { isErrno, UsageError } from '../../errors.js';
import { checkName, nameFromPath, namePattern } from './names.js';
import { uuidPattern, type VmIdentity } from './identity.js';
import { parseLibvirtAddress, type LibvirtAddress } from './libvirt/address.js';
import { domainAt, placeText, socketAt, type Place } from './place.js';

export const DEFAULT_CONFIG_FILE = '/etc/fsfreeze-bridge/vms.json';

export interface Vm {
  /** For people, and to find it by again; which VM it is, its identity tells (identity.ts). */
  readonly name: string;
  /** Named by what it is: whatever else answers where it was reached is another VM. */
  readonly identity?: VmIdentity;
  /** Where its disks are cut: the socket of its monitor (QMP), or libvirt. */
  readonly monitor: Place;
  /** Where its agent is asked: the socket of its channel, or libvirt. */
  readonly agent?: Place;
  /** Where overlays go; without it, beside the image they lie on. */
  readonly overlayDir?: string;
}

export type ShownVm = Omit<Vm, 'monitor' | 'agent'> & { readonly qmp: string; readonly qga?: string };

/** A VM as it is shown (`--json`): places as their users type them, members in the order in which they were set. */
export function shownVm(vm: Vm): ShownVm {
  const names: Readonly<Record<string, string>> = { monitor: 'qmp', agent: 'qga' };
  const { monitor, agent } = vm;
  const texts: Readonly<Record<string, unknown>> = {
    monitor: placeText(monitor),
    agent: agent === undefined ? '' : placeText(agent),
  };
  const shown = Object.entries(vm).map(([key, value]: [string, unknown]) => [names[key] ?? key, texts[key] ?? value]);
  return Object.fromEntries(shown) as ShownVm;
}

const absolutePath = v.pipe(v.string(), v.startsWith('/', 'expected an absolute path'));
const configSchema = v.strictObject({
  vms: v.record(
    v.pipe(v.string(), v.regex(namePattern, 'expected letters, digits, dot, dash, underscore')),
    v.pipe(
      v.strictObject({
        /** A libvirt domain, and libvirt's URI ... */
        libvirt: v.optional(v.pipe(v.string(), v.minLength(1, 'expected the name of a domain'))),
        connect: v.optional(v.string()),
        /** ... or the sockets of a plain QEMU. */
        qmp: v.optional(absolutePath),
        qga: v.optional(absolutePath),
        overlayDir: v.optional(absolutePath),
      }),
      v.check(
        ({ libvirt, connect, qmp, qga }) =>
          libvirt === undefined ? qmp !== undefined && connect === undefined : qmp === undefined && qga === undefined,
        'expected either libvirt (and connect) or qmp (and qga)',
      ),
    ),
  ),
});

export interface VmChoice {
  /** An entry of the configuration, or `libvirt:DOMAIN`. */
  readonly vm?: string | undefined;
  /** libvirt's URI, for `libvirt:DOMAIN`. */
  readonly connect?: string | undefined;
  readonly qmp?: string | undefined;
  readonly qga?: string | undefined;
  readonly overlayDir?: string | undefined;
  readonly config: string;
  /** Finds a VM that is no entry of the configuration, but was worked on before, by its name or its UUID. */
  readonly recorded?: (name: string) => Promise<Vm | undefined>;
}

/**
 * The VM meant by the command line. With `qmp`, the configuration is not read and `vm` only names it (its UUID: which one
 * has to be there); paths given beat those configured. Throws a UsageError that says what is missing.
 */
export async function chooseVm(choice: VmChoice): Promise<Vm> {
  const { vm, connect, qmp, qga, overlayDir, config, recorded } = choice;
  const given = {
    ...(qga === undefined ? {} : { agent: socketAt(resolve(qga)) }),
    ...(overlayDir === undefined ? {} : { overlayDir: resolve(overlayDir) }),
  };
  const domain = vm === undefined ? undefined : parseLibvirtAddress(vm);
  if (domain !== undefined) {
    if (qmp !== undefined || qga !== undefined) {
      throw new UsageError('E_NO_VM', `--vm ${vm ?? ''} needs no --qmp and no --qga: libvirt has both`);
    }
    return { ...domainVm({ ...domain, uri: connect ?? domain.uri }), ...given };
  }
  if (connect !== undefined) throw new UsageError('E_NO_VM', '--connect needs a domain: --vm libvirt:NAME');
  if (qmp !== undefined) {
    const path = resolve(qmp);
    const name = checkName('VM name', vm ?? nameFromPath(path));
    const uuid = uuidPattern.test(name) ? name.toLowerCase() : undefined;
    const identity: VmIdentity | undefined = uuid === undefined ? undefined : { kind: 'uuid', uuid };
    return { name, ...defined({ identity }), monitor: socketAt(path), ...given };
  }
  if (vm === undefined) {
    const message = 'which VM? Give --vm NAME, --vm libvirt:DOMAIN, or --qmp PATH (and --qga PATH)';
    throw new UsageError('E_NO_VM', message);
  }
  return { ...(await namedVm(vm, config, recorded)), ...given };
}

async function namedVm(name: string, config: string, recorded: VmChoice['recorded']): Promise<Vm> {
  let vms: Readonly<Record<string, ConfigEntry>> = {};
  let missing: Error | undefined;
  try {
    vms = await readConfig(config);
  } catch (error) {
    // A configuration that is wrong is told of, whatever was asked for.
    if (!isMissing(error)) throw error;
    missing = error;
  }
  const entry = Object.hasOwn(vms, name) ? vms[name] : undefined;
  if (entry !== undefined) return configuredVm(name, entry);
  const known = await recorded?.(name);
  if (known !== undefined) return known;
  if (missing !== undefined) throw missing;
  const there = Object.keys(vms).join(', ') || 'none';
  throw new UsageError('E_NO_VM', `no VM ${JSON.stringify(name)} in ${config} (there: ${there})`);
}

function domainVm(address: LibvirtAddress, name = nameFromPath(address.domain)): Vm {
  if (address.domain === '') throw new UsageError('E_NO_VM', 'libvirt:NAME: expected the name of a domain, found none');
  const place = domainAt(address);
  return { name: checkName('VM name', name), monitor: place, agent: place };
}

function configuredVm(name: string, entry: ConfigEntry): Vm {
  const { libvirt, connect, qmp = '', qga, overlayDir } = entry;
  const vm =
    libvirt === undefined
      ? { name, monitor: socketAt(qmp), ...(qga === undefined ? {} : { agent: socketAt(qga) }) }
      : domainVm({ domain: libvirt, uri: connect }, name);
  return { ...vm, ...defined({ overlayDir }) };
}

/** All entries; empty if the file is not there and need not be. Throws a UsageError for a file that cannot be read. */
export async function readConfiguredVms(config: string, mustExist: boolean): Promise<readonly Vm[]> {
  try {
    const vms = await readConfig(config);
    return Object.entries(vms).map(([name, entry]) => configuredVm(name, entry));
  } catch (error) {
    if (!mustExist && isMissing(error)) return [];
    throw error;
  }
}

function isMissing(error: unknown): error is UsageError {
  return error instanceof UsageError && isErrno(error.cause, 'ENOENT');
}

type ConfigEntry = v.InferOutput<typeof configSchema>['vms'][string];

async function readConfig(file: string): Promise<Readonly<Record<string, ConfigEntry>>> {
  let json: unknown;
  try {
    json = JSON.parse(await readFile(file, 'utf8'));
  } catch (cause) {
    throw new UsageError('E_CONFIG', `cannot read configuration ${file}`, { cause });
  }
  const parsed = v.safeParse(configSchema, json);
  if (parsed.success) return parsed.output.vms;
  const [issue] = parsed.issues;
  throw new UsageError('E_CONFIG', `configuration ${file}: ${v.getDotPath(issue) ?? 'the whole'}: ${issue.message}`);
}
