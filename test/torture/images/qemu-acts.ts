// What happens to a VM without the tool: it is started from some images, a disk is unplugged, it moves to another QEMU. How
// an act went is said here, too.
import { rename, rm } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { admits, type Contents } from './contents.js';
import { judgeVm, type Complaint } from './judge.js';
import type { Lab } from './lab.js';
import type { Files, Machine, Session } from './machine.js';

/** done, refused by the tool or by QEMU, struck by the kill that was drawn, or nothing there to do it with. */
export type Outcome = 'done' | 'refused' | 'struck' | 'idle';

export interface Done {
  readonly outcome: Outcome;
  /** For people: why not. */
  readonly why: string;
  readonly complaints: readonly Complaint[];
}

export const done: Done = { outcome: 'done', why: '', complaints: [] };
export const idle = (why: string): Done => ({ outcome: 'idle', why, complaints: [] });

export async function ensureRuns(lab: Lab, machine: Machine): Promise<readonly Complaint[]> {
  if (machine.session === undefined) return await start(lab, machine, 'told');
  const { qemu, migration } = machine.session;
  const { status } = (await qemu.control.execute('query-status')) as { status: string };
  if (status === 'postmigrate' && migration === undefined) {
    await qemu.control.execute('cont');
    if (machine.drawn.paused) await qemu.control.execute('stop');
  }
  return [];
}

/** What the tool told must hold the newest state; another choice may lead astray. */
export async function start(lab: Lab, machine: Machine, from: 'told' | 'base' | 'last'): Promise<readonly Complaint[]> {
  const told = await lab.toldFiles(machine);
  // Which of the possible worlds it is the tool says, and it must be one of them.
  let newest: Contents;
  try {
    newest = await machine.read(told);
  } catch (error) {
    return [{ kind: 'lost write', text: unreadable(machine, told, error) }];
  }
  const complaints = judgeVm(machine.name, `to be started from ${names(told)}`, machine.world, newest);
  if (complaints.length > 0) return complaints;
  machine.world = { options: [newest], mixed: false };
  const files = from === 'told' ? told : from === 'base' ? machine.originals() : machine.lastFiles;
  let contents = newest;
  try {
    if (from !== 'told') contents = await machine.read(files);
  } catch {
    return await start(lab, machine, 'told'); // what it ran on last is gone: it is merged
  }
  await lab.makeWay(machine, files);
  await machine.start(files, contents, admits(machine.world, contents) ? undefined : told);
  return [];
}

export function unreadable({ name }: Machine, files: Files, error: unknown): string {
  return `VM ${name}: ${names(files)} cannot be read: ${String(error).split('\n').slice(-1).join('')}`;
}

export function names(files: Files): string {
  return [...files.values()].map(({ file }) => file).join(', ');
}

export async function unplug(machine: Machine, part: number): Promise<Done> {
  const session = machine.running();
  if (session.migration !== undefined) return idle('it is being migrated');
  const plugged = [...session.plugged];
  if (plugged.length < 2) return idle('it has one disk');
  const disk = plugged[Math.floor(part * plugged.length)] ?? '';
  const { control } = session.qemu;
  await session.qemu.flush(disk);
  const node = await nodeOf(session, disk);
  await control.execute('device_del', { id: disk });
  session.plugged.delete(disk);
  for (let attempt = 0; attempt < 20; attempt++) {
    try {
      await control.execute('blockdev-del', { 'node-name': node });
      return done;
    } catch (error) {
      if (attempt === 19) return { outcome: 'refused', why: String(error), complaints: [] };
      await sleep(10);
    }
  }
  return done;
}

async function nodeOf({ qemu }: Session, disk: string): Promise<string> {
  const devices = (await qemu.control.execute('query-block')) as readonly {
    readonly qdev?: string;
    readonly inserted?: { readonly 'node-name': string };
  }[];
  return devices.find(({ qdev = '' }) => qdev.split('/').includes(disk))?.inserted?.['node-name'] ?? '';
}

/** Begun so slowly that it does not end by itself. */
export async function migrate(lab: Lab, machine: Machine, to: 'file' | 'QEMU'): Promise<Done> {
  const session = machine.running();
  if (session.migration !== undefined) return idle('it is being migrated');
  if (to === 'QEMU' && session.plugged.size < machine.disks.length) return idle('a disk is unplugged');
  const folder = lab.another();
  const { control } = session.qemu;
  const destination = to === 'QEMU' ? await machine.launchDestination(folder) : undefined;
  session.migration = { to: destination, folder };
  const uri = to === 'QEMU' ? `unix:${folder.path('incoming.sock')}` : `exec:cat >${folder.path('saved')}`;
  try {
    await control.execute('migrate-set-parameters', { 'max-bandwidth': 2048 });
    await control.execute('migrate', { uri });
  } catch (error) {
    session.migration = undefined;
    await destination?.[Symbol.asyncDispose]();
    return { outcome: 'refused', why: String(error), complaints: [] };
  }
  return done;
}

export async function endMigration(machine: Machine, how: 'complete' | 'cancel'): Promise<Done> {
  const { session } = machine;
  if (session?.migration === undefined) return idle('no migration goes on');
  const { migration, qemu } = session;
  const { control } = qemu;
  if (how === 'cancel') await control.execute('migrate_cancel');
  else await control.execute('migrate-set-parameters', { 'max-bandwidth': 1_000_000_000 });
  let status = '';
  for (let waited = 0; waited < 200 && !['completed', 'failed', 'cancelled'].includes(status); waited++) {
    ({ status = '' } = (await control.execute('query-migrate')) as { status?: string });
    await sleep(25);
  }
  session.migration = undefined;
  if (status !== 'completed' || migration.to === undefined) {
    await migration.to?.[Symbol.asyncDispose]();
    return status === 'failed' ? { outcome: 'refused', why: 'QEMU says that it failed', complaints: [] } : done;
  }
  // The VM is over there now; its monitor is where it was.
  const destination = migration.to;
  await qemu.quit();
  qemu.control.close();
  session.qemu = destination;
  await rm(machine.folder.path(machine.realMonitor), { force: true });
  await rename(migration.folder.path(machine.realMonitor), machine.folder.path(machine.realMonitor));
  await machine.rememberFiles();
  return done;
}
