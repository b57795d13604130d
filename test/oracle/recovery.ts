// Boots a second guest from a cut, starts the applications in it as after a power cut, and reads what they hold.
import { needsRecovery } from '../../vm-images/demo/disks.js';
import { bootGuest, BridgeError, type Guest, type GuestImage } from '../../src/testing/index.js';
import type { BootOptions } from '../../src/testing/boot-options.js';
import { defined } from '../../src/defined.js';
import { MEMORY, type Engine } from './engine.js';
import type { Complaint } from './judge.js';
import { unpack } from './volumes.js';

const LIMIT_MS = 180_000;

export interface Recovered {
  /** By source: the names of the operations that are there. */
  readonly there: ReadonlyMap<string, ReadonlySet<string>>;
  /** Until it answered. */
  readonly recoveryMs: number | undefined;
  /** Its own words if it did not start. */
  readonly refused: string | undefined;
  readonly faults: readonly Complaint[];
}

/** Raw files. `packed`: what is unpacked over what the image has (volumes.ts); the two disks are the image's own then. */
export type Cut = Readonly<Record<'root' | 'data', string>> | { readonly packed: string };

/** By the engine's name. The cut is only read: the guest has copies. */
export async function recover(
  engines: readonly Engine[],
  image: GuestImage,
  cut: Cut,
  kernel: BootOptions['kernel'],
): Promise<ReadonlyMap<string, Recovered>> {
  const disks = 'packed' in cut ? undefined : cut;
  const shared =
    disks !== undefined && (await needsRecovery(disks.root))
      ? [{ kind: 'filesystem' as const, text: 'the ext4 needs recovery' }]
      : [];
  const raw = (file: string) => ({ file, format: 'raw' }) as const;
  const bases = disks === undefined ? undefined : { root: raw(disks.root), data: raw(disks.data) };
  await using guest = await bootGuest({ kind: 'user-mode', image, ...GUEST, ...defined({ bases, kernel }) });
  await guest.exec(`install -d -m 0777 ${MEMORY}`);
  if ('packed' in cut) {
    const { path } = await guest.hotplugDisk(cut.packed, { name: 'packed', format: 'raw' });
    await guest.exec(unpack(path), { timeoutMs: LIMIT_MS });
  }
  const recovered = new Map<string, Recovered>();
  for (const engine of engines) {
    const { faults, ...found } = await recoverOne(guest, engine);
    recovered.set(engine.name, { ...found, faults: [...shared, ...faults] });
  }
  return recovered;
}

/** Of guests with all applications of a recipe, and the load beside them, however busy the machine is. */
export const GUEST = { memoryMiB: 1024, timeoutMs: 600_000 } as const;

async function recoverOne(guest: Guest, engine: Engine): Promise<Recovered> {
  const faults = [...(await complaint(guest, engine.checkFiles))];
  const there = new Map<string, ReadonlySet<string>>();
  const startMs = performance.now();
  const { exitCode, stdout, stderr } = await guest.exec(engine.start, { timeoutMs: LIMIT_MS, check: false });
  if (exitCode !== 0) {
    return { there, recoveryMs: undefined, refused: `${stdout}${stderr}`.trim().slice(-500), faults };
  }
  const recoveryMs = performance.now() - startMs;
  for (const { name, contents } of engine.streams) {
    try {
      const lines = (await guest.exec(contents, { timeoutMs: LIMIT_MS })).stdout.split('\n');
      there.set(name, new Set(lines.filter(Boolean)));
    } catch (error) {
      // A table that cannot be read: nothing of it is there.
      if (!(error instanceof BridgeError && error.code === 'E_GUEST_COMMAND')) throw error;
      faults.push({ kind: 'checker', text: `${name}: ${error.message.slice(-300)}` });
    }
  }
  faults.push(...(await complaint(guest, engine.check)));
  return { there, recoveryMs, refused: undefined, faults };
}

async function complaint(guest: Guest, check: string | undefined): Promise<readonly Complaint[]> {
  if (check === undefined) return [];
  const { exitCode, stdout, stderr } = await guest.exec(check, { timeoutMs: LIMIT_MS, check: false });
  return exitCode === 0 ? [] : [{ kind: 'checker', text: `${stdout}${stderr}`.trim().slice(-500) }];
}
