// What the runs of torture -- in-guest do, and what each complains of.
import { execOver, leftovers, snapshot, untilNothingLeft } from '../../support/in-guest.js';
import type { InGuestDraw, Kind } from './draw.js';
import { isInverted, judgeOrder, judgeWrites } from './judge.js';
import type { Lab, Lengths } from './lab.js';
import { HELD } from './programs.js';

export interface ActResult {
  readonly complaints: readonly string[];
  /** Where it struck, or what the run was about. */
  readonly where: string;
  /** How long a write waited after the end of the hold. */
  readonly waitedS?: number;
  /** Of `order`: whether the cut claimed one instant, and whether it was found to be one. */
  readonly claimed?: boolean;
  readonly inverted?: boolean;
}

export interface InGuestResult extends InGuestDraw, ActResult {
  readonly index: number;
  readonly tookMs: number;
}

export interface ActContext {
  readonly lab: Lab;
  readonly name: string;
  readonly drawn: InGuestDraw;
  readonly lengths: (paths: readonly string[]) => Promise<Lengths>;
}

/** Kernels before 6.8 cut no frozen volume. */
const cutsTogether = (kernel: string): boolean => kernel !== '6.1';

const WATCHED = ['/srv/a', '/srv/a/b', '/srv/t', '/srv/s', '/srv/wal'] as const;
/** Under a busy machine a shorter one ends before the first device is suspended. */
const LEASE_S = 2;
/** A suspension lasts milliseconds, and may not be seen. */
const LEASE_ATTEMPTS = 20;
const CLEAN_LIMIT_S = 30;
const COW_MIB = 8;

export const acts: Readonly<Record<Kind, (context: ActContext) => Promise<ActResult>>> = {
  kill,
  lease,
  overflow,
  order,
};

async function kill({ lab, name, drawn, lengths }: ActContext): Promise<ActResult> {
  const { from, within, paths } = drawn;
  const { totalS, heldS } = await lengths(paths);
  const writes = await lab.writes(name, WATCHED);
  const delayS = within * (from === 'hold' ? heldS * 1.3 : totalS);
  const { where = 'nowhere', at = Number.NaN } = await lab.strike(['kill', from, delayS], [], paths);
  await watchOn(lab);
  const collected = await snapshot(lab.guest, 'gc', '--json');
  const left = await leftovers(lab.guest);
  const { written, time } = await writes.end();
  const waits = judgeWrites(written, time, at);
  const complaints = [...waits.complaints, ...(await heldStill(lab))];
  if (left !== '') complaints.push(`gc left ${left} (exit code ${collected.exitCode}: ${collected.stdout.trim()})`);
  // Whatever complains of it, it is to be known whether it would have gone by itself.
  const later = left === '' ? '' : await untilNothingLeft(lab.guest, CLEAN_LIMIT_S);
  if (later !== '') complaints.push(`left for good: ${later}`);
  return { complaints, where, waitedS: waits.longestS };
}

async function lease({ lab, name, drawn: { paths, within } }: ActContext): Promise<ActResult> {
  const places = paths[0] === '/srv/a' ? ['/srv/a', '/srv/a/b'] : paths;
  const writes = await lab.writes(name, places);
  const { where, at = Number.NaN, code, said } = await stopSuspended(lab, paths, LEASE_S + 0.3 + within);
  await watchOn(lab);
  const { written, time } = await writes.end();
  if (where === undefined)
    return { complaints: [`no device was seen suspended: exit code ${code}: ${said}`], where: '-' };
  const waits = judgeWrites(written, time, at);
  const complaints = [...waits.complaints, ...(await heldStill(lab))];
  if (code !== 125) complaints.push(`expected exit code 125, found ${code}: ${said}`);
  const left = await untilNothingLeft(lab.guest, CLEAN_LIMIT_S);
  if (left !== '') complaints.push(`left: ${left}`);
  for (const place of places.toReversed()) complaints.push(...(await unmounted(lab, place)));
  for (const place of places) complaints.push(...(await mounted(lab, place)));
  return { complaints, where, waitedS: waits.longestS };
}

async function stopSuspended(lab: Lab, paths: readonly string[], forS: number) {
  const attempt = async () => await lab.strike(['stop', 'hold', forS], ['--lease', String(LEASE_S)], paths);
  let told = await attempt();
  for (let count = 1; told.where === undefined && count < LEASE_ATTEMPTS; count++) told = await attempt();
  return told;
}

