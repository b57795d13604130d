// Reads what the end of a phase means: its exit code, its answer or what kept it from either
// (fsfreeze-hook.d/README.md, "Exit codes"), for the session and for the report. How it is started: phase.ts.
import { defined } from '../../defined.js';
import type { PhaseReport, WriterPhase } from '../../consistency.js';
import type { Writer } from './folders.js';
import type { Answer } from './peer.js';

const releasing: readonly WriterPhase[] = ['thaw', 'abort', 'post', 'complete'];

/**
 * A writer that is let go need not be the one that was looked at; in all other phases it speaks for what was planned.
 */
export function isRelease(phase: WriterPhase): boolean {
  return releasing.includes(phase);
}

/** What a phase of a writer came to. */
export type PhaseResult =
  { readonly kind: 'done' | 'unsupported' | 'not-applicable' } | { readonly kind: 'failed'; readonly reason: string };

export function readResult(
  { kind, phases }: Pick<Writer, 'kind' | 'phases'>,
  phase: WriterPhase,
  result: Answer,
  limitMs: number,
): PhaseResult {
  const failed = (reason: string): PhaseResult => ({ kind: 'failed', reason });
  const { exitCode: code, text, answer, fault } = result;
  const because = text === undefined || text === '' ? '' : `: ${text}`;
  if (answer === 'ok') return { kind: 'done' };
  if (answer === 'error') return failed(text === undefined || text === '' ? 'it gave no reason' : text);
  if (result.unkillable) return failed(`still runs after SIGKILL${because}`);
  if (result.timedOut) return failed(`not done within ${Math.round(limitMs)} ms${because}`);
  if (result.aborted) return failed(`ended with the ${isRelease(phase) ? 'agent, or for a new session' : 'attempt'}`);
  const isDescribed = kind !== 'plain';
  // One that holds nothing may find in verify that its application has stopped since.
  const mayLeave = phase === 'prepare' || phase === 'freeze' || (phase === 'verify' && !phases.includes('freeze'));
  if (isDescribed && code === 3 && mayLeave) return { kind: 'not-applicable' };
  if (fault !== undefined) return failed(`${fault}${because}`);
  if (result.signal !== undefined) return failed(`ended by ${result.signal}${because}`);
  if (code === 0) return { kind: 'done' };
  // A shell ends with 2 for errors of its own, a fork that fails for one: that must not be taken for let go.
  if (isDescribed && code === 2 && phase !== 'thaw') return { kind: 'unsupported' };
  const reserved = isDescribed && code !== undefined && code >= 4 && code <= 15 ? ' (reserved)' : '';
  return failed(`exit ${code ?? 'unknown'}${reserved}${because}`);
}

export function phaseReport(phase: WriterPhase, result: Answer, zeroMs: number): PhaseReport {
  const { exitCode, signal: killer, text, fault } = result;
  const said = fault === undefined ? text : text === undefined ? fault : `${fault}: ${text}`;
  return {
    phase,
    startMs: result.startMs - zeroMs,
    endMs: result.endMs - zeroMs,
    ...defined({ exitCode, signal: killer }),
    timedOut: result.timedOut,
    ...(said === undefined || said === '' ? {} : { text: said }),
  };
}
