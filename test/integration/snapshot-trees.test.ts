// Commands in mount namespaces of their own, with overlays in place of snapshots: what unshare(1), mount(8) and a shell
// make of the steps. Nothing is frozen, and no mount of the machine changes.
import { execa } from 'execa';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { startCommand } from '../../src/snapshot/private-tree.js';
import { mountSteps, unmountAll } from '../../src/snapshot/shown-tree.js';
import { runProgram, type Run } from '../../src/snapshot/program.js';
import type { Way } from '../../src/snapshot/journal.js';
import type { PlannedSource } from '../../src/snapshot/planner.js';
import type { Mountable } from '../../src/snapshot/snapshot-set.js';
import { privateTree, type PrivateTree, type Step } from '../../src/snapshot/tree.js';
import { mountsOf } from '../support/mount-table.js';
import { requires } from '../support/requires.js';
import { scratch, type Scratch } from '../support/scratch.js';

let folder: Scratch;
beforeEach(() => {
  folder = scratch();
  for (const name of ['cut/inner', 'live', 'empty', 'stage', 'root']) mkdirSync(folder.path(name), { recursive: true });
  writeFileSync(folder.path('cut/file'), 'cut\n');
  writeFileSync(folder.path('live/file'), 'live\n');
});
afterEach(() => {
  vi.unstubAllEnvs();
  folder[Symbol.dispose]();
});

/** A read-only view of a folder, as a device would be one of its filesystem. */
const view = (of: string, at: string): Step => ({
  kind: 'mount',
  device: 'overlay',
  type: 'overlay',
  options: ['ro', `lowerdir=${of}:${folder.path('empty')}`],
  at,
});

const over = (): PrivateTree => ({
  steps: [
    view(folder.path('cut'), folder.path('stage')),
    { kind: 'bind', from: folder.path('stage'), at: folder.path('live') },
    { kind: 'unmount', at: folder.path('stage') },
  ],
});

/** Runs a line in it; what it says goes to a file, since its standard output is this process's. */
async function said(tree: PrivateTree, line: string): Promise<{ readonly code: number; readonly text: string }> {
  const out = folder.path('out');
  const command = await startCommand(tree, ['/bin/sh', '-c', `{ ${line}; } >${out} 2>&1`]);
  command.begin();
  const code = await command.exit;
  return { code, text: readFileSync(out, 'utf8') };
}

