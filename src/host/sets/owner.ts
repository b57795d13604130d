// Tells which process does something, and whether it still lives. A process is told from a later one of the same number
// by its start time and by the boot of the machine, so that a journal whose owner was killed is known for what it is,
// at once and after a reboot.
import { readFile, readlink } from 'node:fs/promises';
import * as v from 'valibot';
import { isErrno } from '../../errors.js';
import { hasEnded, processStat } from '../../linux/process-stat.js';

export const ownerSchema = v.strictObject({
  pid: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  /** Field 22 of /proc/PID/stat. */
  startTicks: v.string(),
  bootId: v.string(),
  /** `pid:[4026531836]`: the number of a process means nothing in another container. */
  pidNamespace: v.string(),
});
export type Owner = v.InferOutput<typeof ownerSchema>;

/** This process, as it is written down. */
export async function thisProcess(): Promise<Owner> {
  return await ownerOf(process.pid);
}

/** A process that runs, of this container. */
export async function ownerOf(pid: number): Promise<Owner> {
  return {
    pid,
    startTicks: processStat(pid)?.startTime ?? 'unknown',
    bootId: await bootId(),
    pidNamespace: await readlink('/proc/self/ns/pid'),
  };
}

/**
 * alive      it runs
 * gone       it ended: killed, or the machine was booted since
 * elsewhere  it was, or is, in another container: its number says nothing here
 */
export type OwnerState = 'alive' | 'gone' | 'elsewhere';

export async function ownerState(owner: Owner): Promise<OwnerState> {
  if (owner.bootId !== (await bootId())) return 'gone';
  if (owner.pidNamespace !== (await readlink('/proc/self/ns/pid'))) return 'elsewhere';
  try {
    process.kill(owner.pid, 0);
  } catch (error) {
    if (isErrno(error, 'ESRCH')) return 'gone';
  }
  const stat = processStat(owner.pid);
  // The process took the signal, but is hidden from us (hidepid): to err means to leave it alone.
  if (stat === undefined || stat.startTime === '') return 'alive';
  return stat.startTime === owner.startTicks && !hasEnded(stat) ? 'alive' : 'gone';
}

async function bootId(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
}
