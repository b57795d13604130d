// `backup restore --start` with a real QEMU whose guest halts at once: what is in its images and when, what the repository
// keeps meanwhile, and what is left, however tool and QEMU end. A guest that comes up is test/vm/backup.test.ts.
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { checkWhole } from '../../src/host/start/stream-images.js';
import { QmpClient } from '../../src/qmp/client.js';
import { HOST_TOOL } from '../../vm-images/demo/bridge.js';
import { BackupHarness } from '../support/backup-harness.js';
import type { BareDisk } from '../support/bare-qemu.js';
import type { Run } from '../support/cut-harness.js';
import { requires } from '../support/requires.js';
import { difference, type State } from '../support/restored-runs.js';

const disks: readonly BareDisk[] = [
  { name: 'root0', format: 'raw' },
  { name: 'data0', format: 'qcow2' },
];
/** Kilobytes: what the guest writes while its disks are copied, and where. */
const OWN = { pattern: 9, at: 6144, length: 64 };

let vm: BackupHarness;
let run: string;
let dir: string;
/** Processes of QEMU that a test has to end. */
const left: number[] = [];
beforeEach(async () => {
  vm = await BackupHarness.start(disks);
  for (const { name } of disks) await vm.write(name, 1, 0, 8192);
  await vm.run();
  for (const { name } of disks) await vm.write(name, 2, 1024, 256);
  run = (await vm.run()).made.run;
  await vm.at.vm.quit();
  dir = vm.path('started');
});
afterEach(async () => {
  vi.unstubAllEnvs();
  for (const pid of left.splice(0)) if (lives(pid)) process.kill(pid, 'SIGKILL');
  await vm[Symbol.asyncDispose]();
});

const words = (...more: readonly string[]): string[] => {
  const accelerator = more.includes('--accel') ? [] : ['--accel', 'tcg'];
  const state = ['--state-dir', vm.path('state')];
  const given = ['--start', ...accelerator, '--boot-timeout', '1', '--repo', vm.repository, ...state];
  return ['backup', 'restore', run, ...(more.includes('--in-place') ? [] : [dir]), ...given, ...more];
};
const start = async (...more: readonly string[]): Promise<Run> => {
  const started = await vm.at.onRepository(words(...more));
  if (typeof started.json['pid'] === 'number') left.push(started.json['pid']);
  return started;
};
const lives = (pid: number): boolean => {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
};
/** The images of the VM, as far as this host knows. */
const known = (): string[] => {
  const record = JSON.parse(readFileSync(vm.at.state('vm.json'), 'utf8')) as { disks: { file: string }[] };
  return record.disks.map(({ file }) => file).sort();
};
const recover = async (...more: readonly string[]): Promise<Run> => await vm.backup('recover', ...more);
const forget = async (): Promise<Run> => await vm.backup('forget', run, '--lock-timeout', '0');
const locks = (): string[] => readdirSync(join(vm.repository, 'locks'));
const image = (disk: string): string => {
  const names = readdirSync(dir).filter((name) => name.endsWith('.qcow2'));
  return join(dir, names.find((name) => name.startsWith(disk)) ?? disk);
};
const backing = async (disk: string): Promise<string | undefined> => {
  const { stdout } = await execa('qemu-img', ['info', '-U', '--output=json', image(disk)]);
  return (JSON.parse(stdout) as { 'backing-filename'?: string })['backing-filename'];
};
/** How the images of a VM that is shut off differ from that. */
const differences = async (state: State | undefined): Promise<string[]> => {
  const found: string[] = [];
  for (const { name } of disks) {
    const raw = vm.path('read.raw');
    await execa('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', image(name), raw]);
    const text = difference(name, readFileSync(raw), state?.get(name));
    if (text !== undefined) found.push(text);
  }
  return found;
};
/** The state of the run, and what the started guest wrote. */
const withOwn = (): State => {
  const state = new Map(vm.states.get(run));
  for (const [name, bytes] of state) {
    state.set(name, Buffer.from(bytes).fill(OWN.pattern, OWN.at * 1024, (OWN.at + OWN.length) * 1024));
  }
  return state;
};

const onMonitor = async <T>(work: (monitor: QmpClient) => Promise<T>): Promise<T> => {
  await using monitor = await QmpClient.connect(join(dir, 'qmp.sock'));
  return await work(monitor);
};
/** The guest writes, and has it on its disk. */
const writeOwn = async (): Promise<void> => {
  await onMonitor(async (monitor) => {
    for (const { qdev } of (await monitor.execute('query-block')) as { qdev: string }[]) {
      for (const line of [`aio_write -P ${OWN.pattern} ${OWN.at}k ${OWN.length}k`, 'aio_flush', 'flush']) {
        const command = { 'command-line': `qemu-io -d ${qdev} "${line}"` };
        expect(await monitor.execute('human-monitor-command', command)).toBe('');
      }
    }
  });
};
const quit = async (): Promise<void> => {
  await onMonitor((monitor) => monitor.execute('quit'));
  await ended();
};
const ended = async (): Promise<void> => {
  for (let tries = 0; left.some(lives); tries++) {
    if (tries > 200) throw new Error(`QEMU has not ended: ${left.join(', ')}`);
    await sleep(25);
  }
};
const answers = async (): Promise<boolean> =>
  await jobs().then(
    () => true,
    () => false,
  );
