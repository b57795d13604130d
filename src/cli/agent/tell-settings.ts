// Tells the log of the settings when the agent starts, above all of those that have no effect.
import { configuredFolders } from '../../agent/freeze-options.js';
import { foldersLeftTo } from '../../freeze/writers/dispatcher.js';
import type { Logger } from '../../log.js';
import { namesOfNoCommand } from '../../qga/policy.js';
import { unusedHooks } from './distribution.js';
import type { Settings } from './settings.js';

/** A mistyped restriction restricts nothing. qemu-ga takes it without a word. */
export function tellUnknownCommands({ blockRpcs, allowRpcs }: Settings, log: Logger): void {
  for (const [list, names] of [
    ['block-rpcs', blockRpcs],
    ['allow-rpcs', allowRpcs],
  ] as const) {
    for (const name of namesOfNoCommand(names)) log.warn({ list, name }, 'no such command: the name has no effect');
  }
}

/** Settings that an administrator has written for qemu-ga must not be lost without a word. */
export function tellDistribution({ distribution, fsfreezeHook }: Settings, log: Logger): void {
  for (const used of distribution.used) log.info(used, "the distribution's setting is used");
  for (const ignored of [...distribution.ignored, ...unusedHooks(distribution, fsfreezeHook)]) {
    log.warn(ignored, 'ignored');
  }
}

/** A folder that the hook names is left to it. If the hook runs nothing of that folder, nobody else does. */
export function tellLeftFolders({ bridge, fsfreezeHook: hook }: Settings, log: Logger): void {
  if (hook === undefined) return;
  for (const { path } of foldersLeftTo(hook, configuredFolders(bridge['writer-folders'])))
    log.info({ hook, folder: path }, 'the folder is left to the hook, which names it');
}
