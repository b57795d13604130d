// Which VM is meant: socket paths or a libvirt domain given on the command line, or an entry of the configuration file
// (validated whole: a misspelt member must not silently mean "no agent").
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import * as v from 'valibot';
import { UsageError } from '../../errors.js';
import { isErrno } from '../errno.js';
import { checkName, namePattern } from '../names.js';
import { libvirtAddress, parseLibvirtAddress, type LibvirtAddress } from './libvirt/address.js';

export const defaultConfigFile = '/etc/fsfreeze-bridge/vms.json';

export interface Vm {
  /** Names the folder of its manifests. */
  readonly name: string;
  /** Where its disks are cut: monitor socket (QMP), or `libvirt:DOMAIN`. */
  readonly qmp: string;
  /** Where its agent is asked: socket of the channel, or `libvirt:DOMAIN`. */
  readonly qga?: string;
  /** Where overlays go; without it, beside the image they lie on. */
  readonly overlayDir?: string;
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
}

/**
 * The VM meant by the command line. With `qmp`, the configuration is not read and `vm` only names it; paths given beat
 * those configured. Throws a UsageError that says what is missing.
 */
export async function chooseVm({ vm, connect, qmp, qga, overlayDir, config }: VmChoice): Promise<Vm> {
  const given = {
    ...(qga === undefined ? {} : { qga: resolve(qga) }),
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
    return { name: checkName('VM name', vm ?? nameFromPath(path)), qmp: path, ...given };
  }
  if (vm === undefined) {
    const message = 'which VM? Give --vm NAME, --vm libvirt:DOMAIN, or --qmp PATH (and --qga PATH)';
    throw new UsageError('E_NO_VM', message);
  }
  const vms = await readConfig(config);
  const entry = Object.hasOwn(vms, vm) ? vms[vm] : undefined;
  if (entry === undefined) {
    const known = Object.keys(vms).join(', ') || 'none';
    throw new UsageError('E_NO_VM', `no VM ${JSON.stringify(vm)} in ${config} (there: ${known})`);
  }
  return { ...configuredVm(vm, entry), ...given };
}

function domainVm(address: LibvirtAddress, name = nameFromPath(address.domain)): Vm {
  if (address.domain === '') throw new UsageError('E_NO_VM', 'libvirt:NAME: expected the name of a domain, found none');
  const where = libvirtAddress(address);
  return { name: checkName('VM name', name), qmp: where, qga: where };
}

function configuredVm(name: string, entry: ConfigEntry): Vm {
  const { libvirt, connect, qmp = '', qga, overlayDir } = entry;
  const where =
    libvirt === undefined
      ? { name, qmp, ...(qga === undefined ? {} : { qga }) }
      : domainVm({ domain: libvirt, uri: connect }, name);
  return { ...where, ...(overlayDir === undefined ? {} : { overlayDir }) };
}

/** All entries; none if the file is not there and need not be. Throws a UsageError for one that cannot be read. */
export async function readConfiguredVms(config: string, mustExist: boolean): Promise<readonly Vm[]> {
  try {
    const vms = await readConfig(config);
    return Object.entries(vms).map(([name, entry]) => configuredVm(name, entry));
  } catch (error) {
    if (!mustExist && error instanceof UsageError && isErrno(error.cause, 'ENOENT')) return [];
    throw error;
  }
}

/** `/run/vm1/qmp.sock` -> `run-vm1-qmp.sock`: the same VM finds its manifests again when it is shut off. */
function nameFromPath(path: string): string {
  return path
    .replace(/^\/+/, '')
    .replace(/[^A-Za-z0-9._]+/g, '-')
    .slice(-100)
    .replace(/^[^A-Za-z0-9]+/, '');
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
