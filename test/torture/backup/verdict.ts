// Judges a run of `torture -- backup`: what is listed, what it restores to, what the VM has, and what is left over when
// `recover` has come to rest.
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { execa } from 'execa';
import type { RunManifest } from '../../../src/host/repository/run-manifest.js';
import { difference } from '../../support/restored-runs.js';
import type { Run } from '../../support/run-tool.js';
import type { Complaint } from './judge.js';
import type { Place } from './place.js';

/** What is known of a repository of one VM, and asks about it. */
export interface Repository {
  readonly vm: {
    restored(run: string): Promise<{ readonly refusal: string | undefined; readonly different: readonly string[] }>;
    differencesByHand(run: string): Promise<readonly string[]>;
  };
  /** Runs that were seen to be there. */
  readonly seen: ReadonlySet<string>;
  /** Those that somebody forgot since. */
  readonly forgotten: ReadonlySet<string>;
  /** Those of which a file was damaged or lost since. */
  readonly harmed: ReadonlySet<string>;
  /** Restores that were compared with their cuts. */
  compared: number;
  listed(): Promise<string[]>;
  manifest(run: string): RunManifest;
  onRepository(...words: readonly string[]): Promise<Run>;
}

/** Every run that is listed, and those that should be. */
export async function judgeRuns(place: Repository): Promise<Complaint[]> {
  const { vm, seen, forgotten, harmed } = place;
  const complaints: Complaint[] = [];
  const listed = await place.listed();
  for (const run of seen) {
    if (listed.includes(run) || forgotten.has(run) || harmed.has(run)) continue;
    complaints.push({ kind: 'run lost', text: `run ${run} was made, nobody forgot it, and it is not listed` });
  }
  let isDamaged = false;
  for (const run of listed) {
    const excused = liesOnHarm(place, run);
    isDamaged ||= excused;
    const { refusal, different } = await vm.restored(run);
    if (refusal === undefined) place.compared++;
    if (different.length > 0) complaints.push({ kind: 'wrong restore', text: `run ${run}: ${different.join('; ')}` });
    if (refusal !== undefined && !excused) complaints.push({ kind: 'good run refused', text: `${run}: ${refusal}` });
  }
  const newest = listed.findLast((run) => !liesOnHarm(place, run));
  if (newest !== undefined) {
    const different = await vm.differencesByHand(newest);
    if (different.length > 0)
      complaints.push({ kind: 'wrong restore', text: `${newest} by hand: ${different.join('; ')}` });
  }
  if (listed.length === 0) return complaints;
  const { code, json } = await place.onRepository('verify');
  if (code === (isDamaged ? 10 : 0)) return complaints;
  const text = `verify: exit ${code} where runs are ${isDamaged ? '' : 'not '}damaged: ${JSON.stringify(json).slice(0, 400)}`;
  return [...complaints, { kind: isDamaged ? 'damage not found' : 'good run refused', text }];
}

/** True if a file of the run, or of what it lies on, was damaged or lost on purpose. */
function liesOnHarm(place: Repository, run: string): boolean {
  if (place.harmed.has(run)) return true;
  return place.manifest(run).disks.some(({ base }) => base !== undefined && liesOnHarm(place, base.run));
}

/** Called again, `recover` finds nothing. */
export async function judgeRecover(place: { call(words: readonly string[]): Promise<Run> }): Promise<Complaint[]> {
  await place.call(['recover']);
  const { code, json } = await place.call(['recover']);
  if (code === 0 && JSON.stringify(json['findings']) === '[]') return [];
  return [{ kind: 'not at rest', text: `recover, again: exit ${code}, ${JSON.stringify(json).slice(0, 400)}` }];
}

/** After everything: `recover` comes to rest and leaves nothing, and the next backup is as good as any. */
export async function judgeRest(place: Place): Promise<Complaint[]> {
  const complaints: Complaint[] = [];
  const { vm } = place;
  await place.start();
  complaints.push(...(await judgeRecover(place)));
  if (vm.at.agent.frozen) complaints.push({ kind: 'guest held', text: 'the guest is held when all is recovered' });
  const left = [
    ...(await vm.at.jobs()).map(({ id }) => `job ${id}`),
    ...(await vm.at.ourNodes()).filter((name) => name.startsWith('fsb-to-')).map((name) => `node ${name}`),
    ...(await vm.at.ourObjects()).map((id) => `object ${id}`),
    ...(existsSync(vm.stored()) ? readdirSync(vm.stored()).filter((name) => name.startsWith('.')) : []),
    ...(existsSync(vm.at.state('backup.json')) ? ['the journal'] : []),
  ];
  if (left.length > 0) complaints.push({ kind: 'left over', text: left.join(', ') });
  await place.newRuns(async () => {
    let last = await place.call(vm.words());
    // A key that cannot be tried, as all its files were harmed, is to be said.
    if (last.error.code === 'E_KEY' && place.harmed.size > 0) last = await place.call(vm.words('--new-key'));
    if (last.error.code === 'none') return;
    complaints.push({ kind: 'no next backup', text: `${last.error.code}: ${last.error.message}` });
  });
  return complaints;
}

/** What the VM's images hold. It is shut off afterwards. */
export async function judgeVm(place: Place): Promise<Complaint[]> {
  const images = await place.images();
  await place.stop('quit');
  const complaints: Complaint[] = [];
  for (const { name, file = '', format } of images) {
    const raw = place.vm.at.folder.path(`read-${name}.raw`);
    await execa('qemu-img', ['convert', '-f', format, '-O', 'raw', file, raw]);
    const different = difference(name, readFileSync(raw), place.vm.state().get(name));
    rmSync(raw);
    if (different !== undefined) complaints.push({ kind: 'lost write', text: `the VM: ${different}` });
  }
  return complaints;
}
