// `backup verify --boot` with a real QEMU whose guest halts at once: no agent ever answers. What is recorded, what is not,
// and that nothing is left, however it ends. A guest that comes up is test/vm/backup.test.ts.
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { RunManifest } from '../../src/host/repository/run-manifest.js';
import { HOST_TOOL } from '../../vm-images/demo/bridge.js';
import type { BareDisk } from '../support/bare-qemu.js';
import { BackupHarness } from '../support/backup-harness.js';
import { requires } from '../support/requires.js';

const disks: readonly BareDisk[] = [
  { name: 'root0', format: 'raw' },
  { name: 'data0', format: 'qcow2' },
];

let vm: BackupHarness;
let scratch: string;
let full: RunManifest;
beforeEach(async () => {
  vm = await BackupHarness.start(disks);
  scratch = vm.at.folder.path('boot');
  mkdirSync(scratch);
  await vm.write('data0', 1, 0, 64);
  ({ made: full } = await vm.run());
});
afterEach(async () => {
  await vm[Symbol.asyncDispose]();
});

const words = (...more: readonly string[]): string[] => {
  const place = more.includes('--scratch') ? [] : ['--scratch', scratch];
  return ['backup', 'verify', '--boot', '--accel', 'tcg', ...place, '--repo', vm.repository, ...more];
};
const boot = async (...more: readonly string[]) => await vm.at.onRepository(words('latest', ...more));
/** Of all that was published. */
const sums = (): string[] => {
  const run = vm.stored(full.run);
  const names = readdirSync(run, { recursive: true, encoding: 'utf8' }).sort();
  const files = names.filter((name) => statSync(join(run, name)).isFile());
  return files.map(
    (name) =>
      `${name} ${createHash('sha256')
        .update(readFileSync(join(run, name)))
        .digest('hex')}`,
  );
};
/** Process ids of QEMUs that have something in the scratch folder, and of the tool that was given it. */
const guests = (program = ''): string[] => {
  const isOne = (pid: string): boolean => {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      return words.startsWith(program) && words.includes(scratch);
    } catch {
      return false;
    }
  };
  const own = String(process.pid);
  return readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && pid !== own && isOne(pid));
};
/** The tool as users get it, once its guest runs. */
const spawned = async () => {
  const given = words('latest', '--boot-timeout', '60', '--json');
  const child = execa(process.execPath, [HOST_TOOL, ...given], { reject: false, stdin: 'ignore' });
  // QEMU listens, and has its images open.
  const runs = (): boolean => {
    const there = readdirSync(scratch, { recursive: true, encoding: 'utf8' });
    return there.some((name) => name.endsWith('/qmp')) && !there.some((name) => name.includes('/disk'));
  };
  for (let tries = 0; !runs(); tries++) {
    if (tries > 400) throw new Error(`no guest: ${(await child).stderr}`);
    await sleep(25);
  }
  return { child };
};
const noneLeft = async (): Promise<void> => {
  for (let tries = 0; guests().length > 0 && tries < 200; tries++) await sleep(25);
  expect(guests()).toEqual([]);
};

