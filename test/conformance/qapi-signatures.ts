import { defined } from '../../src/defined.js';
// The arguments of qemu-ga's commands, from QEMU's own schema (qga/qapi-schema.json, 7.2 and 10.2): data for the
// exchanges that are wrong on purpose. Apart from src/qga's declarations, which are what is being tested.

export type QapiType = 'integer' | 'string' | 'boolean' | QapiList | QapiStruct | QapiAlternate;
interface QapiList {
  readonly list: QapiType;
}
interface QapiStruct {
  readonly struct: Readonly<Record<string, QapiType>>;
}
interface QapiAlternate {
  /** JSON values that are fine, ones that are not. */
  readonly good: string;
  readonly bad: readonly string[];
}

export interface Signature {
  readonly name: string;
  /** With `*`, optional. In the schema's order. */
  readonly args: Readonly<Record<string, QapiType>>;
  /** Reads and changes nothing, and needs no argument: may be sent as it is. */
  readonly readOnly?: true;
  /** Only the agents that have it: in all if not given. */
  readonly only?: '7.2' | '10.0';
}

const processor: QapiType = { struct: { 'logical-id': 'integer', online: 'boolean', '*can-offline': 'boolean' } };
const block: QapiType = { struct: { 'phys-index': 'integer', online: 'boolean', '*can-offline': 'boolean' } };
const whence: QapiType = { good: '"set"', bad: ['"bad"', '""', '"SET"', '3.5', 'null', 'true', '[]', '{}'] };
const capture: QapiType = { good: 'true', bad: ['"bad"', '""', '7', 'null', '[]', '{}'] };
const strings: QapiType = { list: 'string' };

const signature = (name: string, args: Signature['args'] = {}): Signature => ({ name, args });
const reads = (name: string, only?: Signature['only']): Signature => ({
  name,
  args: {},
  readOnly: true,
  ...defined({ only }),
});

/** Windows' own: Debian's 7.2 names it and refuses it, 10.0 does not know it. */
export const qapiCommandsElsewhere: ReadonlySet<string> = new Set(['guest-get-devices']);

export const signatures: readonly Signature[] = [
  signature('guest-sync-delimited', { id: 'integer' }),
  signature('guest-sync', { id: 'integer' }),
  reads('guest-ping'),
  reads('guest-get-time'),
  signature('guest-set-time', { '*time': 'integer' }),
  reads('guest-info'),
  signature('guest-shutdown', { '*mode': 'string' }),
  signature('guest-file-open', { path: 'string', '*mode': 'string' }),
  signature('guest-file-close', { handle: 'integer' }),
  signature('guest-file-read', { handle: 'integer', '*count': 'integer' }),
  signature('guest-file-write', { handle: 'integer', 'buf-b64': 'string', '*count': 'integer' }),
  signature('guest-file-seek', { handle: 'integer', offset: 'integer', whence }),
  signature('guest-file-flush', { handle: 'integer' }),
  reads('guest-fsfreeze-status'),
  signature('guest-fsfreeze-freeze'),
  signature('guest-fsfreeze-freeze-list', { '*mountpoints': strings }),
  signature('guest-fsfreeze-thaw'),
  signature('guest-fstrim', { '*minimum': 'integer' }),
  signature('guest-suspend-disk'),
  signature('guest-suspend-ram'),
  signature('guest-suspend-hybrid'),
  reads('guest-network-get-interfaces'),
  reads('guest-get-vcpus'),
  signature('guest-set-vcpus', { vcpus: { list: processor } }),
  reads('guest-get-disks'),
  reads('guest-get-fsinfo'),
  signature('guest-set-user-password', { username: 'string', password: 'string', crypted: 'boolean' }),
  reads('guest-get-memory-blocks'),
  signature('guest-set-memory-blocks', { 'mem-blks': { list: block } }),
  reads('guest-get-memory-block-info'),
  signature('guest-exec-status', { pid: 'integer' }),
  signature('guest-exec', {
    path: 'string',
    '*arg': strings,
    '*env': strings,
    '*input-data': 'string',
    '*capture-output': capture,
  }),
  reads('guest-get-host-name'),
  reads('guest-get-users'),
  reads('guest-get-timezone'),
  reads('guest-get-osinfo'),
  reads('guest-get-devices', '7.2'),
  signature('guest-ssh-get-authorized-keys', { username: 'string' }),
  signature('guest-ssh-add-authorized-keys', { username: 'string', keys: strings, '*reset': 'boolean' }),
  signature('guest-ssh-remove-authorized-keys', { username: 'string', keys: strings }),
  reads('guest-get-diskstats'),
  reads('guest-get-cpustats'),
  reads('guest-get-load', '10.0'),
  reads('guest-network-get-route', '10.0'),
];
