// Chooses a provider for each filesystem, and how it is cut: all under one freeze where kernel and provider can, else one
// after another while the writers are held. The choice is made before anything is held: a wrong one cannot be repaired
// by a time limit.
import { CutError } from '../errors.js';
import type { DiskLookup } from '../linux/disks.js';
import type { Filesystem } from '../linux/mounts.js';
import type { Way } from './journal.js';
import type { Provider, SizeWish, Snapshot } from './providers/provider.js';
import type { Source } from './sources.js';
import { volumeOf, type Volume } from './volume.js';

export interface PlannedSource {
  readonly source: Source;
  readonly way: Way;
  readonly snapshot?: Snapshot;
  /** Why it is not cut. */
  readonly reason?: string;
}

export interface SetPlan {
  readonly run: string;
  readonly sources: readonly PlannedSource[];
  /** One for each filesystem, however many sources lie on it. */
  readonly snapshots: readonly Snapshot[];
}

export interface PlanWish extends SizeWish {
  /** The only provider to be asked. */
  readonly provider?: string;
  /** Nothing may be bound. */
  readonly requireSnapshot: boolean;
}

/**
 * Throws a CutError if a provider fails, if there is no room, or if something cannot be cut and must be; the providers in the order in which
 * they are asked.
 */
export async function planSet(
  run: string,
  sources: readonly Source[],
  lookup: DiskLookup,
  providers: readonly Provider[],
  wish: PlanWish,
): Promise<SetPlan> {
  const asked = wish.provider === undefined ? providers : providers.filter(({ name }) => name === wish.provider);
  if (asked.length === 0)
    throw new CutError(
      'E_PROVIDER',
      `expected one of the providers ${providers.map(({ name }) => name).join(', ')}, found ${wish.provider ?? 'none'}`,
    );
  const filesystems = new Set(sources.flatMap(({ filesystem }) => filesystem ?? []));
  const chosen = new Map<Filesystem, Choice>();
  for (const filesystem of filesystems) {
    const chain = lookup.chainOf(filesystem);
    const volume = volumeOf(filesystem, chain);
    // A cut writes: to a file on a filesystem that is frozen meanwhile it would wait for the thaw.
    const below = chain.restsOn.find((other) => filesystems.has(other));
    const choice =
      below === undefined
        ? await choose(volume, asked)
        : { volume, reason: `it lies in a file on ${below.mountpoint}, which is held as well` };
    chosen.set(filesystem, choice);
  }
  const snapshots = new Map<Filesystem, Snapshot>();
  for (const provider of asked) {
    const volumes = [...chosen.values()].filter((one) => one.provider === provider).map(({ volume }) => volume);
    if (volumes.length === 0) continue;
    for (const snapshot of await provider.plan(run, volumes, wish)) snapshots.set(snapshot.volume.filesystem, snapshot);
  }
  const wayOf = wayIn([...snapshots.values()]);
  const planned = sources.map((source): PlannedSource => {
    const snapshot = source.filesystem === undefined ? undefined : snapshots.get(source.filesystem);
    if (snapshot !== undefined) return { source, snapshot, way: wayOf(snapshot) };
    if (source.isFleeting === true)
      return { source, way: 'live', reason: `${source.mount.type} is the kernel's or in memory` };
    const choice = source.filesystem === undefined ? undefined : chosen.get(source.filesystem);
    return { source, way: 'bind', reason: choice?.reason ?? `${source.mount.type} is no data on a block device` };
  });
  const bound = planned.filter(({ way }) => way === 'bind');
  if (wish.requireSnapshot && bound.length > 0)
    throw new CutError(
      'E_NO_PROVIDER',
      bound.map(({ source, reason }) => `${source.at} cannot be snapshot: ${reason ?? ''}`).join('; '),
    );
  return { run, sources: planned, snapshots: [...snapshots.values()] };
}

interface Choice {
  readonly volume: Volume;
  readonly provider?: Provider;
  /** What each provider said, if none takes it. */
  readonly reason: string;
}

async function choose(volume: Volume, providers: readonly Provider[]): Promise<Choice> {
  const reasons = new Set<string>();
  for (const provider of providers) {
    const probe = await provider.probe(volume);
    if (probe.fits) return { volume, provider, reason: '' };
    reasons.add(probe.reason);
  }
  return { volume, reason: [...reasons].join('; ') };
}

/** A volume that is cut alone is of one instant, whoever freezes it. */
function wayIn(snapshots: readonly Snapshot[]): (snapshot: Snapshot) => Way {
  return ({ underFreeze }) => (underFreeze || snapshots.length === 1 ? 'atomic' : 'per-volume');
}