const jobs = async (): Promise<string[]> => {
  const found = (await onMonitor((monitor) => monitor.execute('query-jobs'))) as { status: string }[];
  return found.map(({ status }) => status);
};

interface Lock {
  readonly owner: { readonly pid: number };
  readonly images?: readonly string[];
}

/** The tool as users get it, once its guest runs and its disks are copied, slowly. */
const streaming = async () => {
  const given = [...words('--limit', '1'), '--json'];
  const child = execa(process.execPath, [HOST_TOOL, ...given], { reject: false, stdin: 'ignore' });
  for (let tries = 0; !existsSync(join(dir, 'qmp.sock')) || !(await jobs()).includes('running'); tries++) {
    if (tries > 400) throw new Error(`nothing is copied: ${(await child).stderr}`);
    await sleep(25);
  }
  const pid = ownerOfImages();
  left.push(pid);
  return { child, pid };
};
/** The QEMU that has them. */
const ownerOfImages = (): number => {
  const owners = locks().map((name) => JSON.parse(readFileSync(join(vm.repository, 'locks', name), 'utf8')) as Lock);
  const pid = owners.find(({ images }) => images !== undefined)?.owner.pid;
  if (pid === undefined) throw new Error(`expected a lock of QEMU's, found ${JSON.stringify(owners)}`);
  return pid;
};
/** A backup and a snapshot set of the started VM. */
const cuts = async (): Promise<Run[]> => {
  const sockets = ['--qmp', join(dir, 'qmp.sock'), '--qga', vm.path('qga.sock'), '--vm', 'bare'];
  const snapshot = ['snapshot', 'create', '--name', 's1', '--require', 'crash'];
  return [await vm.at.tool(...vm.words('--require', 'crash'), ...sockets), await vm.at.tool(...snapshot, ...sockets)];
};
/** As fast as it goes, from now on. */
const hurry = async (): Promise<void> => {
  await onMonitor(async (monitor) => {
    for (const { id } of (await monitor.execute('query-jobs')) as { id: string }[]) {
      await monitor.execute('block-job-set-speed', { device: id, speed: 0 });
    }
  });
};

