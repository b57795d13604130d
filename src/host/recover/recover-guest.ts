// A guest that a tool held when it was killed: asked first, then thawed until it confirms. Ours is known by the session
// in the journal; a stock agent has no sessions, and is thawed if the journal says that we froze it. A hold of
// somebody else is left alone.
import { UnreachableError, describeError } from '../../errors.js';
import { whyNotItsAgent } from '../guest/agent-owner.js';
import type { GuestAgent } from '../guest/guest-agent.js';
import { readJournal, removeJournal, type JournalHold } from '../sets/journal.js';
import { parseLibvirtAddress } from '../vm/libvirt/address.js';
import type { Recovery } from './recovery.js';
import { thawUntilConfirmed } from '../guest/thaw-guest.js';

/** Before anything else: the guest comes first. */
export async function recoverGuest(recovery: Recovery): Promise<void> {
  let known = false;
  for (const set of await recovery.store.names()) {
    const file = recovery.store.journalFile(set);
    const journal = await readJournal(file);
    if (journal === undefined) continue;
    if (journal.owner !== 'gone') {
      // Whatever the guest is in now, somebody is at it.
      known = true;
      continue;
    }
    const hold = journal.entry?.hold;
    if (hold === undefined) continue;
    known = true;
    const isOver = await recoverHold(recovery, set, hold);
    if (recovery.options.dryRun) continue;
    if (isOver) await removeJournal(file);
    else recovery.held.add(set);
  }
  if (!known) await tellOfForeignHold(recovery);
}

/** True if the guest is known to be thawed, or is shut off: the journal has served. */
async function recoverHold(recovery: Recovery, set: string, hold: JournalHold): Promise<boolean> {
  const { options } = recovery;
  const found = `set ${set}: the tool ended while it held the guest (session ${hold.session}, since ${hold.since})`;
  let agent: GuestAgent;
  try {
    agent = await options.openAgent(hold.qga, options.limits.agentLimits);
  } catch (error) {
    if (!recovery.isRunning && error instanceof UnreachableError) return true;
    const did = `the guest does not say whether it is thawed: ${describeError(error)}; ours thaws itself when its lease of ${hold.leaseMs / 1000} s ends, a stock qemu-ga never does`;
    const commands = [thawCommand(recovery, hold)];
    recovery.note('failed', { set, kind: 'guest-held', found, did, commands, thawUnconfirmed: true });
    return false;
  }
  await using open = agent;
  const { state, session } = await open.coordinator.status();
  // Another session than ours: ours is over, and this one is not ours to end.
  if (state !== 'idle' && open.kind === 'bridge' && session !== hold.session) return true;
  if (open.kind === 'stock' && state !== 'idle' && (await tellOfForeignAgent(recovery, set, found, hold, open)))
    return false;
  const limitMs = options.limits.agentLimits.thawMs;
  const about = { set, kind: 'guest-held', commands: [thawCommand(recovery, hold)] } as const;
  const thaw = async (): Promise<string> => {
    await thawUntilConfirmed(open, limitMs, open.kind === 'stock' ? undefined : hold.session);
    return 'the guest is thawed, and says so';
  };
  if (state !== 'idle') {
    return await recovery.repair({ ...about, found: `${found}; the guest is ${state}`, did: 'thaw it' }, thaw);
  }
  if (open.kind === 'stock' || options.dryRun) return true;
  try {
    await thawUntilConfirmed(open, limitMs, hold.session);
    return true;
  } catch (error) {
    recovery.note('failed', { ...about, found, did: describeError(error), thawUnconfirmed: true });
    return false;
  }
}

// A stock agent has no sessions by which its guest would be known: its socket may be another VM's by now.
async function tellOfForeignAgent(
  recovery: Recovery,
  set: string,
  found: string,
  hold: JournalHold,
  agent: GuestAgent,
): Promise<boolean> {
  const [monitor] = recovery.monitors;
  const foreign = monitor === undefined ? undefined : await whyNotItsAgent(monitor, hold.qga, agent);
  if (foreign === undefined) return false;
  const did = `not thawed, it may be another VM's guest: ${foreign}`;
  const commands = [thawCommand(recovery, hold)];
  recovery.note('failed', { set, kind: 'guest-held', found, did, commands, thawUnconfirmed: true });
  return true;
}

function thawCommand({ options }: Recovery, { qga }: JournalHold): string {
  return options.command('thaw', ...(parseLibvirtAddress(qga) === undefined ? ['--qga', qga] : []));
}

// No lease ends what a stock agent froze when its requester (libvirt, for one) gave up.
async function tellOfForeignHold(recovery: Recovery): Promise<void> {
  const { options, isRunning } = recovery;
  const { qga } = options.vm;
  if (qga === undefined || !isRunning) return;
  let agent: GuestAgent;
  try {
    agent = await options.openAgent(qga, options.limits.agentLimits);
  } catch {
    // Nothing says that anybody holds this guest; `status` tells of a silent agent.
    return;
  }
  await using open = agent;
  if (open.kind !== 'stock' || (await open.coordinator.status()).state === 'idle') return;
  recovery.note('yours', {
    kind: 'guest-held',
    found: `the guest is frozen (it says so by ${open.kind} qemu-ga), and not by this tool`,
    did: 'if nobody is making a snapshot right now, thaw it: no lease will',
    commands: [options.command('thaw')],
    thawUnconfirmed: true,
  });
}
