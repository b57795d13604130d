// Thaws a guest that a tool held when it was killed: asks it first, then thaws until it confirms. A hold of ours is
// known by the session in the journal; a stock agent has no sessions, and is thawed if the journal says that we froze
// it. A hold of somebody else is left alone.
import { defined } from '../../defined.js';
import { UnreachableError, describeError } from '../../errors.js';
import { whyNotItsAgent } from '../guest/agent-owner.js';
import type { GuestAgent } from '../guest/guest-agent.js';
import { forgetHold, readBackupJournal } from '../backup/backup-journal.js';
import { readJournal, removeJournal, type JournalHold } from '../sets/journal.js';
import type { OwnerState } from '../sets/owner.js';
import { parsePlace } from '../vm/place.js';
import type { RecoveryRun } from './recovery-run.js';
import { thawUntilConfirmed } from '../guest/thaw-guest.js';

/** Call it before anything else is recovered: the guest comes first. */
export async function recoverGuest(run: RecoveryRun): Promise<void> {
  let known = false;
  for (const { set, journal, forget } of await journals(run)) {
    // Whatever the guest is in now, somebody is at it.
    if (journal.owner !== 'gone') known = true;
    const hold = journal.owner === 'gone' ? journal.entry?.hold : undefined;
    if (hold === undefined) continue;
    known = true;
    const isOver = await recoverHold(run, set, hold);
    if (run.options.dryRun) continue;
    if (isOver) await forget();
    else if (set !== undefined) run.held.add(set);
  }
  if (!known) await tellOfForeignHold(run);
}

interface HoldingJournal {
  /** Undefined for a backup. */
  readonly set: string | undefined;
  readonly journal: {
    readonly owner: OwnerState;
    readonly entry: { readonly hold?: JournalHold | undefined } | undefined;
  };
  /** The guest is known to be thawed. */
  readonly forget: () => Promise<void>;
}

async function journals({ store }: RecoveryRun): Promise<HoldingJournal[]> {
  const found: HoldingJournal[] = [];
  for (const set of await store.names()) {
    const file = store.journalFile(set);
    const journal = await readJournal(file);
    if (journal !== undefined) found.push({ set, journal, forget: () => removeJournal(file) });
  }
  const backup = await readBackupJournal(store.folder);
  // The rest of it is recover-backup.ts's.
  if (backup !== undefined) found.push({ set: undefined, journal: backup, forget: () => forgetHold(store.folder) });
  return found;
}

/** True if the guest is known to be thawed, or is shut off: the journal has served. */
async function recoverHold(run: RecoveryRun, set: string | undefined, hold: JournalHold): Promise<boolean> {
  const { options } = run;
  const what = set === undefined ? 'a backup' : `set ${set}`;
  const found = `${what}: the tool ended while it held the guest (session ${hold.session}, since ${hold.since})`;
  const ofSet = defined({ set });
  let agent: GuestAgent;
  try {
    agent = await options.openAgent(parsePlace(hold.qga), options.limits.agentLimits);
  } catch (error) {
    if (!run.isRunning && error instanceof UnreachableError) return true;
    const did = `the guest does not say whether it is thawed: ${describeError(error)}; ours thaws itself when its lease of ${hold.leaseMs / 1000} s ends, a stock qemu-ga never does`;
    const commands = [thawCommand(run, hold)];
    run.note('failed', { ...ofSet, kind: 'guest-held', found, did, commands, thawUnconfirmed: true });
    return false;
  }
  await using open = agent;
  const { state, session } = await open.coordinator.status();
  // If another session than ours holds the guest, ours is over, and this one is not ours to end.
  if (state !== 'idle' && open.kind === 'bridge' && session !== hold.session) return true;
  if (open.kind === 'stock' && state !== 'idle' && (await tellOfForeignAgent(run, ofSet, found, hold, open)))
    return false;
  const limitMs = options.limits.agentLimits.thawMs;
  const about = { ...ofSet, kind: 'guest-held', commands: [thawCommand(run, hold)] } as const;
  const thaw = async (): Promise<string> => {
    await thawUntilConfirmed(open, limitMs, open.kind === 'stock' ? undefined : hold.session);
    return 'the guest is thawed, and says so';
  };
  if (state !== 'idle') {
    return await run.repair({ ...about, found: `${found}; the guest is ${state}`, did: 'thaw it' }, thaw);
  }
  if (open.kind === 'stock' || options.dryRun) return true;
  try {
    await thawUntilConfirmed(open, limitMs, hold.session);
    return true;
  } catch (error) {
    run.note('failed', { ...about, found, did: describeError(error), thawUnconfirmed: true });
    return false;
  }
}

// A stock agent has no sessions by which its guest would be known: its socket may be another VM's by now.
async function tellOfForeignAgent(
  run: RecoveryRun,
  ofSet: { readonly set?: string },
  found: string,
  hold: JournalHold,
  agent: GuestAgent,
): Promise<boolean> {
  const [monitor] = run.monitors;
  const foreign = monitor === undefined ? undefined : await whyNotItsAgent(monitor, parsePlace(hold.qga), agent);
  if (foreign === undefined) return false;
  const did = `not thawed, it may be another VM's guest: ${foreign}`;
  const commands = [thawCommand(run, hold)];
  run.note('failed', { ...ofSet, kind: 'guest-held', found, did, commands, thawUnconfirmed: true });
  return true;
}

function thawCommand({ options }: RecoveryRun, { qga }: JournalHold): string {
  return options.command('thaw', ...(parsePlace(qga).kind === 'socket' ? ['--qga', qga] : []));
}

// No lease ends what a stock agent froze when its requester (libvirt, for one) gave up.
async function tellOfForeignHold(run: RecoveryRun): Promise<void> {
  const { options, isRunning } = run;
  const { agent: place } = options.vm;
  if (place === undefined || !isRunning) return;
  let agent: GuestAgent;
  try {
    agent = await options.openAgent(place, options.limits.agentLimits);
  } catch {
    // Nothing says that anybody holds this guest; `status` tells of a silent agent.
    return;
  }
  await using open = agent;
  if (open.kind !== 'stock' || (await open.coordinator.status()).state === 'idle') return;
  run.note('yours', {
    kind: 'guest-held',
    found: `the guest is frozen (it says so by ${open.kind} qemu-ga), and not by this tool`,
    did: 'if nobody is making a snapshot right now, thaw it: no lease will',
    commands: [options.command('thaw')],
    thawUnconfirmed: true,
  });
}