requires('qemu-system-x86_64', 'qemu-img')('a VM that is started from a backup', () => {
  test('runs at once, has its images to itself in the end, and can be backed up', async () => {
    const started = await start('--accel', 'auto');
    expect(started.error.message).toBe('none');
    expect(started.stdout).toContain('{"event":"started",');
    expect(started).toMatchObject({ code: 0, json: { vm: 'bare', run, target: dir } });
    expect(started.stderr).toContain('no agent answered within 1 s');
    expect(lives(started.json['pid'] as number)).toBe(true);
    for (const { name } of disks) expect(await backing(name)).toBeUndefined();
    expect(readdirSync(dir).filter((name) => name.startsWith('start.'))).toEqual(['start.sock']);
    expect(locks()).toEqual([]);
    expect(known()).toEqual([image('data0'), image('root0')]);
    const second = await vm.at.onRepository(words().map((word) => (word === dir ? vm.path('second') : word)));
    expect(second).toMatchObject({ code: 2, error: { code: 'E_VM_RUNS' } });
    expect(second.error.message).toContain(join(dir, 'qmp.sock'));
    expect((await forget()).code).toBe(0);
    const sockets = ['--qmp', join(dir, 'qmp.sock'), '--qga', vm.path('qga.sock'), '--vm', 'bare'];
    const again = await vm.at.tool(...vm.words('--require', 'crash', '--full'), ...sockets);
    expect(again.error.message).toBe('none');
    await quit();
    expect(await differences(vm.states.get(run))).toEqual([]);
    const made = (again.json as { run: string }).run;
    const target = vm.path('again');
    expect((await vm.backup('restore', made, target, '--format', 'raw')).error.message).toBe('none');
  });

  test('keeps the run while its disks are copied, also by itself, and is not cut meanwhile', async () => {
    const { child, pid } = await streaming();
    await writeOwn();
    await expect(checkWhole(image('root0'), new AbortController().signal)).rejects.toMatchObject({ code: 'E_STREAM' });
    expect(await forget()).toMatchObject({ code: 2, error: { code: 'E_REPOSITORY_BUSY' } });
    for (const cut of await cuts()) expect(cut).toMatchObject({ code: 5, error: { code: 'E_BLOCK_JOB' } });
    child.kill('SIGINT');
    const { exitCode, stderr } = await child;
    expect(exitCode, stderr).toBe(4);
    expect(stderr).toMatch(/the VM runs on \(process \d+\).*fsfreeze-bridge backup recover --repo/);
    expect(lives(pid)).toBe(true);
    expect(await forget()).toMatchObject({ code: 2, error: { code: 'E_REPOSITORY_BUSY' } });
    expect(await recover('--dry-run')).toMatchObject({ code: 8, json: { findings: [{ status: 'planned' }] } });
    await hurry();
    const recovered = await recover();
    expect(recovered).toMatchObject({
      code: 0,
      json: { findings: [{ status: 'done', did: 'copy its disks to the end' }] },
    });
    expect(locks()).toEqual([]);
    for (const { name } of disks) expect(await backing(name)).toBeUndefined();
    expect((await recover()).json).toMatchObject({ findings: [] });
    await quit();
    expect(await differences(withOwn())).toEqual([]);
    expect((await forget()).code).toBe(0);
  });

  test('is seen through where its tool was killed, and QEMU has copied all by then', async () => {
    const { child, pid } = await streaming();
    await writeOwn();
    child.kill('SIGKILL');
    await child;
    // Anybody may have written what is in it.
    chmodSync(dir, 0o777);
    expect(JSON.stringify((await recover()).json)).toContain('is not believed');
    chmodSync(dir, 0o750);
    expect(await recover('--lock-timeout', '0', '--timeout', '1')).toMatchObject({ code: 8 });
    await hurry();
    for (let tries = 0; (await jobs()).some((status) => status !== 'pending'); tries++) {
      expect(tries).toBeLessThan(400);
      await sleep(25);
    }
    expect(lives(pid)).toBe(true);
    expect(await backing('root0')).toBeDefined();
    expect(await recover()).toMatchObject({ code: 0, json: { findings: [{ status: 'done' }] } });
    expect(await jobs()).toEqual([]);
    await quit();
    expect(await differences(withOwn())).toEqual([]);
  });

  test.each(['starts again', 'is made whole'])('%s by what recover says, if QEMU ended', async (what) => {
    const { child, pid } = await streaming();
    await writeOwn();
    process.kill(pid, 'SIGKILL');
    const { exitCode, stderr } = await child;
    expect(exitCode, stderr).toBe(5);
    expect(stderr).toContain('the VM has ended');
    expect(await forget()).toMatchObject({ code: 2, error: { code: 'E_REPOSITORY_BUSY' } });
    // Not the images that it had before.
    const before = await vm.at.bridge(vm.words('--require', 'crash'));
    expect(before).toMatchObject({ code: 2, error: { code: 'E_UNFINISHED' } });
    expect(before.error.message).toContain('was started from a backup');
    // As where its filesystem is not mounted.
    renameSync(dir, `${dir}.away`);
    expect(await forget()).toMatchObject({ code: 2, error: { code: 'E_REPOSITORY_BUSY' } });
    expect((await recover()).json).toMatchObject({
      findings: [{ status: 'yours', commands: [expect.stringMatching(/^rm /) as string] }],
    });
    renameSync(`${dir}.away`, dir);
    const found = await recover();
    expect(found).toMatchObject({ code: 8, json: { findings: [{ status: 'yours' }] } });
    const [{ commands = [] } = {}] = (found.json as { findings: { commands?: string[] }[] }).findings;
    const [again = '', ...flatten] = commands;
    if (what === 'starts again') {
      const qemu = execa('sh', ['-c', `exec ${again}`], { reject: false, stdin: 'ignore' });
      left.push(qemu.pid ?? 0);
      for (let tries = 0; !(await answers()); tries++) {
        expect(tries).toBeLessThan(400);
        await sleep(25);
      }
      for (const cut of await cuts()) {
        expect(cut).toMatchObject({ code: 2, error: { code: 'E_UNFINISHED' } });
        expect(cut.error.message).toMatch(/lies on .*\.qcow2, of backup run .*fsfreeze-bridge backup recover --repo/);
      }
    } else for (const line of flatten) await execa('sh', ['-c', line]);
    const recovering = recover();
    if (what === 'starts again') {
      while (!(await jobs()).includes('running')) await sleep(25);
      await hurry();
    }
    expect(await recovering).toMatchObject({ code: 0, json: { findings: [{ status: 'done' }] } });
    if (what === 'starts again') await quit();
    expect(existsSync(join(dir, 'start.json'))).toBe(false);
    expect(await differences(withOwn())).toEqual([]);
    // It was not backed up since: the images that it had before are not taken for its own.
    const old = await vm.at.bridge(vm.words('--require', 'crash'));
    expect(old).toMatchObject({ code: 2, error: { code: 'E_NEWEST_UNKNOWN' } });
    expect((await forget()).code).toBe(0);
  });

  test('is not there if its tool was killed before it ran', async () => {
    const bin = vm.path('bin');
    mkdirSync(bin);
    const mark = vm.path('mark');
    writeFileSync(join(bin, 'qemu-system-x86_64'), `#!/bin/sh\necho $$ >${mark}\nexec sleep 60\n`, { mode: 0o755 });
    const env = { PATH: `${bin}:${process.env['PATH'] ?? ''}` };
    const child = execa(process.execPath, [HOST_TOOL, ...words(), '--json'], { reject: false, stdin: 'ignore', env });
    for (let tries = 0; !existsSync(mark); tries++) {
      expect(tries).toBeLessThan(400);
      await sleep(25);
    }
    expect(await recover('--lock-timeout', '0')).toMatchObject({ code: 0, json: { findings: [{ status: 'busy' }] } });
    child.kill('SIGKILL');
    await child;
    left.push(Number(readFileSync(mark, 'utf8')));
    expect(await forget()).toMatchObject({ code: 2, error: { code: 'E_REPOSITORY_BUSY' } });
    expect(await recover()).toMatchObject({
      code: 0,
      json: { findings: [{ status: 'done', did: 'remove the folder' }] },
    });
    expect(existsSync(dir)).toBe(false);
    expect(locks()).toEqual([]);
  });

  test('is not there, nor known, if QEMU ended before its guest wrote anything', async () => {
    const before = known();
    const given = words('--qemu-arg=-no-reboot').map((word) => (word === '1' ? '60' : word));
    const child = execa(process.execPath, [HOST_TOOL, ...given, '--json'], { reject: false, stdin: 'ignore' });
    for (let tries = 0; !known().every((file) => file.startsWith(dir)); tries++) {
      if (tries > 400) throw new Error(`its images are not known: ${(await child).stderr}`);
      await sleep(25);
    }
    left.push(ownerOfImages());
    // What a guest does that restarts.
    const command = { 'command-line': 'o /b 0x64 0xfe' };
    for (let tries = 0; left.some(lives); tries++) {
      expect(tries).toBeLessThan(400);
      await onMonitor((monitor) => monitor.execute('human-monitor-command', command)).catch(() => undefined);
      await sleep(25);
    }
    const { exitCode, stdout } = await child;
    expect(stdout).toContain('E_BOOT');
    expect(exitCode).toBe(5);
    expect(existsSync(dir)).toBe(false);
    expect(known()).toEqual(before);
    expect(locks()).toEqual([]);
  });

  test('leaves nothing where it cannot be started, and says why', async () => {
    const refused = async (code: string, ...more: readonly string[]): Promise<string> => {
      const { error } = await start(...more);
      expect(error).toMatchObject({ code });
      expect(readdirSync(vm.at.folder.dir).filter((name) => name.includes('started'))).toEqual([]);
      expect(locks()).toEqual([]);
      return error.message;
    };
    expect(await refused('E_BOOT', '--qemu-arg=-nonesuch')).toContain('nonesuch');
    expect(await refused('E_USAGE', '--format', 'raw')).toContain('--format raw');
    expect(await refused('E_USAGE', '--in-place')).toContain('--start or --in-place');
    expect(await refused('E_USAGE', '--image', 'root0=/tmp/x')).toContain('--image');
    const plain = ['backup', 'restore', run, dir, '--repo', vm.repository];
    expect(await vm.at.onRepository([...plain, '--memory', '1G'])).toMatchObject({
      error: { code: 'E_USAGE', message: '--memory: expected with --start only' },
    });
    writeFileSync(vm.path('key'), 'a key of the test', { mode: 0o600 });
    const encrypted = await vm.run('--full', '--encrypt', '--key-file', vm.path('key'));
    expect(encrypted.error.message).toBe('none');
    const sound = run;
    run = encrypted.made.run;
    expect(await refused('E_ENCRYPTED')).toContain('restore it to a folder');
    run = sound;
    const file = vm.stored(run, readdirSync(vm.stored(run)).find((name) => name.endsWith('.qcow2')) ?? '');
    chmodSync(file, 0o600);
    truncateSync(file, 65_536);
    await refused('E_CHAIN');
    await refused('E_VERIFY', '--verify');
    await vm.backup('verify');
    expect(await refused('E_VERIFY')).toContain('was found damaged');
    dir = vm.path('x'.repeat(90));
    await refused('E_SOCKET_PATH');
    mkdirSync(dir);
    expect(await start()).toMatchObject({ code: 2, error: { code: 'E_NAME_TAKEN' } });
  });
});
