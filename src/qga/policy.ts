// Which commands an administrator lets a channel ask: a preset, and on top of it qemu-ga's two lists. A command's declaration
// names the preset that allows it. What may run while the guest is frozen is decided in server.ts.
//
//   freeze-only  what a backup needs: freeze, thaw, and to know what was frozen
//   default      all but running programs, writing files, and changing passwords and SSH keys
//   full         everything, as qemu-ga without lists
import type { Command, PolicyPreset } from './command.js';
import { policyPresets } from './command.js';
import { commandNames, commands } from './commands.js';

/** The commands that a preset allows. */
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

/** The lists of a channel. As in qemu-ga, a blocked command stays blocked whoever allows it. */
export function listsOf({ preset, alsoAllow = [], blockRpcs = [], allowRpcs = [] }: PolicySettings): {
  readonly blocked: ReadonlySet<string>;
  readonly allowed: ReadonlySet<string>;
} {
  const allowed = allowRpcs.length > 0 ? new Set(allowRpcs) : new Set([...commandsOf(preset), ...alsoAllow]);
  return { blocked: new Set(blockRpcs), allowed };
}

/**
 * Names of qemu-ga's lists that no command here has: they block or allow nothing. Whoever reads the file believes that they
 * do, so they are told of; qemu-ga passes over them in silence.
 */
export function namesOfNoCommand(names: readonly string[]): readonly string[] {
  const known: ReadonlySet<string> = new Set(commandNames);
  return [...new Set(names)].filter((name) => name !== '' && !known.has(name));
}
