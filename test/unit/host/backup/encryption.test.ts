// What a run must be, encrypted or not, after those that are there.
import { expect, test } from 'vitest';
import { checkEncryption, whyNotAlike } from '../../../../src/host/backup/encryption.js';
import { LuksKey } from '../../../../src/host/images/luks-key.js';
import { VmFolder } from '../../../../src/host/repository/layout.js';
import type { RunManifest } from '../../../../src/host/repository/run-manifest.js';
import type { VmDisk } from '../../../../src/qmp/block-graph.js';
import { runDisk, runNumbered, runOf } from '../../../support/runs.js';
import { vmDisk } from '../../../support/vm-disks.js';

const { signal } = new AbortController();
const folder = new VmFolder('/nonexistent', 'vm');
const key = new LuksKey(Buffer.from('a passphrase'), 'a test');
const encryption = { format: 'luks', cipher: 'aes-256-xts-plain64' } as const;
const encryptedDisk = runDisk('data0', { file: { ...runDisk('data0').file, encryption } });
const encrypted = (number: number): RunManifest => runOf(number, undefined, { disks: [encryptedDisk] });

interface Asked {
  readonly encrypt: LuksKey | false | undefined;
  readonly isNewKey?: boolean;
  readonly forgotten?: readonly string[];
  readonly unreadable?: readonly string[];
  readonly whyNoEncryption?: string;
  readonly disk?: VmDisk;
}
const check = async (all: readonly RunManifest[], asked: Asked) => {
  const { encrypt, isNewKey = false, forgotten = [], unreadable = [], whyNoEncryption, disk = vmDisk('data0') } = asked;
  const lost = unreadable.map((run) => ({ run, reason: 'no JSON' }));
  const runs = { all, forgotten: new Set(forgotten), unreadable: lost };
  await checkEncryption({ whyNoEncryption }, folder, runs, [disk], { encrypt, isNewKey, signal });
};
const refused = (text: string) => ({ code: 'E_KEY', message: expect.stringContaining(text) as string });
const isEncrypted = refused(`run ${runNumbered(2)} is encrypted: give --encrypt and its key`);

test('nothing said is clear text, unless the newest run is encrypted, forgotten or not', async () => {
  await check([], { encrypt: undefined });
  await check([encrypted(1), runOf(2)], { encrypt: undefined });
  await expect(check([runOf(1), encrypted(2)], { encrypt: undefined })).rejects.toMatchObject(isEncrypted);
  const forgotten = [runNumbered(2)];
  await expect(check([runOf(1), encrypted(2)], { encrypt: undefined, forgotten })).rejects.toMatchObject(isEncrypted);
  await check([encrypted(1)], { encrypt: false });
});

test('a disk whose own newest run is encrypted is not followed in silence, whatever other disks are', async () => {
  const all = [encrypted(2), runOf(3, undefined, { disks: [runDisk('root0')] })];
  await expect(check(all, { encrypt: undefined })).rejects.toMatchObject(isEncrypted);
  await check(all, { encrypt: undefined, disk: vmDisk('root0') });
  // Shut off, and with a snapshot since: its image tells.
  const disk = vmDisk('fsb0', { serial: 'fsb0', file: '/img/s.qcow2', backingFiles: ['/img/data0.qcow2'] });
  await expect(check(all, { encrypt: undefined, disk })).rejects.toMatchObject(isEncrypted);
});

test('a newer run that cannot be read may be encrypted', async () => {
  const unreadable = [runNumbered(2)];
  const asked = { encrypt: undefined, unreadable };
  await expect(check([runOf(1)], asked)).rejects.toMatchObject(refused(`run ${runNumbered(2)} may be encrypted`));
  await check([runOf(1)], { encrypt: false, unreadable });
  await check([runOf(3)], asked);
});

test('a hypervisor that cannot is told of, and what can be done', async () => {
  const asked = { encrypt: key, whyNoEncryption: 'libvirt cannot' };
  await expect(check([], asked)).rejects.toMatchObject({ code: 'E_USAGE', message: '--encrypt: libvirt cannot' });
});

test('a key that cannot be tried, as the files are lost, is taken as a new one alone', async () => {
  await check([runOf(1)], { encrypt: key });
  await expect(check([encrypted(1), runOf(2)], { encrypt: key })).rejects.toMatchObject(
    refused(`data0.qcow2 of run ${runNumbered(1)}: /nonexistent`),
  );
  await check([encrypted(1)], { encrypt: key, isNewKey: true });
});

test('a chain is encrypted as a whole, or not at all', () => {
  expect(whyNotAlike(encryptedDisk, 'R', true)).toBeUndefined();
  expect(whyNotAlike(runDisk('data0'), 'R', false)).toBeUndefined();
  expect(whyNotAlike(encryptedDisk, 'R', false)).toBe('run R is encrypted, and this one is not');
  expect(whyNotAlike(runDisk('data0'), 'R', true)).toBe('run R is not encrypted, and this one is');
});
