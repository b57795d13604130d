// What hooks cost where fork and exec are cheap: the stock dispatcher's script, and our writers of one rank, on this
// machine. Nothing is frozen: the filesystems are a fixture's.
import { chmod, copyFile, mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { described, FreezeHarness } from '../support/freeze-harness.js';
import { scratch } from '../support/scratch.js';

const ROUNDS = 10;
const DISPATCHER = '/etc/qemu/fsfreeze-hook';
const BODY = ':';

/** Milliseconds for all hooks at freeze and at thaw, per round. */
export async function nativeHooks(count: number): Promise<{ ours: number[]; peer: number[] }> {
  const ours: number[] = [];
  const peer: number[] = [];
  using folder = scratch();
  const dispatcher = folder.path('fsfreeze-hook');
  await copyFile(DISPATCHER, dispatcher);
  await mkdir(folder.path('fsfreeze-hook.d'));
  await using harness = new FreezeHarness();
  for (let hook = 0; hook < count; hook++) {
    const file = path.join(folder.path('fsfreeze-hook.d'), `${hook}-hook`);
    await writeFile(file, `#!/bin/sh\n${BODY}\n`);
    await chmod(file, 0o755);
    harness.hook(`${hook}-hook`, `${described({ phases: 'freeze thaw', guarantee: '' })}${BODY}`);
  }
  const coordinator = await harness.start();
  for (let round = 0; round < ROUNDS; round++) {
    const session = await coordinator.freeze({ requester: 'bench', leaseMs: 10_000, require: 'filesystem' });
    ours.push((await session.thaw()).pauseWindowMs);
    const start = performance.now();
    // Its log goes to /var/log, if it may.
    for (const phase of ['freeze', 'thaw']) await execa('sh', [dispatcher, phase], { stdio: 'ignore' });
    peer.push(performance.now() - start);
  }
  return { ours, peer };
}
