// Where the snapshots of a set are mounted, as steps for mount(8): over the original paths, in a mount namespace of the
// command's own, or below a folder, for everybody. Pure. Who does the steps: private-tree.ts, shown-tree.ts.
import type { Mount } from '../linux/mountinfo.js';
import type { PlannedSource } from './planner.js';
import type { Mountable } from './snapshot-set.js';

/**
 * Words for mount(8). It would make a name below /dev/mapper of /dev/dm-N and open that, a link that leads to what had the
 * name before until udev has come to it. Other names (LABEL=...) it has to look up.
 */
export function asNamed(device: string): readonly string[] {
  return device.startsWith('/dev/dm-') ? ['--no-canonicalize'] : [];
}

export type Step =
  /** A snapshot, at a place of ours. */
  | {
      readonly kind: 'mount';
      readonly device: string;
      readonly type: string;
      readonly options: readonly string[];
      readonly otherwise?: readonly string[];
      readonly at: string;
    }
  /** `whole`: with what is mounted below it. `ifThere`: not where the place has come to be since the cut. */
  | {
      readonly kind: 'bind';
      readonly from: string;
      readonly at: string;
      readonly whole?: true;
      readonly ifThere?: true;
    }
  /** No link leads elsewhere between `base`, empty for the root, and `path`: one may have come since the paths were read. */
  | { readonly kind: 'no-links'; readonly base: string; readonly path: string }
  /** What is bound as it is can at least not be written through here. */
  | { readonly kind: 'read-only'; readonly at: string }
  /** A folder in memory, to hang others in. */
  | { readonly kind: 'folder'; readonly at: string }
  | { readonly kind: 'make'; readonly at: string }
  | { readonly kind: 'unmount'; readonly at: string };

/** `keep`: a bind at a place of ours that is not there yet, of a folder or a file. `move`: where nothing is shared. */
export type PrivateStep = Step | { readonly kind: 'keep' | 'move'; readonly from: string; readonly at: string };

/** `stage`: a place for each snapshot, in the order of `mountable`. */
export interface TreeParts {
  readonly sources: readonly PlannedSource[];
  readonly mountable: readonly Mountable[];
  readonly stage: (place: number) => string;
}

export interface PrivateTree {
  readonly steps: readonly PrivateStep[];
  /** The command's root, if that is not the machine's: nothing can be mounted over `/` itself. */
  readonly root?: string;
}

/** Over the original paths. `mounts`: all of the machine. */
export function privateTree(parts: TreeParts, mounts: readonly Mount[]): PrivateTree {
  const { sources } = parts;
  const top = sources.find(({ source, snapshot }) => source.at === '/' && snapshot !== undefined);
  const root = top === undefined ? undefined : fromOf(parts, top);
  // Without a new root, what is not cut is there already, or hidden as soon as what it is mounted in is shown.
  const hidden = root === undefined ? sources.filter((one) => isHidden(one, sources)) : [];
  const kept = new Map(hidden.map((one, place) => [one, parts.stage(parts.mountable.length + place)]));
  const moved = new Set(sources.filter((one) => one !== top && isAllOfItsSnapshot(one, sources)));
  const leaves = new Set([root, ...[...moved].map((one) => stageOf(parts, one))]);
  const steps = [
    ...parts.mountable.map((_, place) => stageStep(parts, place, ['nosuid'])),
    ...[...kept].map(([one, at]): PrivateStep => ({ kind: 'keep', from: one.source.at, at })),
    ...(root === undefined || top === undefined ? [] : restOfRoot(root, top, sources, mounts)),
    ...sources
      .filter((one) => one !== top && (root !== undefined || one.snapshot !== undefined || kept.has(one)))
      .flatMap((one): PrivateStep[] => {
        const steps = place(parts, one, root ?? '', kept.get(one));
        return moved.has(one) ? steps.map((step) => (step.kind === 'bind' ? { ...step, kind: 'move' } : step)) : steps;
      }),
    ...[...kept.values()].map((at): Step => ({ kind: 'unmount', at })),
    // What is bound stays; the staging place of a new root is the root.
    ...parts.mountable
      .map((_, place) => parts.stage(place))
      .filter((at) => !leaves.has(at))
      .map((at): Step => ({ kind: 'unmount', at })),
  ];
  return { steps, ...(root === undefined ? {} : { root }) };
}

