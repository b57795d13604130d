// Keeps a conversation with a resident writer: one line is asked, one is answered, `ok` or `error REASON`; anything else
// breaks it for good. Knows nothing of what carries the lines (resident.ts). The rules: fsfreeze-hook.d/README.md,
// "Resident writers".
import { onAbort } from '../../deadline.js';
import { harmlessLine } from './output.js';

/** An answer is no longer. */
const LINE_CHARACTERS = 4_096;

/** `over`: whoever answers is gone. `fault`: it broke a rule. */
export type Heard = 'ok' | 'timedOut' | 'aborted' | 'over' | 'fault' | { readonly error: string };

export class Conversation {
  readonly #say: (line: string) => void;
  readonly #onFault: (fault: string, wasAsked: boolean) => void;
  #settle: ((heard: Heard) => void) | undefined;
  #line = '';
  #fault: string | undefined;
  #isOver = false;

  /** `onFault`: called once at most, when a rule is broken; nothing that is said counts any more. */
  constructor(say: (line: string) => void, onFault: (fault: string, wasAsked: boolean) => void) {
    this.#say = say;
    this.#onFault = onFault;
  }

  get fault(): string | undefined {
    return this.#fault;
  }

  /** A question is open. */
  get isAsking(): boolean {
    return this.#settle !== undefined;
  }

  /** Never throws. One question at a time. After `timedOut` and `aborted` the answer may still come: end it. */
  async ask(question: string, limitMs: number, signal?: AbortSignal): Promise<Heard> {
    if (this.#fault !== undefined) return 'fault';
    if (this.#isOver) return 'over';
    if (signal?.aborted === true) return 'aborted';
    const heard = await new Promise<Heard>((resolve) => {
      const settle = (what: Heard): void => {
        this.#settle = undefined;
        clearTimeout(limit);
        forget();
        resolve(what);
      };
      // Timers of one length are one list to Node, and all who wait for one signal are one listener.
      const limit = setTimeout(settle, limitMs, 'timedOut');
      const forget = onAbort(signal, () => {
        settle('aborted');
      });
      this.#settle = settle;
      this.#say(`${question}\n`);
    });
    // More than one line may have come at once.
    return this.fault === undefined ? heard : 'fault';
  }

  /** Takes what was said. */
  hear(text: string): void {
    if (this.#fault !== undefined || this.#isOver) return;
    this.#line += text;
    for (let end = this.#line.indexOf('\n'); end >= 0; end = this.#line.indexOf('\n')) {
      const line = this.#line.slice(0, end).replace(/\r$/, '');
      this.#line = this.#line.slice(end + 1);
      if (this.#isTooLong(line)) return;
      this.#judge(line);
      if (this.fault !== undefined) return;
    }
    this.#isTooLong(this.#line);
  }

  // Whether it came at once or in parts: what is a fault must not hang on that.
  #isTooLong(line: string): boolean {
    if (line.length <= LINE_CHARACTERS) return false;
    this.break(`answered more than ${LINE_CHARACTERS} characters on one line`);
    return true;
  }

  #judge(line: string): void {
    if (this.#settle === undefined) {
      this.break(`spoke without being asked: ${quoted(line)}`);
      return;
    }
    const error = /^error(?:\s+(.*))?$/.exec(line);
    if (error !== null) this.#settle({ error: harmlessLine(error[1]?.trim() ?? '') });
    else if (line === 'ok') this.#settle('ok');
    else this.break(`answered ${quoted(line)}, expected "ok" or "error REASON"`);
  }

  /** A rule was broken. */
  break(fault: string): void {
    if (this.#fault !== undefined || this.#isOver) return;
    this.#fault = fault;
    const settle = this.#settle;
    settle?.('fault');
    this.#onFault(fault, settle !== undefined);
  }

  /** Nobody answers any more; what is said from now on is not heard. */
  over(): void {
    this.#isOver = true;
    this.#settle?.('over');
  }
}

function quoted(line: string): string {
  return `"${harmlessLine(line.slice(0, 100))}"`;
}
