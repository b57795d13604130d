// The judgement after a sequence: what runs has what its guest was told, what a set claims is in its base, what is shut off
// comes back from the files that the tool names, clones of strangers are whole, recover comes to rest, and every file
// is somebody's.
import { readFileSync, realpathSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import * as v from 'valibot';

import type { Contents } from './contents.js';
import { readImage } from './image-files.js';
import { judgeClaim, judgeFiles, judgeVm, type Complaint } from './judge.js';
import { newestFiles, type Lab } from './lab.js';
import type { Machine } from './machine.js';
import { names, unreadable } from './qemu-acts.js';
import { claimedDisks, findingsOf, realOrSame, type ShownSet, type ToldFinding } from './says.js';

/** The state of everything as it is, without asking the tool to put anything right. */
export async function judgeNow(lab: Lab): Promise<Complaint[]> {
  const complaints: Complaint[] = [];
  for (const machine of lab.machines) {
    if (machine.session !== undefined) complaints.push(...(await judgeRunning(machine)));
    complaints.push(...(await judgeSets(lab, machine)));
  }
  for (const clone of lab.clones) {
    if (clone.dead !== undefined) continue;
    const now = await readImage(clone, lab.folder.dir).catch((error: unknown) => String(error).split('\n')[0] ?? '');
    if (now !== clone.content)
      complaints.push({ kind: 'clone broken', text: `${clone.file} read as ${clone.content}, and now as ${now}` });
  }
  return complaints;
}

async function judgeRunning(machine: Machine): Promise<Complaint[]> {
  const session = machine.running();
  await machine.flush();
  const files = await machine.activeFiles();
  try {
    const found = await machine.read(files);
    const world = { options: [session.contents], mixed: false };
    return judgeVm(machine.name, `which runs on ${names(files)}`, world, found);
  } catch (error) {
    return [{ kind: 'lost write', text: `it runs: ${unreadable(machine, files, error)}` }];
  }
}

async function judgeSets(lab: Lab, machine: Machine): Promise<Complaint[]> {
  const { sets } = await lab.show(machine);
  const complaints: Complaint[] = [];
  for (const set of sets) {
    const found = new Map<string, string>();
    for (const { id, base } of claimedDisks(set)) {
      const content = await readImage(base, lab.folder.dir).catch(() => 'cannot be read');
      found.set(id, content);
    }
    const says = `${set.state}, level ${set.level}`;
    // Of a set that is merged, or being merged, the level is all that still says so.
    const kind = set.state.startsWith('commit') ? 'stale level' : 'false claim';
    complaints.push(...judgeClaim(`${set.vm}/${set.set}`, says, lab.statesOf(machine, set), found, kind));
  }
  return complaints;
}

const RECOVERIES = 4;

/** Recovers until nothing new is found, and judges what is there then. */
export async function judgeRecovered(lab: Lab): Promise<Complaint[]> {
  const complaints: Complaint[] = [];
  const [machine] = lab.machines;
  if (machine === undefined) return complaints;
  let findings: readonly ToldFinding[] = [];
  const seen = new Set<string>();
  for (let round = 0; ; round++) {
    const call = await lab.recover(machine, undefined);
    const found = findingsOf(call);
    if (found === undefined) {
      complaints.push({ kind: 'not at rest', text: `recover gives no findings: ${call.stderr.trim().slice(-300)}` });
      break;
    }
    findings = [...findings, ...found];
    const fresh = found.filter(
      ({ vm, set, kind, status }) => status === 'done' || !seen.has(`${vm} ${set ?? ''} ${kind}`),
    );
    for (const { vm, set, kind } of found) seen.add(`${vm} ${set ?? ''} ${kind}`);
    if (fresh.length === 0) break;
    if (round < RECOVERIES) continue;
    const what = fresh.map(({ found: text }) => text).join('; ');
    complaints.push({ kind: 'not at rest', text: `recover finds something new in round ${round + 1}: ${what}` });
    break;
  }
  complaints.push(...(await judgeNow(lab)));
  const shown: ShownSet[] = [];
  const unreadableSets: string[] = [];
  for (const each of lab.machines) {
    const { sets, unreadable: bad } = await lab.show(each);
    shown.push(...sets);
    unreadableSets.push(...bad);
    // Of one that runs, too: it may end at any moment. Whoever started it from older images knows better than the tool.
    if (each.session?.astray === undefined) complaints.push(...(await judgeTold(each, sets)));
  }
  return [...complaints, ...judgeLeft(lab, shown, unreadableSets, findings)];
}

async function judgeTold(machine: Machine, sets: readonly ShownSet[]): Promise<Complaint[]> {
  const files = newestFiles(machine, sets);
  let found: Contents;
  try {
    found = await machine.read(files);
  } catch (error) {
    return [{ kind: 'lost write', text: unreadable(machine, files, error) }];
  }
  const where = machine.session === undefined ? 'to be started from' : 'which runs; if it ended, to be started from';
  return judgeVm(machine.name, `${where} ${names(files)}`, machine.world, found);
}

function judgeLeft(
  lab: Lab,
  sets: readonly ShownSet[],
  unreadableSets: readonly string[],
  findings: readonly ToldFinding[],
): Complaint[] {
  const { images, state } = lab.files();
  const words = findings.map((finding) => JSON.stringify(finding)).join('\n');
  const named = sets
    .filter((set) => set.state !== 'committed')
    .flatMap(({ disks }) => disks.flatMap(({ base, overlay }) => [base.file, overlay.file]));
  const spokenFor = new Set([...lab.own, ...named, ...named.map(realOrSame)].map(inRealFolder));
  // A VM may go on with an image whose set is gone: it is the VM's own then.
  for (const { lastFiles } of lab.machines) for (const { file } of lastFiles.values()) spokenFor.add(realOrSame(file));
  const told = new Set([...unreadableSets, ...findings.flatMap(({ set }) => (set === undefined ? [] : [set]))]);
  const isExpected = (file: string): boolean => {
    const name = basename(file);
    const set = basename(dirname(file));
    if (name === 'journal.json') return told.has(set);
    return !/\.(tmp|new|claim|draft)$|\.claim\//.test(file);
  };
  const strangeState = state.filter((file) => !isExpected(file));
  const copied = lab.copies.map(({ dir }) => `${dir}/`);
  const strangeImages = images.filter((file) => !copied.some((dir) => file.startsWith(dir))).map(inRealFolder);
  return judgeFiles([...new Set([...strangeImages, ...strangeState])], spokenFor, words);
}

/** One spelling for each file: its folder resolved, itself as it is. */
function inRealFolder(file: string): string {
  try {
    return join(realpathSync(dirname(file)), basename(file));
  } catch {
    return file;
  }
}

/** What the copies of sets hold, by their own account of it. */
export async function judgeCopies(lab: Lab): Promise<Complaint[]> {
  const complaints: Complaint[] = [];
  for (const { dir, set, states } of lab.copies) {
    const found = new Map<string, string>();
    try {
      const { disks } = v.parse(copySchema, JSON.parse(readFileSync(join(dir, 'manifest.json'), 'utf8')));
      for (const { id, image } of disks)
        found.set(id, await readImage({ file: join(dir, image), format: 'qcow2' }, lab.folder.dir));
    } catch (error) {
      complaints.push({ kind: 'false claim', text: `${dir}, a copy of ${set}, cannot be read: ${String(error)}` });
    }
    complaints.push(...judgeClaim(set, `copied to ${dir}`, states, found));
  }
  return complaints;
}

const copySchema = v.object({ disks: v.array(v.object({ id: v.string(), image: v.string() })) });
