// Between a tool and a monitor: what either says arrives late, each time by another while. Two tools at once meet in another
// order in every round.
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { MonitorProxy } from './monitor-proxy.js';

export class SlowProxy extends MonitorProxy {
  readonly #longestMs: number;

  private constructor(path: string, target: string, longestMs: number) {
    super(path, target);
    this.#longestMs = longestMs;
  }

  static async listen(path: string, target: string, longestMs: number): Promise<SlowProxy> {
    return await new SlowProxy(path, target, longestMs).listen();
  }

  protected override pass(tool: Socket, monitor: Socket): void {
    for (const [from, to] of [
      [tool, monitor],
      [monitor, tool],
    ] as const) {
      let last = Promise.resolve();
      from.on('data', (chunk) => {
        last = last.then(async () => {
          await sleep(Math.random() * this.#longestMs);
          to.write(chunk);
        });
      });
    }
  }
}
