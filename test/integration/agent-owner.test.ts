// The agent's socket must lead to the guest of this VM: another guest that holds still proves nothing of these disks, and must
// not be held for them.
import { symlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { BareDisk } from '../support/bare-qemu.js';
import { CutHarness, type Run } from '../support/cut-harness.js';
import { FakeAgent } from '../support/fake-agent.js';
import { requires } from '../support/requires.js';

const disks: readonly BareDisk[] = [{ name: 'root0', format: 'raw' }];
let at: CutHarness;
beforeEach(async () => {
  at = await CutHarness.start(disks);
});
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

/** Refused by default; else cut without a hold, and no guest was asked for one. */
async function expectCrash(agent: FakeAgent, why: string): Promise<void> {
  const qga = ['--qga', agent.path];
  const refused = await at.create('s1', ...qga);
  expect(refused).toMatchObject({ code: 4, error: { code: 'E_BELOW_REQUIRED' } });
  expect(refused.error.message).toContain(why);
  const lower = await at.create('s1', '--allow-lower', ...qga);
  expect(lower).toMatchObject({ code: 7, manifest: { level: 'crash' } });
  expect(lower.manifest.evidence.join()).toContain(why);
  expect(await at.create('s2', '--require', 'crash', ...qga)).toMatchObject({ code: 0, manifest: { level: 'crash' } });
  expect(agent.commands.filter((command) => command.includes('freeze'))).toEqual([]);
}

const expectHeld = (run: Run): void => {
  expect(run.error.message).toBe('none');
  expect(run).toMatchObject({ code: 0, manifest: { level: 'filesystem' } });
};

requires('qemu-system-x86_64', 'qemu-img')('the agent', () => {
  test("of another VM gives crash, and that VM's guest is not held", async () => {
    await using beside = await CutHarness.start(disks);
    await expectCrash(beside.agent, `none of this QEMU's sockets`);
    beside.agent.kind = 'stock';
    beside.agent.stockSerials = ['root0'];
    const run = await at.create('s3', '--qga', beside.agent.path);
    expect(run).toMatchObject({ code: 4, error: { code: 'E_BELOW_REQUIRED' } });
  });

  test.each(['the socket of the port', 'a symbolic link to it', 'a relative path'])('is known by %s', async (how) => {
    const link = at.folder.path('link.sock');
    symlinkSync(at.folder.path('port.sock'), link);
    const path = { s: at.folder.path('port.sock'), l: link, r: `${at.folder.path('images')}/../port.sock` };
    expectHeld(
      await at.create('s1', '--qga', how.includes('link') ? path.l : how.includes('relative') ? path.r : path.s),
    );
  });

  test('is known though QEMU names its socket relative to where it was started', async () => {
    await at.vm.quit();
    const chardev = ['-chardev', 'socket,id=near,path=near.sock,server=on,wait=off'];
    const port = ['-device', 'virtserialport,bus=serial0.0,chardev=near,name=near'];
    await at.start(disks, [...chardev, ...port]);
    await using agent = await FakeAgent.listen(at.folder.path('other.sock'));
    await expectCrash(agent, `none of this QEMU's sockets`);
    const { renameSync, linkSync } = await import('node:fs');
    linkSync(at.folder.path('other.sock'), at.folder.path('near.new'));
    renameSync(at.folder.path('near.new'), at.folder.path('near.sock'));
    agent.report = at.agent.report;
    expectHeld(await at.create('s4', '--qga', agent.path));
  });

  describe('behind a relay', () => {
    let relayed: FakeAgent;
    beforeEach(async () => {
      relayed = await FakeAgent.listen(at.folder.path('relay.sock'));
      relayed.report = at.agent.report;
    });
    afterEach(async () => {
      await relayed[Symbol.asyncDispose]();
    });

    test.each(['bridge', 'stock'] as const)('is known by the UUID of its machine (%s)', async (kind) => {
      relayed.kind = kind;
      relayed.stockSerials = ['root0'];
      relayed.productUuid = basename(at.state()).toUpperCase();
      expectHeld(await at.create('s1', '--qga', relayed.path));
    });

    test('in another machine gives crash', async () => {
      relayed.productUuid = 'aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee';
      await expectCrash(relayed, 'its guest is in machine aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee, expected');
    });

    test('that does not tell its machine gives crash', async () => {
      await expectCrash(relayed, 'the guest does not tell the UUID of its machine');
    });

    test('of a VM without a UUID gives crash, whatever the guest says', async () => {
      await at.restart(disks, ['-uuid', '00000000-0000-0000-0000-000000000000']);
      relayed.productUuid = '00000000-0000-0000-0000-000000000000';
      await expectCrash(relayed, 'the VM has no UUID that its guest could tell');
    });
  });
});
