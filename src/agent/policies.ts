// The policies: what each side may ask for. The settings are the administrator's word on what the host may do. The
// local socket is for backup programs, of a group that is not root: it gives them what they need and no way to become
// root, whatever the host may do. Which commands a preset holds: src/qga/policy.ts.
import type { PolicyPreset } from '../qga/command.js';
import { listsOf } from '../qga/policy.js';
import { whyDisabled, type Compat, type Policy } from '../qga/server.js';
import type { ChannelContext, Origin } from './origin.js';

export interface PolicyOptions {
  readonly compat: Compat;
  readonly blockRpcs: readonly string[];
  readonly allowRpcs: readonly string[];
  /** The preset for the host; `default` if not given. */
  readonly policy?: PolicyPreset;
  /** Commands that the host may use besides those of the preset. */
  readonly alsoAllow?: readonly string[];
}

export type Policies = Readonly<Record<Origin, Policy>>;

/** @param isFrozen while true, only commands that may run while frozen are let through, on either side */
export function makePolicies(
  { compat, blockRpcs, allowRpcs, policy: preset = 'default', alsoAllow = [] }: PolicyOptions,
  isFrozen: () => boolean,
): Policies {
  return {
    host: { compat, ...listsOf({ preset, alsoAllow, blockRpcs, allowRpcs }), isFrozen },
    guest: { compat, ...listsOf({ preset: 'freeze-only' }), isFrozen },
  };
}

/** Whether a channel may open files for writing too. */
export function mayWriteFiles(policies: Policies): (context: ChannelContext) => boolean {
  return ({ origin }) => whyDisabled(policies[origin], 'guest-file-write') === undefined;
}