/**
 * Then it is moved to its place: to bind it there and take it away is a program more, and each takes its time. It cannot be
 * mounted there at once: a snapshot that is a subvolume of what is mounted there is refused by mount(2).
 */
function isAllOfItsSnapshot({ source, snapshot }: PlannedSource, sources: readonly PlannedSource[]): boolean {
  return (
    snapshot !== undefined && source.inside === '/' && sources.filter((one) => one.snapshot === snapshot).length === 1
  );
}

/** It is not cut, and mounted below something that is: anything, a network's filesystem and one in memory as well. */
function isHidden({ source, snapshot }: PlannedSource, sources: readonly PlannedSource[]): boolean {
  return (
    snapshot === undefined &&
    sources.some((other) => other.snapshot !== undefined && source.at.startsWith(`${other.source.at}/`))
  );
}

/** What else is mounted right on the root: a command needs /proc, /dev and /run, and they are no data. */
function restOfRoot(
  root: string,
  top: PlannedSource,
  sources: readonly PlannedSource[],
  mounts: readonly Mount[],
): readonly Step[] {
  const shown = new Set(sources.map(({ source }) => source.at));
  const last = new Map(mounts.map((mount) => [mount.mountpoint, mount]));
  return [...last.values()]
    .filter(({ parentId, mountpoint }) => parentId === top.source.mount.id && !shown.has(mountpoint))
    .map(({ mountpoint }) => ({
      kind: 'bind',
      from: mountpoint,
      at: `${root}${mountpoint}`,
      whole: true,
      ifThere: true,
    }));
}

/** Below `target`, as the root of the tree. The places that are there before it hang in memory. */
export function shownTree(parts: TreeParts, target: string): readonly Step[] {
  const { sources } = parts;
  const top = sources.find(({ source }) => source.at === '/');
  return [
    ...parts.mountable.map((_, place) => stageStep(parts, place, ['nosuid', 'noexec'])),
    ...(top === undefined ? [{ kind: 'folder', at: target } as const] : place(parts, top, target)),
    ...sources
      .filter((one) => one !== top)
      .flatMap((one): Step[] => {
        const at = `${target}${one.source.at}`;
        return [...(top === undefined ? [{ kind: 'make', at } as const] : []), ...place(parts, one, target)];
      }),
    ...parts.mountable.map((_, place): Step => ({ kind: 'unmount', at: parts.stage(place) })),
  ];
}

function stageStep({ mountable, stage }: TreeParts, place: number, more: readonly string[]): Step {
  const spec = mountable[place]?.spec;
  if (spec === undefined) throw new Error(`there is no snapshot ${place}`);
  const { device, type, options, otherwise } = spec;
  return {
    kind: 'mount',
    device,
    type,
    options: [...options, ...more],
    ...(otherwise === undefined ? {} : { otherwise: [...otherwise, ...more] }),
    at: stage(place),
  };
}

function stageOf({ mountable, stage }: TreeParts, { snapshot }: PlannedSource): string {
  return stage(mountable.findIndex((one) => one.snapshot === snapshot));
}

function fromOf(parts: TreeParts, one: PlannedSource): string {
  return `${stageOf(parts, one)}${one.source.inside === '/' ? '' : one.source.inside}`;
}

/** Below `base`, which is empty for the root. `kept`: where what is not cut is found, if not at its own place. */
function place(parts: TreeParts, one: PlannedSource, base: string, kept = one.source.at): Step[] {
  const at = one.source.at === '/' ? base : `${base}${one.source.at}`;
  const reached: Step[] = one.source.at === '/' ? [] : [{ kind: 'no-links', base, path: at }];
  if (one.snapshot === undefined) {
    const bind: Step = { kind: 'bind', from: kept, at };
    return [...reached, bind, ...(one.way === 'live' ? [] : [{ kind: 'read-only', at } as const])];
  }
  const from = fromOf(parts, one);
  // The cut is later than the plan: whoever owns a folder on the way may have put a link in its place.
  const found: Step[] = one.source.inside === '/' ? [] : [{ kind: 'no-links', base: stageOf(parts, one), path: from }];
  return [...found, ...reached, { kind: 'bind', from, at }];
}
