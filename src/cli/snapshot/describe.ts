// Rows for people, and what programs get, of plans and runs.
import type { FreezeReport } from '../../consistency.js';
import type { Collected } from '../../snapshot/collect.js';
import type { RunRecord, SourceResult } from '../../snapshot/journal.js';
import type { SetPlan } from '../../snapshot/planner.js';

const MIB = 1024 * 1024;

interface PlanView {
  readonly sources: readonly Omit<SourceResult, 'level'>[];
}

export function planView({ sources }: SetPlan): PlanView {
  return {
    sources: sources.map(({ source, way, snapshot, reason }) => ({
      at: source.at,
      way,
      ...(snapshot === undefined ? {} : { provider: snapshot.provider }),
      ...(snapshot?.cowBytes === undefined ? {} : { cowBytes: snapshot.cowBytes }),
      ...(reason === undefined ? {} : { reason }),
    })),
  };
}

export function describePlan(plan: SetPlan): string[] {
  return planView(plan).sources.map((source) => describeSource(source));
}

function describeSource({ at, way, provider, cowBytes, reason }: Omit<SourceResult, 'level'>): string {
  const how = provider === undefined ? way : `${way}, ${provider}`;
  const room = cowBytes === undefined ? '' : `, ${Math.ceil(cowBytes / MIB)} MiB for changes`;
  return `${at}  ${how}${room}${reason === undefined ? '' : `: ${reason}`}`;
}

export function describeCollected({ removed, left, others, lost }: Collected): string[] {
  return [
    ...removed.map((what) => `removed ${what}`),
    ...left.map(({ what, reason }) => `LEFT ${what}: ${reason}`),
    ...others.map(({ what, reason }) => `not ours: ${what}: ${reason}`),
    ...lost.map(({ run, reason }) => `LOST what was read of run ${run} is not to be relied on: ${reason}`),
  ];
}

export function describeRun({ run, state, level, lost, sources, evidence, target, artefacts }: RunRecord): string[] {
  return [
    `run ${run}  ${state}${level === undefined ? '' : `, level ${level}`}${target === undefined ? '' : `, at ${target}`}`,
    ...sources.map((source) => `  ${describeSource(source)}${level === undefined ? '' : `; ${source.level} alone`}`),
    ...(artefacts === undefined ? [] : [`  left by writers: ${artefacts}`]),
    ...(lost === undefined ? [] : [`  LOST: ${lost}`]),
    ...evidence.map((sentence) => `  - ${sentence}`),
  ];
}

export function describeHold({ level, evidence, frozenWindowMs, pauseWindowMs }: FreezeReport): string[] {
  return [
    `held: level ${level}; applications waited ${Math.round(pauseWindowMs)} ms, filesystems ${Math.round(frozenWindowMs)} ms`,
    ...evidence.map((sentence) => `  - ${sentence}`),
  ];
}
