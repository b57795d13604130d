// Between the tool and a real monitor. LossyProxy passes everything on, but loses one command's request or answer, or
// hangs up. StepProxy stops the conversation at one step, so that something can be done to either side exactly there.
import type { Socket } from 'node:net';
import { MonitorProxy, onLines } from './monitor-proxy.js';

/**
 * request  the command never reaches QEMU, and is never answered
 * answer   QEMU carries it out, its answer is lost
 * hang-up  QEMU carries it out, the connection ends instead of the answer
 */
export type Loss = 'request' | 'answer' | 'hang-up';

export class LossyProxy extends MonitorProxy {
  readonly #command: string;
  readonly #loss: Loss;

  private constructor(path: string, target: string, command: string, loss: Loss) {
    super(path, target);
    this.#command = command;
    this.#loss = loss;
  }

  static async listen(path: string, target: string, command: string, loss: Loss): Promise<LossyProxy> {
    return await new LossyProxy(path, target, command, loss).listen();
  }

  protected override pass(tool: Socket, monitor: Socket): void {
    let lost: unknown;
    onLines(tool, (line) => {
      const request = JSON.parse(line) as { execute: string; id: unknown };
      if (request.execute === this.#command) {
        lost = request.id;
        if (this.#loss === 'request') return;
      }
      monitor.write(`${line}\n`);
    });
    onLines(monitor, (line) => {
      const reply = JSON.parse(line) as { id?: unknown };
      if (lost !== undefined && reply.id === lost) {
        if (this.#loss === 'hang-up') tool.destroy();
        return;
      }
      tool.write(`${line}\n`);
    });
  }
}

/** The n-th time (from 1) the tool sends the command: before QEMU gets it, or when QEMU has answered it. */
export interface Step {
  readonly command: string;
  readonly nth?: number;
  readonly when: 'before' | 'after';
}

export class StepProxy extends MonitorProxy {
  /** Settles when the step is reached; nothing passes from then on, until `goOn`. */
  readonly reached: Promise<void>;
  readonly #step: Step;
  #reach: () => void = () => undefined;
  #seen = 0;
  #awaited: unknown;
  #held: (() => void)[] | undefined;
  #done = false;

  private constructor(path: string, target: string, step: Step) {
    super(path, target);
    this.#step = step;
    this.reached = new Promise((resolve) => {
      this.#reach = resolve;
    });
  }

  static async listen(path: string, target: string, step: Step): Promise<StepProxy> {
    return await new StepProxy(path, target, step).listen();
  }

  protected override pass(tool: Socket, monitor: Socket): void {
    const { command, nth = 1, when } = this.#step;
    onLines(tool, (line) => {
      const request = JSON.parse(line) as { execute: string; id: unknown };
      if (request.execute === command && ++this.#seen === nth) {
        this.#awaited = request.id;
        if (when === 'before') this.#hold();
      }
      this.#send(monitor, line);
    });
    onLines(monitor, (line) => {
      const { id } = JSON.parse(line) as { id?: unknown };
      if (when === 'after' && this.#awaited !== undefined && id === this.#awaited) this.#hold();
      this.#send(tool, line);
    });
  }

  /** Lets pass what was held back, and all that follows. */
  goOn(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const send of held) send();
  }

  #hold(): void {
    if (this.#done) return;
    this.#done = true;
    this.#held = [];
    this.#reach();
  }

  #send(to: Socket, line: string): void {
    const send = (): void => void to.write(`${line}\n`);
    if (this.#held === undefined) send();
    else this.#held.push(send);
  }
}
