// Does one act of a sequence, and moves the model with it: what the guest has, what a set may hold, what a person threw
// away. What it gives back says how it went; a complaint is what must not be whatever came before.
import { setTimeout as sleep } from 'node:timers/promises';
import { atPart } from '../at-part.js';
import { overlaid, type Contents } from './contents.js';
import type { Act, DrawnWrite } from './act.js';
import type { Complaint } from './judge.js';
import { newestFiles, type Lab } from './lab.js';
import type { Machine } from './machine.js';
import { done, endMigration, ensureRuns, idle, migrate, start, unplug, type Done } from './qemu-acts.js';
import { realOrSame, type ShownSet } from './says.js';
import { errorOf, toolAbilities, type Call } from './tool.js';

export async function doAct(lab: Lab, act: Act): Promise<Done> {
  const machine = lab.machines[act.vm];
  if (machine === undefined) throw new Error(`no VM ${act.vm}`);
  const complaints: Complaint[] = [];
  // What needs a running VM finds one: somebody has started it from what the tool told.
  const offline = act.kind === 'commit' && act.off && (await toolAbilities()).offlineCommit;
  if (offline) await machine.end('quit');
  else if (['write', 'cut', 'commit', 'unplug', 'migrate'].includes(act.kind))
    complaints.push(...(await ensureRuns(lab, machine)));
  if (complaints.length > 0) return { outcome: 'refused', why: 'it could not be started', complaints };
  switch (act.kind) {
    case 'write':
      await machine.write(act);
      return done;
    case 'cut':
      return await cut(lab, machine, act);
    case 'commit':
      return await onSet(lab, machine, act.set, async ({ vm, set }) => {
        const how = offline ? ['--offline'] : [];
        const words = ['snapshot', 'commit', set, ...how, '--vm', vm, ...lab.options(machine)];
        return ended(await whileWriting(machine, act.writes, lab.call(machine, words, act.strike)));
      });
    case 'revert':
    case 'delete': {
      const { sets } = await lab.show(machine);
      // What is merged holds nothing, and nothing may be lost by its going.
      const merged = act.kind === 'delete' ? sets.find(({ state }) => state === 'committed') : undefined;
      if (merged !== undefined) return await drop(lab, machine, act, merged);
      return await onSet(lab, machine, act.set, async (set) => await drop(lab, machine, act, set));
    }
    case 'copy':
      return await onSet(lab, machine, act.set, async (set) => {
        const dir = lab.copyFolder();
        const words = ['snapshot', 'copy', set.set, dir, '--vm', set.vm, ...lab.options(machine)];
        const call = await lab.call(machine, words, act.strike);
        if (call.code === 0) lab.copies.push({ dir, set: set.set, states: lab.statesOf(machine, set) });
        return ended(call);
      });
    case 'prune': {
      const keep = ['--keep', String(act.keep), '--yes'];
      const words = ['snapshot', 'prune', ...keep, '--vm', machine.name, ...lab.options(machine)];
      return ended(await lab.call(machine, words, act.strike));
    }
    case 'recover':
      return ended(await lab.recover(machine, act.strike));
    case 'stop':
      if (machine.session === undefined) return idle('it is shut off');
      await machine.end(act.how);
      return done;
    case 'start':
      if (machine.session !== undefined) return idle('it runs');
      return { ...done, complaints: await start(lab, machine, act.from) };
    case 'foreign':
      return await onSet(lab, machine, act.set, async ({ disks }) => {
        const layer = disks[0]?.[act.on];
        if (layer === undefined) return idle('the set has no disk');
        try {
          await lab.addClone(layer, act.runs);
        } catch (error) {
          return { outcome: 'refused', why: String(error).split('\n')[0] ?? '', complaints: [] };
        }
        return done;
      });
    case 'unplug':
      return await unplug(machine, act.disk);
    case 'migrate':
      return await migrate(lab, machine, act.to);
    case 'end migration':
      return await endMigration(machine, act.how);
  }
}

function ended(call: Call): Done {
  const { code, struck, stderr } = call;
  const error = errorOf(call);
  const why = error === undefined ? stderr.trim().slice(-300) : `${error.code}: ${error.message}`;
  if (struck) return { outcome: 'struck', why, complaints: [] };
  return { outcome: code === 0 || code === 7 || code === 8 ? 'done' : 'refused', why, complaints: [] };
}

