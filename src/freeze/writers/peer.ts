// Names what a session needs of whoever speaks for an application, and how that answers, in whatever way it is spoken
// with: a program for each phase (program-peer.ts), one process that is asked line by line (resident-peer.ts), or what a
// dead agent left (left-peer.ts). Who gets which: peers.ts.
import type { outcomes, WriterPhase } from '../../consistency.js';

/** How a session came out, as writers are told. */
export type SessionOutcome = Exclude<(typeof outcomes)[number], 'incomplete' | 'unreleased'>;

/** What came of one question. */
export interface Answer {
  /** On CLOCK_MONOTONIC, as `endMs`. */
  readonly startMs: number;
  readonly endMs: number;
  readonly exitCode?: number;
  readonly signal?: string;
  /** Ended because its limit had passed. */
  readonly timedOut: boolean;
  /** Ended because the signal was aborted. */
  readonly aborted: boolean;
  /** Still there after SIGKILL. */
  readonly unkillable: boolean;
  /** How it went wrong: it was never started, it broke a rule and was ended, or it ended where it must not. */
  readonly fault?: string;
  /** Of one that answers instead of exiting. */
  readonly answer?: 'ok' | 'error';
  /** The reason, for people. */
  readonly text?: string;
}

/** What can go wrong with a question, but did not. */
export const noEvents = { timedOut: false, aborted: false, unkillable: false } as const;

/** Speaks for one writer in one session. Nothing of it throws. */
export interface Peer {
  /** It was never begun, was told to end or has ended: nobody can ask it anything. */
  readonly isGone: boolean;
  /** Before its first question. One that lives through the session is started here. */
  begin(): void;
  /**
   * Asks for one phase, and waits for its end: at the limit, and when the signal is aborted, that is brought about. One
   * question at a time. `outcome` is told where it is known.
   */
  ask(phase: WriterPhase, outcome: SessionOutcome | undefined, limitMs: number, signal?: AbortSignal): Promise<Answer>;
  /** Nobody will ask it for a phase before its release any more. True if that proves that it holds nothing. */
  end(): Promise<boolean>;
  /** Gives up what is kept for it. Whoever asks later gets an answer all the same. */
  close(): void;
}
