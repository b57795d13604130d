// Mounts a set below a folder, for everybody, and takes it away again. What is mounted is noted before.
import { mkdirSync, readdirSync, realpathSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { CutError, describeError, UnreachableError } from '../errors.js';
import { mustRun, type Run } from './program.js';
import { asNamed, type Step } from './tree.js';

const BUSY_LIMIT_MS = 10_000;
const BUSY_STEP_MS = 250;

/** Gives its path without links. Throws an UnreachableError unless it is an empty folder. */
export function checkTarget(target: string): string {
  let names: readonly string[];
  try {
    names = readdirSync(target);
  } catch (cause) {
    throw new UnreachableError('E_TARGET', `expected a folder to mount in, found ${target}: ${describeError(cause)}`, {
      cause,
    });
  }
  if (names.length > 0)
    throw new UnreachableError('E_TARGET', `expected an empty folder, found ${names.length} entries in ${target}`);
  return realpathSync.native(target);
}

/** `note` is told of each mount point before it is one. Throws a CutError: what is mounted by then is unmountAll's. */
export async function mountSteps(steps: readonly Step[], run: Run, note: (at: string) => void): Promise<void> {
  for (const step of steps) {
    switch (step.kind) {
      case 'mount':
        note(step.at);
        await mountDevice(step, run);
        break;
      case 'bind':
        note(step.at);
        await mustRun(run, ['mount', step.whole === true ? '--rbind' : '--bind', step.from, step.at]);
        break;
      case 'folder':
        note(step.at);
        await mustRun(run, ['mount', '-t', 'tmpfs', '-o', 'mode=0755,size=1m', 'tmpfs', step.at]);
        break;
      case 'no-links':
        refuseLinks(step.base, step.path);
        break;
      case 'read-only':
        await mustRun(run, ['mount', '-o', 'remount,bind,ro', step.at]);
        break;
      case 'make':
        mkdirSync(step.at, { recursive: true });
        break;
      case 'unmount':
        await mustRun(run, ['umount', step.at]);
        break;
    }
  }
}

/** Throws a CutError unless the path is below `base` as its name says. */
function refuseLinks(base: string, path: string): void {
  let found: string;
  try {
    found = realpathSync.native(path);
  } catch (cause) {
    throw new CutError('E_MOUNT', `${path} is not there any more: ${describeError(cause)}`, { cause });
  }
  if (found !== `${base === '' ? '' : realpathSync.native(base)}${path.slice(base.length)}`)
    throw new CutError('E_MOUNT', `expected a folder or file at ${path}, found a link on the way to it: to ${found}`);
}

async function mountDevice(step: Step & { readonly kind: 'mount' }, run: Run): Promise<void> {
  const words = (options: readonly string[]): readonly [string, ...string[]] => [
    'mount',
    ...asNamed(step.device),
    // What is mounted below a bind of it would else be mounted below it, too.
    '--make-private',
    ...['-t', step.type, '-o', options.join(','), step.device, step.at],
  ];
  const { options, otherwise } = step;
  if (otherwise === undefined) await mustRun(run, words(options));
  else if ((await run(words(options))).exitCode !== 0) await mustRun(run, words(otherwise));
}

/** Last mounted first; with patience, since whoever has read there may still have it open. Throws a CutError. */
export async function unmountAll(mounts: readonly string[], run: Run): Promise<void> {
  for (const at of mounts.toReversed()) {
    for (let waitedMs = 0; (await run(['mountpoint', '-q', at])).exitCode === 0; waitedMs += BUSY_STEP_MS) {
      const { exitCode, stderr } = await run(['umount', at]);
      if (exitCode === 0) continue;
      if (waitedMs >= BUSY_LIMIT_MS) throw new CutError('E_IN_USE', `${at} cannot be unmounted: ${stderr.trim()}`);
      await sleep(BUSY_STEP_MS);
    }
  }
}
