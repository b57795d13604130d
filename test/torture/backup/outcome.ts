// How an act went.
import type { Run } from '../../support/cut-harness.js';

/** done, refused by the tool, struck before its time, or nothing there to do it with. */
export type Outcome = 'done' | 'refused' | 'struck' | 'idle';

export interface Done {
  readonly outcome: Outcome;
  /** For people. */
  readonly why: string;
}

export const done: Done = { outcome: 'done', why: '' };

export function idle(why: string): Done {
  return { outcome: 'idle', why };
}

/** Of a call of the tool. */
export function ended({ code, error }: Run): Done {
  if (error.code === 'none') return { outcome: 'done', why: code === 0 ? '' : `exit ${code}` };
  return { outcome: 'refused', why: `${error.code}: ${error.message}` };
}