requires('root', 'unshare')('a command in a namespace of its own', () => {
  test('sees what was cut, cannot write it, has no descriptor of ours, and passes its exit code on', async () => {
    // What the caller of this process left open is everybody's.
    const plain = await execa('/bin/sh', ['-c', 'ls /proc/$$/fd; exit 0'], { stdin: 'inherit', stderr: 'inherit' });
    const line = `cat ${folder.path('live/file')}; echo >${folder.path('live/new')}; ls /proc/$$/fd; exit 7`;
    const { code, text } = await said(over(), `(${line})`);
    expect(code).toBe(7);
    const [first, second, ...descriptors] = text.trim().split('\n');
    expect([first, second]).toEqual(['cut', expect.stringMatching(/[Rr]ead-only file system$/)]);
    expect(descriptors).toEqual(plain.stdout.split('\n'));
    expect(readFileSync(folder.path('live/file'), 'utf8')).toBe('live\n');
  });

  test('has the root that was cut, with the kernel filesystems of the machine in it, and stays where it was', async () => {
    const root = folder.path('root');
    const steps: readonly Step[] = [
      { kind: 'bind', from: '/', at: root },
      { kind: 'read-only', at: root },
      { kind: 'bind', from: '/proc', at: `${root}/proc`, whole: true, ifThere: true },
      { kind: 'bind', from: '/dev', at: `${root}/dev`, whole: true, ifThere: true },
      { kind: 'bind', from: folder.path('cut'), at: `${root}${folder.path('live')}` },
      { kind: 'bind', from: folder.path('.'), at: `${root}${folder.path('.')}`, ifThere: true },
      { kind: 'bind', from: '/x', at: `${root}/not-there`, ifThere: true },
    ];
    // chroot(8) lies where the PATH of cron does not lead.
    vi.stubEnv('PATH', '/usr/bin:/bin');
    const { code, text } = await said({ steps, root }, `pwd; cat /proc/self/comm; ! echo >/x-${process.pid}`);
    expect(code, text).toBe(0);
    expect(text).toContain(`${process.cwd()}\ncat\n`);
    expect(text).toMatch(/[Rr]ead-only file system/);
  });

  test('sees what is mounted below a path and is no data of a block device, a file too, as it is', async () => {
    for (const name of ['cut/memory', 'live/memory']) mkdirSync(folder.path(name));
    for (const name of ['cut/single', 'live/single']) writeFileSync(folder.path(name), '');
    const mounts = mountsOf(`1 1 254:0 / / rw - ext4 /dev/mapper/vg-root rw\n`);
    const place = (name: string, way: Way, snapshot?: object) =>
      ({ source: { at: folder.path(name), inside: '/' }, way, snapshot }) as unknown as PlannedSource;
    const snapshot = {};
    const spec = {
      device: 'overlay',
      type: 'overlay',
      options: ['ro', `lowerdir=${folder.path('cut')}:${folder.path('empty')}`],
    };
    const tree = privateTree(
      {
        sources: [place('live', 'atomic', snapshot), place('live/memory', 'live'), place('live/single', 'bind')],
        mountable: [{ snapshot, spec } as unknown as Mountable],
        stage: (number) => folder.path(number === 0 ? 'stage' : `kept-${number}`),
      },
      mounts,
    );
    const before: readonly Step[] = [
      { kind: 'folder', at: folder.path('live/memory') },
      { kind: 'make', at: folder.path('live/memory/there') },
      { kind: 'bind', from: folder.path('live/file'), at: folder.path('live/single') },
    ];
    const line = 'ls memory; cat single file; touch memory/new && echo written; ! echo >single';
    const { code, text } = await said(
      { ...tree, steps: [...before, ...tree.steps] },
      `cd ${folder.path('live')}; ${line}`,
    );
    expect({ code, text }).toEqual({
      code: 0,
      text: expect.stringMatching(/^there\nlive\ncut\nwritten\n.*[Rr]ead-only/) as string,
    });
  });

  test('gets signals, and an end by one is told as a shell tells it', async () => {
    const command = await startCommand(over(), ['/bin/sleep', '1000']);
    command.begin();
    command.kill('SIGTERM');
    expect(await command.exit).toBe(128 + 15);
  });

  test('is not started if something cannot be mounted', async () => {
    const tree: PrivateTree = { steps: [view('/not-there', folder.path('stage'))] };
    const ran = folder.path('ran');
    await expect(startCommand(tree, ['/usr/bin/touch', ran])).rejects.toThrow('could not be mounted over the original');
    await expect(execa('test', ['-e', ran])).rejects.toThrow();
  });

  test('is not started if a link has come to be on the way to what was cut, or to where it belongs', async () => {
    symlinkSync('/etc', folder.path('link'));
    const [base, path] = [folder.path('.'), folder.path('link')];
    for (const steps of [[{ kind: 'no-links', base, path }], [{ kind: 'no-links', base: '', path }]] as const) {
      await expect(startCommand({ steps }, ['/bin/true'])).rejects.toThrow('could not be mounted over the original');
      await expect(mountSteps(steps, runProgram, () => undefined)).rejects.toThrow(
        'found a link on the way to it: to /etc',
      );
    }
    for (const [base, path] of [
      ['', folder.path('link/hostname')],
      [folder.path('link'), folder.path('link/mtab')],
    ] as const) {
      const started = startCommand({ steps: [{ kind: 'no-links', base, path }] }, ['/bin/true']);
      await expect(started).rejects.toThrow('could not be mounted over the original');
    }
    const steps = [{ kind: 'no-links', base: folder.path('.'), path: folder.path('live/file') }] as const;
    expect(await said({ steps }, 'echo ran')).toEqual({ code: 0, text: 'ran\n' });
    await mountSteps(steps, runProgram, () => undefined);
  });

  test('is not started if a signal comes while all is being mounted', async () => {
    const abort = new AbortController();
    const ran = folder.path('ran');
    const starting = startCommand(over(), ['/usr/bin/touch', ran], {}, abort.signal);
    abort.abort();
    await expect(starting).rejects.toThrow('interrupted: the command was not started');
    await expect(execa('test', ['-e', ran])).rejects.toThrow();
  });

  test('runs only once it is let, so that it can be noted before', async () => {
    const ran = folder.path('ran');
    const command = await startCommand(over(), ['/usr/bin/touch', ran]);
    await expect(execa('test', ['-e', ran])).rejects.toThrow();
    command.begin();
    expect(await command.exit).toBe(0);
    await execa('test', ['-e', ran]);
  });

  test('that is not there is 127, as of a shell', async () => {
    const command = await startCommand(over(), ['/not/there']);
    command.begin();
    expect(await command.exit).toBe(127);
  });
});

test('steps of a shown tree are noted before they are done, and undone last first', async () => {
  const calls: string[] = [];
  const mounted = new Set<string>();
  const notes: string[] = [];
  const run: Run = async (words) => {
    calls.push(words.join(' '));
    const at = words.at(-1) ?? '';
    if (words[0] === 'mount') {
      expect(notes).toContain(at);
      mounted.add(at);
    }
    const exitCode = words[0] === 'mountpoint' && !mounted.has(at) ? 1 : 0;
    if (words[0] === 'umount') mounted.delete(at);
    return await Promise.resolve({ exitCode, stdout: '', stderr: '' });
  };
  const steps: readonly Step[] = [
    { kind: 'mount', device: '/dev/dm-1', type: 'xfs', options: ['ro'], at: '/stage' },
    { kind: 'bind', from: '/stage', at: '/mnt' },
    { kind: 'read-only', at: '/mnt' },
    { kind: 'unmount', at: '/stage' },
  ];
  await mountSteps(steps, run, (at) => notes.push(at));
  await unmountAll(notes, run);
  expect(calls.filter((call) => !call.startsWith('mountpoint'))).toEqual([
    'mount --no-canonicalize --make-private -t xfs -o ro /dev/dm-1 /stage',
    'mount --bind /stage /mnt',
    'mount -o remount,bind,ro /mnt',
    'umount /stage',
    'umount /mnt',
  ]);
});
