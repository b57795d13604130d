// Speaks with a writer by starting its program once for each phase: hooks, and described writers that are no residents.
// How it is run: process.ts.
import type { WriterPhase } from '../../consistency.js';
import { monotonicMs } from '../../linux/clock.js';
import type { Writer } from './folders.js';
import type { OutputWatch } from './output.js';
import { noEvents, type Answer, type Peer, type SessionOutcome } from './peer.js';
import { toStart, type PhaseContext } from './phase.js';
import { isRelease } from './phase-result.js';
import { runProcess } from './process.js';

export class ProgramPeer implements Peer {
  readonly isGone = false;
  readonly #writer: Writer;
  readonly #context: PhaseContext;
  readonly #watch: OutputWatch;
  readonly #onLost: (reason: string) => void;

  /** `onLost`: called when what a phase left running goes wrong after it. */
  constructor(writer: Writer, context: PhaseContext, watch: OutputWatch, onLost: (reason: string) => void) {
    this.#writer = writer;
    this.#context = context;
    this.#watch = watch;
    this.#onLost = onLost;
  }

  /** Nothing of it lives longer than a phase. */
  begin(): void {}

  async ask(
    phase: WriterPhase,
    outcome: SessionOutcome | undefined,
    limitMs: number,
    signal?: AbortSignal,
  ): Promise<Answer> {
    const { paths, short } = this.#context.mountpoints;
    const withMountpoints = this.#writer.kind === 'plain' && this.#writer.folder.style === 'dragonsdawn';
    if (withMountpoints && short === undefined && !isRelease(phase))
      return failed(
        `not started: ${paths.length} mount points do not fit on its command line: in ` +
          '/etc/fsfreeze-bridge/fsfreeze-hook.d it can read them from the file $FSFREEZE_MOUNTPOINTS_FILE',
      );
    const what = toStart(this.#writer, phase, this.#context, { outcome, limitMs });
    if ('fault' in what) return failed(what.fault);
    const args = [phase, ...(withMountpoints && short !== undefined ? paths : [])];
    return await runProcess({ ...what, args, limitMs, watch: this.#watch, onFlood: this.#onLost }, signal);
  }

  /** The end of a program proves nothing: what it holds outlives it. */
  async end(): Promise<boolean> {
    return await Promise.resolve(false);
  }

  close(): void {}
}

function failed(fault: string): Answer {
  const now = monotonicMs();
  return { ...noEvents, startMs: now, endMs: now, fault };
}
