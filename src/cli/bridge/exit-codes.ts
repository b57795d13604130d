// The exit codes of fsfreeze-bridge: the one table, and which class of error ends with which. The README shows the table.
import {
  CutError,
  DeadlineError,
  QuiesceError,
  StateError,
  ThawUnconfirmedError,
  UnreachableError,
  UsageError,
} from '../../errors.js';
import { RemoteError } from '../../rpc/errors.js';

export const exitCodes = [
  { code: 0, name: 'done', meaning: 'done, at the level asked for' },
  { code: 1, name: 'internal', meaning: 'internal error: a bug, or a peer that breaks its protocol' },
  { code: 2, name: 'usage', meaning: 'usage: the call, a name or the configuration is wrong; nothing was done' },
  { code: 3, name: 'unreachable', meaning: 'agent or monitor unreachable; nothing was done' },
  { code: 4, name: 'quiesce', meaning: 'quiesce refused or failed, or interrupted: guest thawed, nothing cut' },
  {
    code: 5,
    name: 'cut',
    meaning: 'cut, copy, backup or merge failed, or refused while the VM is being migrated or saved; guest thawed',
  },
  { code: 6, name: 'thaw-unconfirmed', meaning: 'THAW NOT CONFIRMED: look at the guest now' },
  {
    code: 7,
    name: 'below-level',
    meaning: 'done, but below the level asked for (--allow-lower, or the level fell after the cut): kept and labelled',
  },
  {
    code: 8,
    name: 'left',
    meaning: 'recover, commit: something is left that only you can decide, or that failed: it says what to do',
  },
  { code: 9, name: 'above-limit', meaning: 'snapshot watch: an overlay is above the limit given' },
  {
    code: 10,
    name: 'damaged',
    meaning: 'backup verify: a run is not what it was when it was made, or failed its boot test',
  },
  {
    code: 11,
    name: 'unchecked',
    meaning: 'backup verify: nothing wrong was found, but encrypted runs were not looked into without their key',
  },
] as const;

export type ExitName = (typeof exitCodes)[number]['name'];
export type ExitCode = (typeof exitCodes)[number]['code'];

export function exitCode(name: ExitName): ExitCode {
  const entry = exitCodes.find((each) => each.name === name);
  if (entry === undefined) throw new Error(`no exit code ${name}`);
  return entry.code;
}

/** The code for whatever was thrown. Never throws. */
export function exitCodeOf(error: unknown): ExitCode {
  return exitCode(exitNameOf(error));
}

function exitNameOf(error: unknown): ExitName {
  if (error instanceof ThawUnconfirmedError) return 'thaw-unconfirmed';
  if (error instanceof UsageError) return 'usage';
  if (error instanceof UnreachableError || error instanceof DeadlineError) return 'unreachable';
  if (error instanceof QuiesceError || error instanceof StateError) return 'quiesce';
  // A RemoteError: QEMU or the agent refused a command outside a freeze, and the operation it was part of failed.
  if (error instanceof CutError || error instanceof RemoteError) return 'cut';
  return 'internal';
}
