// Watches the overlays of a VM's sets: tells once of each that grows beyond the limit, and of its return below it. It
// looks at the files from time to time, and holds no monitor: QEMU serves one client at a time, and a watch that had it
// would keep `create` and `commit` out. With a monitor of its own it also looks when QEMU says so.
import { setTimeout as sleep } from 'node:timers/promises';
import { UnreachableError } from '../../errors.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import { overlaySizes, type OverlaySize } from '../sets/overlay-sizes.js';
import { WriteThresholds } from './write-thresholds.js';

const SETTLE_MS = 500;

export interface WatchEvent {
  readonly event: 'above-limit' | 'below-limit';
  readonly at: string;
  readonly limitBytes: number;
  readonly overlay: OverlaySize;
}

export interface OverlayLook {
  readonly overlays: readonly OverlaySize[];
  readonly above: readonly OverlaySize[];
  /** Sets of which nothing is known. */
  readonly unreadable: readonly string[];
}

/** All overlays of the VM as they are now. */
export async function lookAtOverlays(store: ManifestStore, limitBytes: number): Promise<OverlayLook> {
  const { manifests, unreadable } = await store.readAll();
  const overlays: OverlaySize[] = [];
  for (const manifest of manifests) overlays.push(...(await overlaySizes(manifest)));
  return {
    overlays,
    above: overlays.filter(({ allocatedBytes = 0 }) => allocatedBytes > limitBytes),
    unreadable: unreadable.filter(({ empty }) => !empty).map(({ set }) => set),
  };
}

export interface WatchOptions {
  readonly store: ManifestStore;
  readonly limitBytes: number;
  readonly intervalMs: number;
  /** A monitor socket that nobody else needs. */
  readonly monitor?: string;
  readonly monitorTimeoutMs: number;
  /** Ends the watch. */
  readonly signal: AbortSignal;
  readonly onEvent: (event: WatchEvent) => void;
  /** The monitor went away: from then on the files alone are looked at. */
  readonly onMonitorLost: () => void;
}

/**
 * Returns the last look when the signal comes. Throws an UnreachableError if the monitor given is not there at first.
 */
export async function watchOverlays(options: WatchOptions): Promise<OverlayLook> {
  const { store, limitBytes, intervalMs, signal, onEvent } = options;
  let thresholds =
    options.monitor === undefined
      ? undefined
      : await WriteThresholds.connect(options.monitor, options.monitorTimeoutMs);
  const told = new Map<string, OverlaySize>();
  try {
    for (;;) {
      if (thresholds !== undefined && !(await arm(thresholds, await lookAtOverlays(store, limitBytes), limitBytes))) {
        thresholds[Symbol.dispose]();
        thresholds = undefined;
        options.onMonitorLost();
      }
      // Looked at after it is armed, so that what grows from now on is told of.
      const look = await lookAtOverlays(store, limitBytes);
      tellChanges(told, look, limitBytes, onEvent);
      if (signal.aborted) return look;
      const wasEvent = await either(thresholds?.next(intervalMs), intervalMs, signal);
      // QEMU tells of a write when it begins: the bytes are there a little later.
      if (wasEvent) await either(undefined, SETTLE_MS, signal);
    }
  } finally {
    thresholds?.[Symbol.dispose]();
  }
}

function tellChanges(
  told: Map<string, OverlaySize>,
  { above }: OverlayLook,
  limitBytes: number,
  onEvent: WatchOptions['onEvent'],
): void {
  const at = new Date().toISOString();
  for (const overlay of above) {
    if (!told.has(overlay.file)) onEvent({ event: 'above-limit', at, limitBytes, overlay });
    told.set(overlay.file, overlay);
  }
  for (const [file, overlay] of told) {
    if (above.some((each) => each.file === file)) continue;
    told.delete(file);
    onEvent({ event: 'below-limit', at, limitBytes, overlay });
  }
}

/** False if the monitor is gone. */
async function arm(thresholds: WriteThresholds, { overlays }: OverlayLook, limitBytes: number): Promise<boolean> {
  try {
    await thresholds.arm(overlays, limitBytes);
    return true;
  } catch (error) {
    if (error instanceof UnreachableError) return false;
    throw error;
  }
}

/** Waits for the event, but not longer than the time, nor past the signal; true if it was the event. */
async function either(event: Promise<boolean> | undefined, ms: number, signal: AbortSignal): Promise<boolean> {
  const over = new AbortController();
  const pause = sleep(ms, false, { signal: AbortSignal.any([signal, over.signal]) }).catch(() => false);
  const wasEvent = await Promise.race([pause, ...(event === undefined ? [] : [event])]);
  over.abort();
  return wasEvent;
}
