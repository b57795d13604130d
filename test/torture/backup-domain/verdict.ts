// Judges a run of `torture -- backup --libvirt`, besides what its backups restore to (backup/verdict.ts): what the domain has,
// and what is left over when `recover` has come to rest.
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { execa } from 'execa';
import { images } from '../../support/libvirt-bridge.js';
import { difference } from '../../support/restored-runs.js';
import type { Complaint } from '../backup/judge.js';
import { judgeRecover } from '../backup/verdict.js';
import type { DomainPlace } from './place.js';

/** After everything: `recover` comes to rest and leaves nothing, and the next backup is as good as any. */
export async function judgeRest(place: DomainPlace): Promise<Complaint[]> {
  const complaints: Complaint[] = [];
  const { vm } = place;
  await place.start();
  complaints.push(...(await judgeRecover(place)));
  const jobs = (await vm.qmp('query-block-jobs')) as { device: string }[];
  const state = readdirSync(await vm.domain.state());
  const left = [
    ...jobs.map(({ device }) => `job ${device}`),
    ...(place.seen.size === 0 ? [] : readdirSync(vm.stored()).filter((name) => name.startsWith('.'))),
    ...state.filter((name) => name === 'backup.json'),
  ];
  if (left.length > 0) complaints.push({ kind: 'left over', text: left.join(', ') });
  const last = await place.backUp([]);
  if (last.outcome !== 'done') complaints.push({ kind: 'no next backup', text: last.why });
  return complaints;
}

/** What the domain's images hold. It is shut off afterwards. */
export async function judgeDomain(place: DomainPlace): Promise<Complaint[]> {
  const { vm } = place;
  await place.stop('quit');
  const complaints: Complaint[] = [];
  for (const [target, file] of Object.entries(await images(vm.domain, '--inactive'))) {
    const expected = vm.state().get(target);
    if (expected === undefined) continue; // the drive
    const raw = vm.path(`read-${target}.raw`);
    await execa('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', file, raw]);
    const different = difference(target, readFileSync(raw), expected);
    rmSync(raw);
    if (different !== undefined) complaints.push({ kind: 'lost write', text: `the domain: ${different}` });
  }
  return complaints;
}
