// Which VM is meant: socket paths given on the command line, or an entry of the configuration file (validated whole:
// a misspelt member must not silently mean "no agent").
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import * as v from 'valibot';
import { UsageError } from '../errors.js';
import { isErrno } from './errno.js';

export const defaultConfigFile = '/etc/fsfreeze-bridge/vms.json';

export interface Vm {
  /** Names the folder of its manifests. */
  readonly name: string;
  /** Monitor socket (QMP). */
  readonly qmp: string;
  /** Socket of the guest agent's channel. */
  readonly qga?: string;
  /** Where overlays go; without it, beside the image they lie on. */
  readonly overlayDir?: string;
}

/** One path component that needs no quoting anywhere: VMs and snapshot sets. */
const namePattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;
const absolutePath = v.pipe(v.string(), v.startsWith('/', 'expected an absolute path'));
const configSchema = v.strictObject({
  vms: v.record(
    v.pipe(v.string(), v.regex(namePattern, 'expected letters, digits, dot, dash, underscore')),
    v.strictObject({
      qmp: absolutePath,
      qga: v.optional(absolutePath),
      overlayDir: v.optional(absolutePath),
    }),
  ),
});

export interface VmChoice {
  readonly vm?: string | undefined;
  readonly qmp?: string | undefined;
  readonly qga?: string | undefined;
  readonly overlayDir?: string | undefined;
  readonly config: string;
}

/**
 * The VM meant by the command line. With `qmp`, the configuration is not read and `vm` only names it; paths given beat
 * those configured. Throws a UsageError that says what is missing.
 */
export async function chooseVm({ vm, qmp, qga, overlayDir, config }: VmChoice): Promise<Vm> {
  const given = {
    ...(qga === undefined ? {} : { qga: resolve(qga) }),
    ...(overlayDir === undefined ? {} : { overlayDir: resolve(overlayDir) }),
  };
  if (qmp !== undefined) {
    const path = resolve(qmp);
    return { name: checkName('VM name', vm ?? nameFromPath(path)), qmp: path, ...given };
  }
  if (vm === undefined) throw new UsageError('E_NO_VM', 'which VM? Give --qmp PATH (and --qga PATH), or --vm NAME');
  const vms = await readConfig(config);
  const entry = Object.hasOwn(vms, vm) ? vms[vm] : undefined;
  if (entry === undefined) {
    const known = Object.keys(vms).join(', ') || 'none';
    throw new UsageError('E_NO_VM', `no VM ${JSON.stringify(vm)} in ${config} (there: ${known})`);
  }
  return {
    name: vm,
    qmp: entry.qmp,
    ...(entry.qga === undefined ? {} : { qga: entry.qga }),
    ...(entry.overlayDir === undefined ? {} : { overlayDir: entry.overlayDir }),
    ...given,
  };
}

/** All entries; none if the file is not there and need not be. Throws a UsageError for one that cannot be read. */
export async function readConfiguredVms(config: string, mustExist: boolean): Promise<readonly Vm[]> {
  try {
    const vms = await readConfig(config);
    return Object.entries(vms).map(([name, { qmp, qga, overlayDir }]) => ({
      name,
      qmp,
      ...(qga === undefined ? {} : { qga }),
      ...(overlayDir === undefined ? {} : { overlayDir }),
    }));
  } catch (error) {
    if (!mustExist && error instanceof UsageError && isErrno(error.cause, 'ENOENT')) return [];
    throw error;
  }
}

/** Gives the name back. Throws a UsageError unless it is 1-100 letters, digits, dots, dashes and underscores. */
export function checkName(what: string, name: string): string {
  if (namePattern.test(name)) return name;
  throw new UsageError(
    'E_NAME',
    `${what}: expected 1 to 100 of A-Z a-z 0-9 . _ - (the first a letter or digit), found ${JSON.stringify(name)}`,
  );
}

/** `/run/vm1/qmp.sock` -> `run-vm1-qmp.sock`: the same VM finds its manifests again when it is shut off. */
function nameFromPath(path: string): string {
  return path
    .replace(/^\/+/, '')
    .replace(/[^A-Za-z0-9._]+/g, '-')
    .slice(-100)
    .replace(/^[^A-Za-z0-9]+/, '');
}

async function readConfig(file: string): Promise<v.InferOutput<typeof configSchema>['vms']> {
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