requires('qemu-system-x86_64', 'qemu-img')('a backup whose guest does not come up', () => {
  test('fails its boot test, ends its chain, and is as it was', async () => {
    await vm.write('data0', 2, 64, 64);
    const before = sums();
    const failed = await boot('--boot-timeout', '2');
    expect(failed.error.message).toBe('none');
    expect(failed).toMatchObject({
      code: 10,
      json: {
        exitCode: 10,
        runs: [
          {
            run: full.run,
            problems: [],
            boot: { accelerator: 'tcg', checks: [], problems: ['no agent answered within 2 s'] },
          },
        ],
      },
    });
    expect(sums()).toEqual(before);
    expect(readdirSync(scratch)).toEqual([]);
    expect(guests()).toEqual([]);
    const screen = readFileSync(vm.stored('booted', `${full.run}.png`));
    expect(screen.subarray(1, 4).toString()).toBe('PNG');
    expect(statSync(vm.stored('booted', `${full.run}.log`)).isFile()).toBe(true);
    const listed = await vm.at.onRepository(['backup', 'list', '--repo', vm.repository]);
    expect(JSON.stringify(listed.json)).toContain('no agent answered within 2 s');
    const next = await vm.run();
    expect(next.made.disks.map(({ kind, why }) => [kind, why])).toEqual([
      ['full', `no increment of run ${full.run}: run ${full.run} failed its boot test (no agent answered within 2 s)`],
      ['full', `no increment of run ${full.run}: run ${full.run} failed its boot test (no agent answered within 2 s)`],
    ]);
    expect(await vm.differences(next.made.run)).toEqual([]);
  });

  test('is not booted if its files are damaged, unless they are not looked at', async () => {
    rmSync(vm.stored(full.run, 'machine.json'));
    const verified = await boot('--boot-timeout', '1');
    expect(verified.code).toBe(10);
    expect(JSON.stringify(verified.json)).toContain('machine.json');
    expect(JSON.stringify(verified.json)).not.toContain('"boot"');
    expect(await boot('--no-sums')).toMatchObject({ code: 2, error: { code: 'E_BOOT' } });
    expect(existsSync(vm.stored('booted'))).toBe(false);
  });

  test.each([
    ['a machine that QEMU does not know', ['--machine', 'nonesuch'], 'E_BOOT', 'unsupported machine type'],
    ['a word that QEMU does not know', ['--qemu-arg=-nonesuch'], 'E_BOOT', 'did not start'],
    ['a scratch folder that is not there', ['--scratch', '/nonesuch'], 'E_BOOT', '--scratch'],
  ])('is not judged with %s, which is said', async (_what, more, code, text) => {
    const refused = await boot(...more);
    expect(refused.code).toBe(2);
    expect(refused.error.code).toBe(code);
    expect(refused.error.message).toContain(text);
    expect(existsSync(vm.stored('booted'))).toBe(false);
    expect(readdirSync(scratch)).toEqual([]);
  });

  test('is not judged where nobody knows its machine, until its user says it', async () => {
    const file = vm.stored(full.run, 'manifest.json');
    const manifest = JSON.parse(readFileSync(file, 'utf8')) as RunManifest;
    rmSync(file);
    // As an older version made it.
    writeFileSync(file, JSON.stringify({ ...manifest, saved: [] }));
    const refused = await boot('--no-sums', '--boot-timeout', '1');
    expect(refused).toMatchObject({ code: 2, error: { code: 'E_BOOT' } });
    expect(refused.error.message).toContain('give --machine and --memory');
    const given = ['--machine', 'pc', '--memory', '64M', '--disk-bus', 'scsi'];
    const failed = await boot('--no-sums', '--boot-timeout', '2', ...given);
    expect(failed).toMatchObject({ code: 10, json: { runs: [{ boot: { checks: [] } }] } });
  });

  test.each([
    [
      'a device of the host',
      { disks: [{ id: 'root0', model: 'scsi-hd', controller: 'vhost-vsock-pci' }] },
      'on a vhost-',
    ],
    ['options of QEMU', { machine: 'pc,dumpdtb=nonesuch' }, 'describes no machine: machine'],
    ['a program', { arch: '../evil' }, 'describes no machine: arch'],
    ['a machine of another kind', { arch: 'evil' }, 'found evil'],
  ])('gives QEMU nothing of a forged record that names %s', async (_what, forged, text) => {
    const file = vm.stored(full.run, 'machine.json');
    const facts = JSON.stringify({ ...(JSON.parse(readFileSync(file, 'utf8')) as object), ...forged });
    rmSync(file);
    writeFileSync(file, facts);
    const record = vm.stored(full.run, 'manifest.json');
    const manifest = JSON.parse(readFileSync(record, 'utf8')) as RunManifest;
    const sum = { size: facts.length, sha256: createHash('sha256').update(facts).digest('hex') };
    rmSync(record);
    writeFileSync(record, JSON.stringify({ ...manifest, saved: manifest.saved.map((each) => ({ ...each, ...sum })) }));
    const refused = await boot('--boot-timeout', '1');
    expect(refused).toMatchObject({ code: 2, error: { code: 'E_BOOT' } });
    expect(refused.error.message).toContain(text);
    expect(existsSync(vm.stored('booted'))).toBe(false);
  });

  test('is started on what it hung on, with a copy of the variables of its firmware', async () => {
    const odd: readonly BareDisk[] = [
      { name: 'root0', format: 'raw' },
      { name: 'data0', format: 'qcow2', scsi: true },
    ];
    const variables = vm.at.folder.path('vars.fd');
    const flash = (unit: number, file: string): string[] => [
      '-drive',
      `if=pflash,unit=${unit},format=raw,file=${file}`,
    ];
    writeFileSync(variables, Buffer.alloc(65_536, 'variables'));
    await vm.at.restart(odd, [...flash(0, `${vm.at.folder.path('halt.bin')},readonly=on`), ...flash(1, variables)]);
    ({ made: full } = await vm.run());
    expect(JSON.parse(readFileSync(vm.stored(full.run, 'machine.json'), 'utf8'))).toMatchObject({
      machine: expect.stringMatching(/^pc-q35-/) as string,
      disks: [{ id: 'root0' }, { id: 'data0', model: 'scsi-hd', controller: 'virtio-scsi-pci' }],
      flash: [
        { file: vm.at.folder.path('halt.bin'), readOnly: true },
        { file: variables, readOnly: false },
      ],
    });
    const before = sums();
    const failed = await boot('--boot-timeout', '2');
    expect(failed.error.message).toBe('none');
    expect(failed).toMatchObject({
      json: { runs: [{ boot: { problems: ['no agent answered within 2 s'], notes: [] } }] },
    });
    expect(sums()).toEqual(before);
    chmodSync(vm.repository, 0o777);
    const named = await boot('--no-sums');
    expect(named).toMatchObject({ code: 2, error: { code: 'E_BOOT' } });
    expect(named.error.message).toMatch(
      /halt.bin, the firmware of the guest, is named by a record that others may change/,
    );
    chmodSync(vm.repository, 0o750);
    rmSync(vm.at.folder.path('halt.bin'));
    expect((await boot('--no-sums')).error.message).toContain(
      'halt.bin, the firmware of the guest, is not on this host',
    );
  });

  test('is not judged by a tool that is interrupted, and its guest ends', async () => {
    const { child } = await spawned();
    child.kill('SIGTERM');
    expect(await child).toMatchObject({ exitCode: 4 });
    await noneLeft();
    expect(readdirSync(scratch)).toEqual([]);
    expect(existsSync(vm.stored('booted'))).toBe(false);
  });

  test('is not judged where its guest is killed, which is said', async () => {
    const { child } = await spawned();
    for (const pid of guests('qemu-system-')) process.kill(Number(pid), 'SIGKILL');
    const { exitCode, stdout } = await child;
    expect(exitCode, stdout).toBe(5);
    const { error } = JSON.parse(stdout) as { error: { code: string; message: string } };
    expect(error).toMatchObject({ code: 'E_BOOT', message: expect.stringContaining('ended by SIGKILL') as string });
    expect(readdirSync(scratch)).toEqual([]);
    expect(existsSync(vm.stored('booted'))).toBe(false);
  });

  test('is not judged where its guest is stopped together with the tool', async () => {
    const { child } = await spawned();
    for (const pid of guests('qemu-system-')) process.kill(Number(pid), 'SIGTERM');
    child.kill('SIGTERM');
    const { exitCode } = await child;
    expect([4, 5]).toContain(exitCode);
    expect(existsSync(vm.stored('booted'))).toBe(false);
  });

  test('leaves no guest, and no image, behind a tool that is killed', async () => {
    const before = sums();
    const { child } = await spawned();
    child.kill('SIGKILL');
    await child;
    await noneLeft();
    const left = readdirSync(scratch, { recursive: true, encoding: 'utf8' }).filter((name) => /disk\d/.test(name));
    expect(left).toEqual([]);
    expect(sums()).toEqual(before);
    const next = await vm.run();
    expect(next.made.disks.map(({ kind }) => kind)).toEqual(['incremental', 'incremental']);
  });
});