/** A freeze counter that was left standing shows when its device is mounted the next time. */
async function unmounted({ guest }: Lab, place: string): Promise<string[]> {
  const line = `findmnt -no SOURCE,FSTYPE ${place} >/run/mount$(echo ${place} | tr / _); umount ${place}`;
  const { exitCode, stderr } = await guest.exec(line, { check: false });
  return exitCode === 0 ? [] : [`umount ${place}: ${stderr.trim()}`];
}

async function mounted({ guest }: Lab, place: string): Promise<string[]> {
  const line = `read source type </run/mount$(echo ${place} | tr / _); mount -t $type $source ${place} && date >${place}/again && sync -f ${place} && cat ${place}/file`;
  const { exitCode, stdout, stderr } = await guest.exec(line, { check: false });
  return exitCode === 0 && stdout === 'before\n' ? [] : [`${place} mounted again: ${stdout}${stderr.trim()}`];
}

async function overflow({ lab: { guest }, drawn: { paths, within } }: ActContext): Promise<ActResult> {
  const [place = ''] = paths;
  const mib = COW_MIB + 4 + Math.floor(within * 24);
  await guest.exec(`dd if=/dev/urandom of=/run/fsb-big bs=1M count=${mib} 2>/dev/null`);
  // Nothing is left to extend it by.
  const free = `vgs --noheadings -o vg_free_count vg1`;
  await guest.exec(`lvcreate -q -An -y -n filler -l $(($(${free}) - ${COW_MIB / 4})) vg1`);
  const pauseS = (within * 2).toFixed(2);
  const fill = `nsenter -t 1 -m dd if=/run/fsb-big of=${place}/big bs=1M conv=fsync 2>/dev/null`;
  const line = `sleep ${pauseS}; ${fill}; cat ${place}/file; exit 0`;
  const { exitCode, stderr } = await execOver(guest, ['--cow-size', `${COW_MIB}M`], paths, line);
  const complaints: string[] = [];
  if (exitCode !== 125) complaints.push(`expected exit code 125, found ${exitCode}: ${stderr}`);
  if (!/ is lost: its room was used up/.test(stderr)) complaints.push(`it was not told why: ${stderr}`);
  const left = await untilNothingLeft(guest, CLEAN_LIMIT_S);
  if (left !== '') complaints.push(`left: ${left}`);
  const { stdout } = await guest.exec(
    `cmp /run/fsb-big ${place}/big 2>&1; rm -f ${place}/big /run/fsb-big; lvremove -q -y vg1/filler >/dev/null`,
  );
  if (stdout !== '') complaints.push(`the original was hurt: ${stdout.trim()}`);
  return { complaints, where: `${mib} MiB after ${pauseS} s` };
}

async function order({ lab, name, drawn: { paths, kernel, within } }: ActContext): Promise<ActResult> {
  const writer = await lab.ordered(name, paths);
  await lab.guest.exec(['/bin/sleep', (0.2 + within / 2).toFixed(3)]);
  const acknowledged = await writer.acknowledged();
  const files = paths.map((place) => `${place}/order`).join(' ');
  const { exitCode, stdout, stderr, record } = await execOver(lab.guest, [], paths, `cat ${files}`);
  const then = await writer.acknowledged();
  await writer.end();
  if (exitCode !== 0) return { complaints: [`exit code ${exitCode}: ${stderr}`], where: '-' };
  const [first = Number.NaN, second = Number.NaN] = stdout.trim().split('\n').map(Number);
  const read = { first, second, acknowledged };
  const ways = (record?.sources ?? []).filter(({ at }) => paths.includes(at)).map(({ way }) => way);
  const complaints = [...judgeOrder(read, ways, cutsTogether(kernel))];
  if (acknowledged === 0 || then <= first) complaints.push(`the writer did not write: ${acknowledged}, then ${then}`);
  const claimed = ways.every((way) => way === 'atomic');
  return { complaints, where: `${acknowledged}/${first}/${second}/${then}`, claimed, inverted: isInverted(read) };
}

/** Longer than a write may wait. */
async function watchOn({ guest }: Lab): Promise<void> {
  await guest.exec(['/bin/sleep', '1.5']);
}

async function heldStill({ guest }: Lab): Promise<string[]> {
  const { exitCode } = await guest.exec(`[ ! -e ${HELD} ] && [ ! -e /run/fsfreeze-bridge/frozen ]`, { check: false });
  return exitCode === 0 ? [] : ['a writer is held still, or the guest is marked frozen'];
}
