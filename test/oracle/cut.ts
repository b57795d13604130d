// Cuts the disks of a guest under load: as it should be done, and wrong on purpose. Marks in the load's log say what
// happened when.
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createSnapshot } from '../../vm-images/demo/bridge.js';
import { satisfies } from '../../src/consistency.js';
import { QuiesceError } from '../../src/errors.js';
import type { Guest, QemuGuest, UserModeGuest } from '../../src/testing/index.js';
import { copyDisk } from '../../src/testing/user-mode/boot-user-mode.js';
import { addWriter, removeWriters, requester } from '../support/agent-guest.js';
import { MEMORY, type Engine } from './engine.js';
import type { Mark } from './log.js';
import type { Cut } from './recovery.js';
import { cutVolumes } from './volumes.js';

/**
 * - `held`: by our agent, both disks at one instant.
 * - `lost`: the same, and in place of our writers are hooks whose hold is gone when they have ended.
 * - `unheld`: both disks at one instant, nothing held and nothing frozen.
 * - `apart`: held, and again 2 s later; of each hold one disk.
 */
export type Way = 'held' | 'lost' | 'unheld' | 'apart';
/** Those that are made wrong on purpose. */
export const CONTROLS = ['lost', 'unheld', 'apart'] as const satisfies readonly Way[];

export interface Taken {
  readonly cut: Cut;
  readonly pauseMs: number | undefined;
  readonly frozenMs: number | undefined;
}

const DISKS = ['root', 'data'] as const;
type DiskName = (typeof DISKS)[number];
const LEASE_MS = 60_000;
/** Between the hold and the first FIFREEZE, as a slow writer of something else would take: it has to hold by itself. */
const HELD_S = 0.3;
/** The last one to hold, and the first to let go. */
const WITNESS = '99-witness';
const witness = `#!/bin/sh
# fsfreeze-writer: phases=freeze thaw
# fsfreeze-writer: rank=99
# fsfreeze-writer: guarantee=none
case $1 in
freeze) echo '! held' >>${MEMORY}/log; sleep ${HELD_S}; echo '! holding' >>${MEMORY}/log ;;
thaw) echo '! releasing' >>${MEMORY}/log ;;
esac
`;

export async function installWitness(guest: Guest): Promise<void> {
  await addWriter(guest, WITNESS, witness);
}

async function mark(guest: Guest, ...marks: readonly Mark[]): Promise<void> {
  await guest.exec(`printf '! %s\\n' ${marks.join(' ')} >>${MEMORY}/log`);
}

/** By the host tool, in one transaction of QEMU's; then what was cut is copied into `folder`. */
export async function cutByTool(guest: QemuGuest, set: string, folder: string): Promise<Taken> {
  await mark(guest, 'asked');
  const manifest = await createSnapshot(guest, set, ['--require', 'application']);
  await mark(guest, 'thawed');
  const cut = cutIn(folder);
  for (const name of DISKS) {
    const disk = manifest.disks.find(({ serial }) => serial === name);
    if (disk === undefined) throw new Error(`the snapshot holds no disk ${name}`);
    await copyDisk({ file: disk.base.file, format: 'qcow2' }, cut[name]);
  }
  const { pauseWindowMs, frozenWindowMs } = manifest.timings;
  return { cut, pauseMs: pauseWindowMs, frozenMs: frozenWindowMs };
}

/** By fsfreeze-snapshot in the guest, of its volumes at one instant. */
export async function cutInside(guest: UserModeGuest, folder: string): Promise<Taken> {
  return { cut: { packed: await cutVolumes(guest, folder) }, pauseMs: undefined, frozenMs: undefined };
}

/** By copies of the disks into `folder`. */
export async function cutByCopy(
  guest: UserModeGuest,
  way: Way,
  engines: readonly Engine[],
  folder: string,
): Promise<Taken> {
  const cut = cutIn(folder);
  const take: Take = async (names) => {
    await Promise.all(
      names.map(async (name) => {
        await copyDisk(guest.disk(name), cut[name]);
      }),
    );
  };
  return { cut, ...(await ways[way](guest, take, engines)) };
}

function cutIn(folder: string): Readonly<Record<DiskName, string>> {
  return { root: path.join(folder, 'root.raw'), data: path.join(folder, 'data.raw') };
}

type Take = (names: readonly DiskName[]) => Promise<void>;
type Said = Omit<Taken, 'cut'>;
type MakeCut = (guest: UserModeGuest, take: Take, engines: readonly Engine[]) => Promise<Said>;

const ways: Readonly<Record<Way, MakeCut>> = {
  async held(guest, take) {
    return await hold(guest, async () => {
      await take(DISKS);
    });
  },

  async lost(guest, take, engines) {
    const hooks = engines.flatMap(({ lost }) => (lost === undefined ? [] : [lost]));
    for (const { writer, hook } of hooks) await addWriter(guest, writer, `#!/bin/sh\n${hook}\n`);
    try {
      const act = async (): Promise<void> => {
        await take(DISKS);
      };
      return await hold(guest, act, 'filesystem');
    } finally {
      await removeWriters(guest, ...hooks.map(({ writer }) => writer));
    }
  },

  async unheld(guest, take) {
    await mark(guest, 'asked', 'held', 'holding');
    await guest.pause();
    try {
      await sleep(100); // what the disks were handed is still written
      await take(DISKS);
    } finally {
      await guest.resume();
    }
    await mark(guest, 'releasing', 'thawed');
    return { pauseMs: undefined, frozenMs: undefined };
  },

  async apart(guest, take) {
    const said = await hold(guest, async () => {
      await take(['data']);
    });
    await sleep(2000);
    await hold(guest, async () => {
      await take(['root']);
    });
    return said;
  },
};

/** Throws a QuiesceError where the level is lower than `require`, before or after the cut. */
async function hold(
  guest: UserModeGuest,
  act: () => Promise<void>,
  require: 'application' | 'filesystem' = 'application',
): Promise<Said> {
  await using host = await requester(guest);
  await mark(guest, 'asked');
  const session = await host.coordinator.freeze({ requester: 'oracle', leaseMs: LEASE_MS, require });
  try {
    await mark(guest, 'frozen');
    await act();
    await mark(guest, 'thawing');
  } catch (cause) {
    await session.thaw();
    throw cause;
  }
  const { level, evidence, pauseWindowMs, frozenWindowMs } = await session.thaw();
  await mark(guest, 'thawed');
  // The hold did not last, and the agent says so: nobody would take this cut for what it should be.
  if (!satisfies(level, require)) throw new QuiesceError('E_LEVEL', `level ${level}: ${evidence.join('; ')}`);
  return { pauseMs: pauseWindowMs, frozenMs: frozenWindowMs };
}
