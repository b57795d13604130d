// One run: load, a cut, a second guest that recovers, a judgement for each application.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { bootGuest, type QemuGuest, type UserModeGuest } from '../../src/testing/index.js';
import { defined } from '../../src/defined.js';
import { generator } from '../torture/draw.js';
import { cutByCopy, cutByTool, cutInside, type Taken, type Way } from './cut.js';
import { judge, type Judgement } from './judge.js';
import type { Lab } from './lab.js';
import { underLoad, setUp } from './load-guest.js';
import { GUEST, recover } from './recovery.js';
import { moveToVolumes } from './volumes.js';

export interface Draw {
  readonly way: Way;
  readonly seed: number;
  readonly index: number;
}

export interface EngineResult extends Judgement {
  readonly engine: string;
  readonly recoveryMs: number | undefined;
}

/**
 * How a guest is cut: `qemu` by the host tool, in one transaction of its disks; `user-mode` by copies of its disks;
 * `volumes` by fsfreeze-snapshot inside it, and that is a user-mode guest, too.
 */
export type LoadKind = 'qemu' | 'user-mode' | 'volumes';

export interface RunResult extends Draw {
  readonly guest: LoadKind;
  readonly pauseMs: number | undefined;
  readonly frozenMs: number | undefined;
  readonly tookMs: number;
  readonly engines: readonly EngineResult[];
}

export interface LoadGuest extends AsyncDisposable {
  readonly kind: LoadKind;
  readonly guest: QemuGuest | UserModeGuest;
}

/** A guest that `run` may be given, more than once. */
export async function loadGuest(kind: LoadKind, { engines, image, kernel }: Lab): Promise<LoadGuest> {
  const options = { image, ...GUEST };
  const guest =
    kind === 'qemu'
      ? await bootGuest({ kind, ...options })
      : await bootGuest({ kind: 'user-mode', ...options, ...defined({ kernel }) });
  try {
    if (kind === 'volumes' && guest.kind === 'user-mode') await moveToVolumes(guest);
    await setUp(guest, engines);
    return { kind, guest, [Symbol.asyncDispose]: () => guest[Symbol.asyncDispose]() };
  } catch (cause) {
    await guest[Symbol.asyncDispose]();
    throw cause;
  }
}

/** Throws what breaks it: then nothing is known of the cut. */
export async function run(
  { kind, guest }: Pick<LoadGuest, 'kind' | 'guest'>,
  lab: Lab,
  draw: Draw,
): Promise<RunResult> {
  const startMs = performance.now();
  const { engines, image, kernel } = lab;
  const { way, seed, index } = draw;
  const folder = await mkdtemp(path.join(tmpdir(), 'fsb-cut-'));
  try {
    let taken: Taken | undefined;
    const log = await underLoad(guest, engines, async () => {
      await sleep(1000 * generator(Math.imul(seed, 0x9e3779b1) ^ (index + 1))());
      if (guest.kind === 'qemu') taken = await cutByTool(guest, `cut-${index}`, folder);
      else if (kind === 'volumes') taken = await cutInside(guest, folder);
      else taken = await cutByCopy(guest, way, engines, folder);
    });
    if (taken === undefined) throw new Error('nothing was cut');
    const { cut, ...said } = taken;
    const recovered = await recover(engines, image, cut, kernel);
    const results = [...recovered].map(([name, found]) => {
      const engine = engines.find((each) => each.name === name);
      if (engine === undefined) throw new Error(`no application ${name}`);
      return { engine: name, recoveryMs: found.recoveryMs, ...judge(engine, log, found) };
    });
    return { ...draw, guest: kind, ...said, tookMs: performance.now() - startMs, engines: results };
  } finally {
    await rm(folder, { recursive: true });
  }
}
