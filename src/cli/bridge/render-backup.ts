// Puts backups into rows for people.
import { join } from 'node:path';
import type { BackupDryRun } from '../../host/backup/backup-dry-run.js';
import type { BootFiles, ToldBoot } from '../../host/repository/boot-verdict.js';
import type { ForgottenRuns, RepositoryFinding, VerifiedRun } from '../../host/repository/keep-house.js';
import type { RunSummary, RunView, StoredRuns } from '../../host/repository/look.js';
import type { RunManifest } from '../../host/repository/run-manifest.js';
import type { RestoredInPlace } from '../../host/restore/restore-in-place.js';
import type { RestoredRun } from '../../host/restore/restore-run.js';
import type { RunningVm, StartedVm } from '../../host/start/start-run.js';
import { mib } from './size-line.js';

export function renderRun({ run, level, disks, timings, transfer }: RunManifest, path: string): string[] {
  const held =
    timings.frozenWindowMs === undefined
      ? 'the guest was not held'
      : `frozen for ${Math.ceil(timings.frozenWindowMs)} ms`;
  return [
    `backup run ${run}, consistency level ${level}, ${held}, copied in ${(transfer.copyMs / 1000).toFixed(1)} s`,
    ...disks.flatMap((disk) => renderDisk(disk, path)),
  ];
}

function renderDisk({ id, kind, why, copiedBytes, file }: RunManifest['disks'][number], path: string): string[] {
  return [
    `  ${id}: ${kind}, ${kind === 'full' ? `the disk of ${mib(copiedBytes)}` : `${mib(copiedBytes)} copied`} (${why})`,
    `    ${join(path, file.name)}, ${mib(file.size)}${file.encryption === undefined ? '' : `, encrypted (${file.encryption.cipher})`}`,
  ];
}

export function renderDryRun({ vm, disks, leftOut, room }: BackupDryRun): string[] {
  return [
    `${vm}: a backup would copy at most ${mib(disks.reduce((sum, { bytes }) => sum + bytes, 0))}`,
    ...disks.map(
      ({ id, kind, why, bytes, isEncrypted }) =>
        `  ${id}: ${kind}, ${mib(bytes)}${isEncrypted ? ', encrypted' : ''} (${why})`,
    ),
    ...leftOut.map(({ what, reason }) => `  left out: ${what}: ${reason}`),
    ...(room === undefined ? [] : [`  repository: ${mib(room.free)} free, ${mib(room.needed)} wanted`]),
  ];
}

export function renderStored(vms: readonly StoredRuns[]): string[] {
  if (vms.length === 0) return ['no backups'];
  return vms.flatMap(({ vm, key, runs, forgotten, unreadable, busy }) => [
    `${vm}${vm === key ? '' : ` (${key})`}: ${runs.length} runs${busy === undefined ? '' : `; being worked on by ${busy}`}`,
    ...runs.flatMap(renderSummary),
    ...(forgotten.length === 0 ? [] : [`  forgotten, but others lie on them: ${forgotten.join(', ')}`]),
    ...unreadable.map(({ run, reason }) => `  ${run}: CANNOT BE READ: ${reason}`),
  ]);
}

function renderSummary(summary: RunSummary): string[] {
  const { run, level, kind, bytes, chain, isEncrypted, verified, booted, notes } = summary;
  const known = [verifiedText(verified), ...(booted === undefined ? [] : [`booted ${booted.bootedAt}`])].join(', ');
  const fallen = booted === undefined ? 0 : booted.problems.length;
  const state = notes.length === 0 ? known : notes.length > fallen ? 'DAMAGED' : 'FAILED ITS BOOT TEST';
  return [
    `  ${run}  ${level}, ${kind}, ${mib(bytes)}, chain of ${chain}${isEncrypted ? ', encrypted' : ''}, ${state}`,
    ...notes.map((note) => `    ${note}`),
  ];
}

function verifiedText(verified: RunSummary['verified']): string {
  if (verified === undefined) return 'not verified';
  return `verified ${verified.verifiedAt}${verified.unchecked.length === 0 ? '' : ' without its key'}`;
}

export function renderRunView(vm: string, manifest: RunManifest, view: RunView): string[] {
  const { run, createdAt, level, evidence, disks } = manifest;
  return [
    `backup run ${run} of ${vm}, begun ${createdAt}, consistency level ${level}`,
    ...evidence.map((each) => `  ${each}`),
    ...disks.flatMap((disk, index) => [
      `  ${disk.id}: ${disk.kind}, level ${disk.level}, ${mib(disk.virtualSize)}${disk.file.encryption === undefined ? '' : `, encrypted (${disk.file.encryption.cipher})`} (${disk.why})`,
      ...(view.chains[index] ?? []).map((file) => `    ${file}`),
      `    by hand, in the repository: ${disk.restore}`,
    ]),
    ...(view.dependents.length === 0 ? [] : [`  runs that lie on it: ${view.dependents.join(', ')}`]),
    `  ${verifiedText(view.verified)}`,
    ...(view.booted === undefined ? [] : [`  booted ${view.booted.bootedAt}`]),
    ...[...view.notes, ...(view.verified?.problems ?? [])].map((note) => `  DAMAGED: ${note}`),
    ...(view.booted?.problems ?? []).map((problem) => `  FAILED ITS BOOT TEST: ${problem}`),
  ];
}

