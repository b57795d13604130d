// Does one act, and keeps what is known of the place right. A refusal of the tool is never wrong; how often each act was
// refused is counted.
import { rmSync } from 'node:fs';
import { atPart } from '../at-part.js';
import type { Act } from './act.js';
import { backUp } from './back-up.js';
import { flipByte } from './flip-byte.js';
import { done, ended, idle, type Done } from './outcome.js';
import { HOT_DISK, type Place } from './place.js';

export async function doAct(place: Place, act: Act, pattern: () => number): Promise<Done> {
  const { vm } = place;
  const newest = place.sets.at(-1);
  switch (act.kind) {
    case 'write':
      await place.runs();
      for (const write of act.writes) await place.write(write, pattern());
      return done;
    case 'backup':
      return await backUp(place, act, pattern);
    case 'restore':
    case 'put back':
    case 'forget':
    case 'lose':
    case 'damage':
      return await onRun(place, act);
    case 'keep': {
      const before = await place.listed();
      if (before.length === 0) return idle('no run');
      const run = await place.onRepository('forget', '--keep', String(act.count));
      if (run.error.code === 'none') for (const name of before.slice(0, -act.count)) place.forgotten.add(name);
      return ended(run);
    }
    case 'verify': {
      if ((await place.listed()).length === 0) return idle('no run');
      return ended(await place.onRepository('verify'));
    }
    case 'snapshot': {
      await place.runs();
      const name = `s${vm.states.size}-${place.sets.length}-${pattern()}`;
      const state = vm.state();
      const run = await place.call(['snapshot', 'create', '--name', name]);
      if (run.error.code === 'none') place.sets.push({ name, state });
      return ended(run);
    }
    case 'commit': {
      await place.runs();
      if (newest === undefined) return idle('no set');
      const run = await place.call(['snapshot', 'commit', newest.name]);
      if (run.error.code === 'none') place.sets.pop();
      return ended(run);
    }
    case 'revert': {
      if (newest === undefined) return idle('no set');
      await place.stop('quit');
      const run = await place.call(['snapshot', 'revert', newest.name, '--yes']);
      if (run.error.code === 'none') vm.became(newest.state);
      return ended(run);
    }
    case 'resize': {
      await place.runs();
      if (place.sets.length > 0) return idle('overlays lie over the images');
      const { name } = place.diskAt(act.disk);
      const megabytes = 1 + vm.megabytes(name);
      const node = (await vm.at.vm.active()).get(name)?.node;
      try {
        await vm.at.vm.control.execute('block_resize', { 'node-name': node, size: megabytes * 1024 * 1024 });
      } catch (error) {
        return { outcome: 'refused', why: `QEMU: ${String(error)}` };
      }
      vm.resized(name, megabytes);
      return done;
    }
    case 'plug':
    case 'unplug': {
      await place.runs();
      const isPlugged = place.disks.some(({ name }) => name === HOT_DISK.name);
      if (isPlugged === (act.kind === 'plug') || place.sets.length > 0) return idle('it is so, or overlays are there');
      if ((await vm.at.jobs()).length > 0) return idle('a killed tool left jobs on the disks');
      await place.plug(!isPlugged);
      return done;
    }
    case 'bitmap': {
      await place.runs();
      const active = [...(await vm.at.vm.active()).values()][0];
      const bitmap = { node: active?.node, name: `somebody-${pattern()}`, persistent: active?.format === 'qcow2' };
      await vm.at.vm.control.execute('block-dirty-bitmap-add', bitmap).catch(() => undefined);
      return done;
    }
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
  }
}

async function onRun(
  place: Place,
  act: Act & { kind: 'restore' | 'put back' | 'forget' | 'lose' | 'damage' },
): Promise<Done> {
  const { vm } = place;
  const listed = await place.listed();
  const run = atPart(listed, act.run);
  if (run === undefined) return idle('no run');
  switch (act.kind) {
    case 'restore': {
      const target = vm.at.folder.path(`act-${run}-${Math.floor(act.run * 1e9)}`);
      const restored = await place.onRepository('restore', run, target);
      rmSync(target, { recursive: true, force: true });
      return ended(restored);
    }
    case 'put back':
      return await putBack(place, run, act.killedAfterMs);
    case 'forget': {
      const forgot = await place.onRepository('forget', run);
      if (forgot.error.code === 'none') place.forgotten.add(run);
      return ended(forgot);
    }
    case 'lose':
      rmSync(vm.stored(run), { recursive: true });
      place.harmed.add(run);
      return done;
    case 'damage': {
      const { disks } = place.manifest(run);
      const disk = atPart(disks, act.disk);
      flipByte(vm.stored(run, disk?.file.name ?? ''), act.at);
      place.harmed.add(run);
      return done;
    }
  }
}

/** Killed half-way, it is called again: the images are the run's then, or what they were. */
async function putBack(place: Place, run: string, killedAfterMs: number | undefined): Promise<Done> {
  const { vm } = place;
  await place.runs();
  await place.stop('quit');
  const words = ['backup', 'restore', run, '--in-place', '--yes', '--repo', vm.repository, ...vm.key];
  if (killedAfterMs !== undefined) {
    const child = vm.at.spawn(words);
    const timer = setTimeout(() => child.kill('SIGKILL'), killedAfterMs);
    await child;
    clearTimeout(timer);
    // A qemu-img that it had started goes on, and holds the images.
    await vm.at.leftQemuImgEnded();
  }
  const restored = await place.call(words);
  if (restored.error.code === 'none') {
    const state = vm.states.get(run);
    if (state === undefined) throw new Error(`nobody kept the state of ${run}`);
    for (const { id } of place.manifest(run).disks) vm.became(new Map([[id, state.get(id) ?? Buffer.alloc(0)]]));
  }
  return ended(restored);
}
