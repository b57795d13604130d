// Backups of libvirt domains that fail or are killed, and records of libvirt's that are lost: each costs nothing but itself.
// The next one is an increment of the newest run that is there, and every run that is listed is what the disks held at its
// cut.
import { readdirSync } from 'node:fs';
import { chmod, mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import { BackedUpDomain, twoDisks, type DomainDisk } from '../support/backed-up-domain.js';
import { requires } from '../support/requires.js';
import { BARE_DOMAIN_NEEDS, sharedLibvirt } from '../support/shared-libvirt.js';
import { StoppingVirsh, type VirshStep } from '../support/stopping-virsh.js';

/** A filesystem that fills up, there before libvirtd is, which has mounts of its own. */
let small: string;
beforeAll(async () => {
  small = await mkdtemp(path.join(tmpdir(), 'fsb-small-'));
  await execa('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'none', small]);
});
afterAll(async () => {
  await execa('umount', [small]);
  await rm(small, { recursive: true });
});
// Begun last, and so ended first.
const host = sharedLibvirt();
const outside = { ...process.env };
afterEach(() => {
  process.env = { ...outside };
});

/** A domain with one run, and writes since. */
const start = async (name: string, repository?: string): Promise<{ vm: BackedUpDomain; full: string }> => {
  const vm = await BackedUpDomain.start(host(), name, twoDisks, repository === undefined ? {} : { repository });
  for (const { target } of twoDisks) await vm.write(target, 1, 0, 2048);
  const full = await vm.run();
  expect(full.error.message).toBe('none');
  for (const { target } of twoDisks) await vm.write(target, 2, 512, 256);
  return { vm, full: full.made.run };
};

/** The runs at which the checkpoints begin that libvirt lists. */
const checkpoints = async (vm: BackedUpDomain): Promise<string[]> => {
  return (await vm.checkpoints()).map((name) => name.replace(/^fsb-[0-9a-f]{8}-/, '')).sort();
};

/** Every run that is listed restores as its cut was; nothing is left over. */
const expectAllGood = async (vm: BackedUpDomain): Promise<void> => {
  for (const run of await vm.listed()) expect(await vm.differences(run), run).toEqual([]);
  expect((await vm.backup('verify')).code).toBe(0);
  expect(readdirSync(vm.stored()).filter((name) => name.startsWith('.'))).toEqual([]);
  expect(await jobs(vm)).toEqual([]);
  expect(readdirSync(await vm.domain.state())).toEqual(['vm.json']);
};

const jobs = async (vm: BackedUpDomain) => (await vm.qmp('query-block-jobs')) as { device: string; speed: number }[];
const copying = async (vm: BackedUpDomain): Promise<void> => {
  await expect.poll(async () => (await jobs(vm)).length, { timeout: 30_000, interval: 20 }).toBeGreaterThan(0);
};
const limited = async (vm: BackedUpDomain): Promise<void> => {
  await expect.poll(async () => (await jobs(vm))[0]?.speed, { timeout: 30_000, interval: 20 }).toBe(1024 * 1024);
};

requires(...BARE_DOMAIN_NEEDS)('a backup of a libvirt domain that does not come to its end', () => {
  // libvirt asks QEMU anew for what it can do when either is new.
  vi.setConfig({ testTimeout: 120_000 });

  test('killed at any step, is recovered, and the next is an increment', async () => {
    const { vm: started, full } = await start('killed');
    await using vm = started;
    const steps: readonly VirshStep[] = [
      { words: "'backup-begin'", when: 'before' },
      { words: "'backup-begin'", when: 'after' },
      { words: "'--completed'", when: 'before' },
      { words: "'--completed'", when: 'after' },
    ];
    for (const step of steps) {
      await vm.killToolAt(step);
      expect(await vm.listed(), step.words).toEqual([full]);
      const recover = await vm.domain.bridge(['recover']);
      expect(recover.json['findings'], step.words).toMatchObject([{ kind: 'backup-unfinished', status: 'done' }]);
      expect(await checkpoints(vm)).toEqual([full]);
      expect((await vm.domain.bridge(['recover'])).json['findings']).toEqual([]);
    }
    // Published, it stays, though its tool came no further.
    vm.states.set('killed', vm.state());
    await vm.killToolAt({ words: "'checkpoint-delete'", when: 'before' }, '--keep-checkpoints', '1');
    const published = (await vm.listed())[1] ?? '';
    vm.states.set(published, vm.state());
    expect((await vm.domain.bridge(['recover'])).code).toBe(0);
    await vm.write('vda', 3, 1024, 64);
    const next = await vm.run('--incremental', '--keep-checkpoints', '1');
    expect(next.error.message).toBe('none');
    expect(next.made.disks.map(({ base }) => base?.run)).toEqual([published, published]);
    expect(await checkpoints(vm)).toEqual([next.made.run]);
    await expectAllGood(vm);
  });

  test('one that is cancelled, interrupted or does not get on leaves nothing, and its reason is told', async () => {
    const big: DomainDisk = { target: 'vda', format: 'qcow2', megabytes: 320 };
    await using vm = await BackedUpDomain.start(host(), 'slow', [big]);
    const full = (await vm.run()).made.run;
    // At once, so that not all of it is copied before the tool limits it.
    const line = `blockjob ${vm.domain.name} vda --bandwidth 2`;
    const virsh = await StoppingVirsh.make(vm.path('bin'), { words: "'backup-begin'", when: 'with', line });
    Object.assign(process.env, virsh.environment);
    await vm.write('vda', 1, 0, 256 * 1024);
    const cancelled = vm.run('--limit', '1');
    await copying(vm);
    await limited(vm);
    await vm.domain.virsh('domjobabort');
    expect(await cancelled).toMatchObject({ code: 5, error: { code: 'E_JOB' } });
    expect((await cancelled).error.message).toContain('the backup job failed');

    // QEMU copies first what the guest overwrites, counts it, and holds the job back for twelve seconds.
    const heldBack = vm.run('--limit', '1', '--stall-timeout', '2');
    await copying(vm);
    await limited(vm);
    await vm.write('vda', 2, 200 * 1024, 12 * 1024);
    await sleep(6000);
    expect(await jobs(vm)).toHaveLength(1);
    await vm.domain.virsh('domjobabort');
    expect(await heldBack).toMatchObject({ code: 5, error: { code: 'E_JOB' } });

    const controller = new AbortController();
    const interrupted = vm.runUnless(controller.signal, '--limit', '1');
    await copying(vm);
    controller.abort('SIGTERM');
    expect(await interrupted).toMatchObject({ code: 4, error: { code: 'E_INTERRUPTED' } });

    const stalled = vm.run('--limit', '1', '--stall-timeout', '2');
    await copying(vm);
    await limited(vm);
    for (const { device } of await jobs(vm)) await vm.qmp('job-pause', { id: device });
    expect(await stalled).toMatchObject({ code: 5, error: { code: 'E_DEADLINE' } });
    expect(await vm.listed()).toEqual([full]);
    expect(await checkpoints(vm)).toEqual([full]);
    expect(await jobs(vm)).toEqual([]);
    const next = await vm.domain.bridge(vm.words('--incremental', '--dry-run'));
    expect(next.json).toMatchObject({ disks: [{ kind: 'incremental', base: full, bytes: 256 * 1024 * 1024 }] });
  });

  test('one whose tables QEMU could not write is no run', async () => {
    const { vm: started, full } = await start('tables');
    await using vm = started;
    const virsh = await StoppingVirsh.make(vm.path('bin'), { words: "'--completed'", when: 'after' });
    Object.assign(process.env, virsh.environment);
    const work = vm.run('--full');
    await virsh.reached();
    const [draft = ''] = readdirSync(vm.stored()).filter((name) => name.startsWith('.draft'));
    // As QEMU leaves it then: the lowest of the incompatible features of its header.
    const target = await open(vm.stored(draft, 'vdb.qcow2'), 'r+');
    await target.write(Buffer.of(1), 0, 1, 79);
    await target.close();
    virsh.goOn();
    const failed = await work;
    expect(failed).toMatchObject({ code: 5, error: { code: 'E_BACKUP' } });
    expect(failed.error.message).toContain('QEMU could not write all tables of');
    expect(await vm.listed()).toEqual([full]);
    expect(await checkpoints(vm)).toEqual([full]);
  });

  test('one whose repository runs full is given up', async () => {
    const { vm: started, full } = await start('full', path.join(small, 'repository'));
    await using vm = started;
    // A filesystem that takes no space beforehand: QEMU meets the end of it.
    const virsh = await StoppingVirsh.make(vm.path('bin'), { words: "'backup-begin'", when: 'before' });
    await writeFile(vm.path('bin/fallocate'), '#!/bin/sh\necho "Operation not supported" >&2\nexit 1\n');
    await chmod(vm.path('bin/fallocate'), 0o755);
    Object.assign(process.env, virsh.environment);
    const work = vm.run('--full', '--min-free', '0');
    await virsh.reached();
    await execa('dd', ['if=/dev/zero', `of=${small}/others`, 'bs=64k'], { reject: false });
    virsh.goOn();
    const failed = await work;
    expect(failed).toMatchObject({ code: 5, error: { code: 'E_JOB' } });
    expect(failed.error.message).toContain('No space left on device');
    await rm(`${small}/others`);
    process.env = { ...outside };
    expect(await checkpoints(vm)).toEqual([full]);
    expect((await vm.run('--incremental')).error.message).toBe('none');
    await expectAllGood(vm);
  });
});
