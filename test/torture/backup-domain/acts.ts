// Does one act to a domain and its backups, and keeps what is known of them right. A refusal of the tool is never wrong; how
// often each act was refused is counted.
import { twoDisks } from '../../support/backed-up-domain.js';
import { atPart } from '../at-part.js';
import { flipByte } from '../backup/flip-byte.js';
import { done, ended, idle, type Done } from '../backup/outcome.js';
import type { DomainAct } from './draw.js';
import type { DomainPlace } from './place.js';

export async function doDomainAct(place: DomainPlace, act: DomainAct, pattern: () => number): Promise<Done> {
  const { vm } = place;
  const newest = place.sets.at(-1);
  switch (act.kind) {
    case 'write':
      await place.start();
      for (const write of act.writes) await place.write(write, pattern());
      return done;
    case 'backup':
      await (act.off ? place.stop('quit') : place.start());
      return await place.backUp(act.words, act.strike, async () => {
        for (const at of [0.1, 0.5, 0.9]) await place.write({ disk: at, at, kilobytes: 600 }, pattern());
      });
    case 'keep': {
      const before = await place.listed();
      if (before.length === 0) return idle('no run');
      const run = await place.onRepository('forget', '--keep', String(act.count));
      if (run.error.code === 'none') for (const name of before.slice(0, -act.count)) place.forgotten.add(name);
      return ended(run);
    }
    case 'verify':
      return (await place.listed()).length === 0 ? idle('no run') : ended(await place.onRepository('verify'));
    case 'snapshot': {
      await place.start();
      const name = `s${pattern()}`;
      const state = vm.state();
      const run = await place.call(['snapshot', 'create', '--name', name, '--require', 'crash']);
      if (run.error.code === 'none') place.sets.push({ name, state });
      return ended(run);
    }
    case 'commit':
    case 'revert': {
      if (newest === undefined) return idle('no set');
      await (act.kind === 'commit' ? place.start() : place.stop('quit'));
      const yes = act.kind === 'revert' ? ['--yes'] : [];
      const run = await place.call(['snapshot', act.kind, newest.name, ...yes]);
      if (run.error.code !== 'none') return ended(run);
      if (act.kind === 'revert') vm.became(newest.state);
      else place.sets.pop();
      return ended(run);
    }
    case 'swap':
      if (place.sets.length > 0) return idle('overlays lie over the images');
      await place.stop('quit');
      await vm.swap();
      return done;
    case 'foreign checkpoint':
      await place.start();
      return await byVirsh(() => vm.domain.virsh('checkpoint-create-as', `theirs-${pattern()}`));
    case 'record lost':
    case 'bitmap lost':
      return await loseCheckpoint(place, act);
    case 'stop':
      if (!place.on) return idle('it is shut off');
      await place.stop(act.how);
      return done;
    case 'start':
      if (place.on) return idle('it runs');
      await place.start();
      return done;
    case 'recover':
      return ended(await place.call(['recover']));
    case 'forget':
    case 'put back':
      return await onRun(place, act);
    case 'damage': {
      const run = await chosenRun(place, act.run);
      if (run === undefined) return idle('no run');
      const { disks } = place.manifest(run);
      const disk = atPart(disks, act.disk);
      flipByte(vm.stored(run, disk?.file.name ?? ''), act.at);
      place.harmed.add(run);
      return done;
    }
  }
}

/** Behind the tool's back, and behind libvirt's. */
async function loseCheckpoint(
  place: DomainPlace,
  { kind, which }: DomainAct & { kind: 'record lost' | 'bitmap lost' },
): Promise<Done> {
  const { vm } = place;
  const all = await vm.checkpoints();
  const name = all[Math.floor(which * all.length)];
  if (name === undefined) return idle('no checkpoint');
  if (kind === 'record lost') return await byVirsh(() => vm.domain.virsh('checkpoint-delete', name, '--metadata'));
  await place.start();
  const { target = '' } = twoDisks[Math.floor(which * 1000) % twoDisks.length] ?? {};
  return await byVirsh(() => vm.remove(target, name));
}

/** What libvirt or QEMU do not do is no fault of the tool's. */
async function byVirsh(work: () => Promise<unknown>): Promise<Done> {
  return await work().then(
    () => done,
    (error: unknown) => idle(String(error).split('\n')[0] ?? ''),
  );
}

async function chosenRun(place: DomainPlace, part: number): Promise<string | undefined> {
  const listed = await place.listed();
  return atPart(listed, part);
}

async function onRun(place: DomainPlace, act: DomainAct & { kind: 'forget' | 'put back' }): Promise<Done> {
  const { vm } = place;
  const run = await chosenRun(place, act.run);
  if (run === undefined) return idle('no run');
  if (act.kind === 'forget') {
    const forgot = await place.onRepository('forget', run);
    if (forgot.error.code === 'none') place.forgotten.add(run);
    return ended(forgot);
  }
  await place.stop('quit');
  const restored = await place.call(['backup', 'restore', run, '--in-place', '--yes', '--repo', vm.repository]);
  if (restored.error.code === 'none') vm.became(vm.states.get(run) ?? new Map<string, Buffer>());
  return ended(restored);
}