/** The guest writes on, one write after the other, until the work is over. */
async function whileWriting(machine: Machine, writes: readonly DrawnWrite[], work: Promise<Call>): Promise<Call> {
  const over = work.then(() => true);
  for (const write of writes) {
    const isOver = await Promise.race([over, sleep(25).then(() => false)]);
    if (isOver || machine.session === undefined || !(await machine.write(write))) break;
  }
  return await work;
}

async function cut(lab: Lab, machine: Machine, act: Act & { kind: 'cut' }): Promise<Done> {
  const session = machine.running();
  const vm = machine.names[act.alias ? 1 : 0] ?? machine.name;
  const set = `${lab.layout.sameNames ? '' : `${machine.name}-`}s${act.name}`;
  const plugged = [...session.plugged];
  const disk = act.disk === undefined ? undefined : plugged[Math.floor(act.disk * plugged.length)];
  const words = ['snapshot', 'create', '--name', set, '--require', 'crash', '--min-free', '1', '--vm', vm];
  if (disk !== undefined && plugged.length > 1) words.push('--disk', disk);
  if (lab.layout.sharedOverlays) words.push('--overlay-dir', lab.overlays());
  const from = session.history.length - 1;
  const call = await whileWriting(
    machine,
    act.writes,
    lab.call(machine, [...words, ...lab.options(machine)], act.strike),
  );
  const id = call.json?.['id'];
  const states = session.history.slice(from);
  lab.cuts.push({ machine: machine.name, set, id: typeof id === 'string' ? id : undefined, states });
  return ended(call);
}

/** The set that was drawn among those of the VM, the newest for 1. */
async function onSet(lab: Lab, machine: Machine, part: number, work: (set: ShownSet) => Promise<Done>): Promise<Done> {
  let alive = await setsAlive(lab, machine);
  const madeOne = alive.length === 0 && machine.session !== undefined;
  if (madeOne) {
    // Struck, refused or gone: whoever wants to do something with a set makes one first.
    await cut(lab, machine, {
      kind: 'cut',
      vm: 0,
      name: 9,
      alias: false,
      disk: undefined,
      writes: [],
      strike: undefined,
    });
    alive = await setsAlive(lab, machine);
  }
  const set = atPart(alive, part);
  if (set === undefined) return idle('it has no set');
  const result = await work(set);
  return madeOne ? { ...result, why: `after a cut of its own; ${result.why}` } : result;
}

async function setsAlive(lab: Lab, machine: Machine): Promise<readonly ShownSet[]> {
  return (await lab.show(machine)).sets.filter(({ state }) => state !== 'committed');
}

/** Revert and delete: what the VM wrote since is dropped if it lies in the overlays. */
async function drop(
  lab: Lab,
  machine: Machine,
  act: Act & { kind: 'revert' | 'delete' },
  set: ShownSet,
): Promise<Done> {
  if (act.off) await machine.end('quit');
  const isOff = machine.session === undefined;
  const before = newestFiles(machine, (await lab.show(machine)).sets);
  const dropped = new Map<string, Contents>();
  if (isOff) {
    for (const { id, base, overlay } of set.disks) {
      const newest = before.get(id);
      if (newest === undefined) continue;
      // A revert makes the VM start from the overlay, whatever it ran on; a delete drops it only if it did.
      const isOn = act.kind === 'revert' || realOrSame(newest.file) === realOrSame(overlay.file);
      if (isOn) dropped.set(id, await machine.read(new Map([[id, base]])).catch(() => new Map<string, string>()));
    }
  }
  const words = ['snapshot', act.kind, set.set, '--yes', '--vm', set.vm, ...lab.options(machine)];
  const call = await lab.call(machine, words, act.strike);
  const result = ended(call);
  if (!isOff || result.outcome === 'refused') {
    // A refusal after a part of it was done says so in the set's state.
    const state = isOff ? await stateOf(lab, machine, set) : undefined;
    if (state !== 'reverting' && state !== 'deleting') return result;
  }
  const cutState = overlaid(new Map(), new Map([...dropped.values()].flatMap((contents) => [...contents])));
  const options = machine.world.options.map((option) => overlaid(option, cutState));
  if (result.outcome === 'done') machine.world = { options, mixed: machine.world.mixed };
  else machine.world = { options: [...machine.world.options, ...options], mixed: true };
  return result;
}

async function stateOf(lab: Lab, machine: Machine, { id }: ShownSet): Promise<string | undefined> {
  return (await lab.show(machine)).sets.find((each) => each.id === id)?.state;
}
