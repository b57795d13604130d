// What may be asked at all, before it is looked at whether the guest is frozen: a preset, and on top of it qemu-ga's two
// lists. Which preset allows a command is said in its declaration.
//
//   freeze-only  what a backup needs: freeze, thaw, and to know what was frozen
//   default      all but running programs, writing files, and changing passwords and SSH keys
//   full         everything, as qemu-ga without lists
import type { Command, PolicyPreset } from './command.js';
import { policyPresets } from './command.js';
import { commandNames, commands } from './commands.js';

/** Commands of a preset. */
export function commandsOf(preset: PolicyPreset): ReadonlySet<string> {
  const rank = policyPresets.indexOf(preset);
  const table: Readonly<Record<string, Command>> = commands;
  return new Set(commandNames.filter((name) => policyPresets.indexOf(table[name]?.policy ?? 'full') <= rank));
}

export interface PolicySettings {
  readonly preset: PolicyPreset;
  /** Allowed besides the preset's. */
  readonly alsoAllow?: readonly string[];
  readonly blockRpcs?: readonly string[];
  /** qemu-ga's `-a`: if not empty, these and no others, whatever the preset says. */
  readonly allowRpcs?: readonly string[];
}

/** As in qemu-ga, a blocked command stays blocked whoever allows it. */
export function listsOf({ preset, alsoAllow = [], blockRpcs = [], allowRpcs = [] }: PolicySettings): {
  readonly blocked: ReadonlySet<string>;
  readonly allowed: ReadonlySet<string>;
} {
  const allowed = allowRpcs.length > 0 ? new Set(allowRpcs) : new Set([...commandsOf(preset), ...alsoAllow]);
  return { blocked: new Set(blockRpcs), allowed };
}

/**
 * Names of qemu-ga's lists that no command here has: they block or allow nothing. Written to be believed by whoever reads
 * the file, so they are worth a word; qemu-ga has none.
 */
export function namesOfNoCommand(names: readonly string[]): readonly string[] {
  const known: ReadonlySet<string> = new Set(commandNames);
  return [...new Set(names)].filter((name) => name !== '' && !known.has(name));
}
