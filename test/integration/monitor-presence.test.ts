// A monitor that does not answer: only where nobody listens is the VM shut off. Whatever else the kernel or QEMU says, it may
// run: what is known of a guest that is held is kept, and `recover` says that it does not know.
import { execa } from 'execa';
import { existsSync, readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Finding } from '../../src/host/recover/finding.js';
import { QmpClient } from '../../src/qmp/client.js';
import type { BareDisk } from '../support/bare-qemu.js';
import { CutHarness, type Run } from '../support/cut-harness.js';
import { requires } from '../support/requires.js';
import { HOST_TOOL } from '../../vm-images/demo/bridge.js';

const disks: readonly BareDisk[] = [{ name: 'root0', format: 'raw' }];
let at: CutHarness;
let atEnd: (() => Promise<void> | void)[];
beforeEach(async () => {
  atEnd = [];
  at = await CutHarness.start(disks);
});
afterEach(async () => {
  for (const undo of atEnd.reverse()) await undo();
  await at[Symbol.asyncDispose]();
});

const findings = (run: Run): Finding[] => run.json['findings'] as Finding[];
/** The sockets as they are, not the proxy at which the tool was killed. */
const recover = (...words: string[]): Promise<Run> =>
  at.bridge(['recover', '--monitor-timeout', '0.5', '--agent-timeout', '0.3', ...words]);

/** A tool killed while it holds the guest. */
async function killWhileHeld(): Promise<void> {
  await at.killToolAt(['snapshot', 'create', '--name', 's1'], { command: 'transaction', when: 'before' });
  expect(at.agent.frozen).toBe(true);
}

/** A socket file whose owner has ended. */
async function deadSocket(path: string): Promise<void> {
  const script = 'require("net").createServer().listen(process.argv[1], () => process.kill(process.pid, "SIGKILL"))';
  await execa(process.execPath, ['-e', script, path], { reject: false });
  expect(existsSync(path)).toBe(true);
}

function errnoOf(path: string): Promise<string> {
  return new Promise((resolve) => {
    const socket: Socket = connect(path, () => {
      socket.destroy();
      resolve('none');
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      resolve(error.code ?? '');
    });
  });
}

interface Trouble {
  readonly what: string;
  /** What connect(2) gives. */
  readonly errno: string;
  readonly make: () => Promise<void> | void;
}

const unknown: readonly Trouble[] = [
  {
    what: 'its backlog is full',
    errno: 'EAGAIN',
    make: async () => {
      const sockets: Socket[] = [];
      atEnd.push(() => {
        for (const socket of sockets) socket.destroy();
      });
      for (let index = 0; index < 6; index++) {
        const socket = connect(at.vm.qmp);
        socket.on('error', () => undefined);
        sockets.push(socket);
        await new Promise((resolve) => socket.once('connect', resolve).once('error', resolve));
      }
    },
  },
  {
    what: 'somebody else is connected, and it does not greet',
    errno: 'none',
    make: async () => {
      const client = await QmpClient.connect(at.vm.qmp);
      atEnd.push(() => {
        client.close();
      });
    },
  },
  {
    what: 'its QEMU is stopped',
    errno: 'none',
    make: () => {
      process.kill(at.vm.pid, 'SIGSTOP');
      atEnd.push(() => {
        process.kill(at.vm.pid, 'SIGCONT');
      });
    },
  },
  {
    what: 'it refuses, since another bound its name and ended, though its QEMU lives',
    errno: 'ECONNREFUSED',
    make: async () => {
      await deadSocket(at.folder.path('dead.sock'));
      renameSync(at.folder.path('dead.sock'), at.vm.qmp);
    },
  },
  {
    what: 'its path leads in a circle',
    errno: 'ELOOP',
    make: () => {
      symlinkSync(at.vm.qmp, at.folder.path('loop.sock'));
      renameSync(at.folder.path('loop.sock'), at.vm.qmp);
    },
  },
];

const off: readonly Trouble[] = [
  { what: 'its QEMU was killed, and the socket file is left', errno: 'ECONNREFUSED', make: () => at.vm.kill() },
  { what: 'its QEMU was shut down, and the socket is gone', errno: 'ENOENT', make: () => at.vm.quit() },
];

requires('qemu-system-x86_64', 'qemu-img')('a monitor that does not answer', () => {
  describe.each(unknown)('because $what', ({ errno, make }) => {
    test('is not that of a VM that is shut off', async () => {
      await killWhileHeld();
      at.agent.mood = 'silent';
      await make();
      expect(await errnoOf(at.vm.qmp)).toBe(errno);
      const run = await recover();
      expect(run.code).toBe(6);
      expect(findings(run).map(({ kind }) => kind)).toEqual(['guest-held', 'vm-unreachable']);
      expect(findings(run)[1]?.found).toContain('whether VM bare runs is not known');
      expect(JSON.parse(readFileSync(at.state('s1/journal.json'), 'utf8'))).toMatchObject({ hold: {} });
      expect(at.images()).toHaveLength(2);
    });

    test('and the guest is thawed all the same; the rest is left, and that is told', async () => {
      await killWhileHeld();
      await make();
      const run = await recover();
      expect(run.code).toBe(3);
      expect(findings(run)).toMatchObject([{ kind: 'guest-held', status: 'done' }, { kind: 'vm-unreachable' }]);
      expect(at.agent.frozen).toBe(false);
      expect(at.images()).toHaveLength(2);
    });

    test('neither reverted nor deleted is what it may use', async () => {
      expect((await at.create('s1')).code).toBe(0);
      await make();
      for (const command of ['revert', 'delete']) {
        const run = await at.bridge(['snapshot', command, 's1', '--yes', '--monitor-timeout', '0.5']);
        expect(run, command).toMatchObject({ code: 3 });
      }
      expect(at.images()).toHaveLength(2);
    });
  });

  describe.each(off)('because $what', ({ errno, make }) => {
    test('is that of a VM that is shut off: nothing of its guest is left to be held', async () => {
      await killWhileHeld();
      await make();
      await at.agent[Symbol.asyncDispose]();
      expect(await errnoOf(at.vm.qmp)).toBe(errno);
      const run = await recover();
      expect(findings(run)).toMatchObject([{ kind: 'set-unfinished', status: 'done' }]);
      expect(run.code).toBe(0);
      expect(at.images()).toEqual(['root0.raw']);
    });
  });

  test('is told when its VM is one of several, and never "nothing to recover"', async () => {
    expect((await at.create('s1')).code).toBe(0);
    await using other = await QmpClient.connect(at.vm.qmp);
    expect(other.connected).toBe(true);
    writeFileSync(at.folder.path('none.json'), '{"vms":{}}');
    const words = ['--state-dir', at.folder.path('state'), '--config', at.folder.path('none.json')];
    const run = await execa(process.execPath, [HOST_TOOL, 'recover', '--monitor-timeout', '0.5', ...words], {
      reject: false,
    });
    expect(run.exitCode).toBe(3);
    expect(run.stdout).not.toContain('nothing to recover');
    expect(run.stdout).toContain('whether VM bare runs is not known');
  });
});

requires(
  'qemu-system-x86_64',
  'root',
  'setpriv',
)('a monitor that may not be used', () => {
  test('is there all the same', async () => {
    const script = 'require("net").connect(process.argv[1]).on("error", (e) => { console.log(e.code) })';
    const words = ['--reuid=65534', '--clear-groups', process.execPath, '-e', script, at.vm.qmp];
    await execa('chmod', ['755', at.folder.dir]);
    expect((await execa('setpriv', words)).stdout).toBe('EACCES');
  });
});
