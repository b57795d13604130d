// Words and errors by which requesters are told of sessions: how one ended, who holds the guest. Who is told, and when:
// session-keeper.ts and owed-errors.ts.
import type { FreezeReport } from '../consistency.js';
import { QuiesceError, ThawUnconfirmedError } from '../errors.js';
import type { LocalSession } from '../freeze/options.js';
import type { Origin } from './origin.js';

/** The report in an error of the coordinator's (src/consistency.ts, Coordinator.freeze) or one made here. */
export function reportOf(error: unknown): FreezeReport | undefined {
  if (!(error instanceof QuiesceError || error instanceof ThawUnconfirmedError)) return undefined;
  return error.facts['report'] as FreezeReport | undefined;
}

/**
 * Why a session that was frozen is worth less than its requester believes, in the words of a plain thaw's error;
 * undefined if it ended as it should.
 */
export function whyNotConsistent(report: FreezeReport): string | undefined {
  switch (report.outcome) {
    case 'ok':
    case 'incomplete':
    case 'unreleased':
    case 'failed':
      return undefined;
    case 'expired': {
      const seconds = Math.round(report.frozenWindowMs / 100) / 10;
      return `thawed after ${seconds} s, before the requester asked: the snapshot is not consistent`;
    }
    case 'broken':
      return `${report.error ?? 'the freeze was broken'}: the snapshot is not consistent`;
  }
}

export function notConsistentError(report: FreezeReport): QuiesceError | undefined {
  const why = whyNotConsistent(report);
  return why === undefined ? undefined : new QuiesceError('E_ENDED', why, { facts: { report } });
}

export function unconfirmedError(report: FreezeReport): ThawUnconfirmedError {
  return new ThawUnconfirmedError('E_THAW', report.error ?? 'nobody confirmed the thaw', { facts: { report } });
}

export function unknownSessionError(id: string, holder: string | undefined): QuiesceError {
  return new QuiesceError(
    'E_SESSION',
    `no session '${id}' here; ${holder === undefined ? 'nobody holds the guest' : `held by ${holder}`}`,
  );
}

/** @param isSameSide the asker is inside the guest, too, where root may end what another program holds */
export function heldByOtherError(holder: string, isSameSide = false): QuiesceError {
  const who = isSameSide ? `it alone can end that, and root by bridge-thaw with the session's name` : undefined;
  return new QuiesceError('E_HELD', `the guest is held by ${holder}: ${who ?? 'it alone can end that'}`);
}

export function describeHolder(origin: Origin, { requester, id }: LocalSession): string {
  return `${requester} (${sideOf(origin)}, session ${id})`;
}

export function sideOf(origin: Origin): string {
  return origin === 'host' ? 'on the host' : 'inside the guest';
}