/** What is known of a run now. */
export interface JudgedRun extends Omit<VerifiedRun, 'verifiedAt'> {
  /** Absent if its files were not looked at. */
  readonly verifiedAt?: string;
  readonly boot?: ToldBoot & BootFiles;
}

export function renderVerified(runs: readonly JudgedRun[]): string[] {
  if (runs.length === 0) return ['no run to be verified'];
  return runs.flatMap(({ vm, run, verifiedAt, problems, unchecked, boot }) => {
    const sound = unchecked.length === 0 ? 'sound' : 'sound as far as it was looked at';
    const files = verifiedAt === undefined ? 'files not looked at' : sound;
    return [
      `${vm}, run ${run}: ${problems.length === 0 ? files : 'DAMAGED'}`,
      ...problems.map((problem) => `  ${problem}`),
      ...unchecked.map((what) => `  not looked into: ${what}`),
      ...(boot === undefined ? [] : renderBoot(boot)),
    ];
  });
}

function renderBoot({
  agentMs,
  testMs,
  accelerator,
  checks,
  problems,
  notes,
  screenshot,
  console,
}: BootOfRun): string[] {
  const agent = agentMs === undefined ? 'no agent answered' : `agent answered after ${seconds(agentMs)}`;
  return [
    `  ${problems.length === 0 ? 'booted' : 'FAILED ITS BOOT TEST'}: ${agent}, ${seconds(testMs)} in all (${accelerator})`,
    ...checks.filter(({ passed }) => passed).map(({ what, detail }) => `    passed: ${what}: ${detail}`),
    ...problems.map((problem) => `    FAILED: ${problem}`),
    ...notes.map((note) => `    note: ${note}`),
    ...[screenshot, console].filter((file) => file !== undefined).map((file) => `    ${file}`),
  ];
}

type BootOfRun = NonNullable<JudgedRun['boot']>;

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

export function renderRestored({ vm, run, level, target, verified, disks }: RestoredRun): string[] {
  return [
    `backup run ${run} of ${vm}, consistency level ${level}, restored to ${target}${verified ? ' and compared' : ', NOT COMPARED'}`,
    ...disks.map(({ id, file, virtualSize }) => `  ${id}: ${file} (${mib(virtualSize)})`),
  ];
}

/** In one line. */
export function renderRunning({ vm, pid, accelerator, qmp, agent, startMs }: RunningVm): string {
  return `VM ${vm} runs after ${seconds(startMs)} (process ${pid}, ${accelerator}): monitor ${qmp}, agent ${agent}`;
}

export function renderStarted({ vm, run, level, pid, target, startMs, agentMs, streamMs, disks }: StartedVm): string[] {
  const agent = agentMs === undefined ? '' : `, its agent answered ${seconds(agentMs)} later`;
  return [
    `backup run ${run} of ${vm}, consistency level ${level}, runs in ${target} (process ${pid}); nothing of the repository is needed any more`,
    `  it ran after ${seconds(startMs)}${agent}; its disks were copied in ${seconds(streamMs)}`,
    ...disks.map(({ id, file, virtualSize }) => `  ${id}: ${file} (${mib(virtualSize)})`),
  ];
}

export function renderInPlace({ vm, run, level, dryRun, verified, disks }: RestoredInPlace): string[] {
  const compared = verified ? ' and compared' : ', NOT COMPARED';
  return [
    `backup run ${run} of ${vm}, consistency level ${level}, ${dryRun ? 'would be restored' : `restored${compared}`}`,
    ...disks.map(({ id, file, bytes }) => `  ${id}: ${file}, ${mib(bytes)} ${dryRun ? 'differ' : 'written'}`),
  ];
}

export function renderForgotten(vms: readonly ForgottenRuns[]): string[] {
  return vms.flatMap(({ vm, forgotten, removed, needed }) => [
    `${vm}: ${forgotten.length} runs forgotten, the files of ${removed.length} removed`,
    ...removed.map((run) => `  removed: ${run}`),
    ...needed.map(({ run, by }) => `  kept for ${by.join(', ')}: ${run}`),
  ]);
}

export function renderFindings(findings: readonly RepositoryFinding[]): string[] {
  if (findings.length === 0) return ['nothing to recover'];
  const labels = { done: 'done', planned: 'would do', yours: 'LEFT FOR YOU', busy: 'not now' } as const;
  return findings.flatMap(({ vm, found, status, did, commands = [] }) => [
    `${vm}: ${found}`,
    `  ${labels[status]}: ${did}`,
    ...commands.map((command) => `    ${command}`),
  ]);
}
