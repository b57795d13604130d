// Asks QEMU to tell when an overlay grows: block-set-write-threshold on the node of its file, then one event
// BLOCK_WRITE_THRESHOLD. The event only says when to look: what counts is what the file has allocated. Specification:
// QEMU qapi/block-core.json.
import { DeadlineError, UnreachableError } from '../../errors.js';
import { imageFile, readNodes } from '../../qmp/block-graph.js';
import { QmpClient } from '../../qmp/client.js';
import { runQmp } from '../../qmp/commands.js';
import type { QmpEventListener } from '../../qmp/events.js';
import type { OverlaySize } from '../sets/overlay-sizes.js';

export class WriteThresholds implements Disposable {
  readonly #client: QmpClient;
  readonly #events: QmpEventListener;

  private constructor(client: QmpClient) {
    this.#client = client;
    this.#events = client.listen('BLOCK_WRITE_THRESHOLD');
  }

  /** Throws what QmpClient.connect does. */
  static async connect(monitor: string, timeoutMs: number): Promise<WriteThresholds> {
    return new WriteThresholds(await QmpClient.connect(monitor, { timeoutMs }));
  }

  /**
   * Asks for an event before the file can have allocated `limitBytes`, unless it writes into its holes. Overlays that the
   * VM does not have open, and those that are beyond, are passed over.
   */
  async arm(sizes: readonly OverlaySize[], limitBytes: number): Promise<void> {
    const nodes = [...(await readNodes(this.#client)).values()];
    for (const { file, allocatedBytes = 0, fileBytes = 0 } of sizes) {
      const node = nodes.find(({ drv, image }) => drv === 'file' && imageFile(image.filename) === file)?.['node-name'];
      if (node === undefined || allocatedBytes > limitBytes) continue;
      const threshold = fileBytes + limitBytes - allocatedBytes;
      await runQmp(this.#client, 'block-set-write-threshold', { 'node-name': node, 'write-threshold': threshold });
    }
  }

  /**
   * Waits for the next event, at most that long; true if there was one. Returns at once when the connection has ended.
   */
  async next(timeoutMs: number): Promise<boolean> {
    try {
      await this.#events.next(timeoutMs);
      return true;
    } catch (error) {
      if (error instanceof DeadlineError || error instanceof UnreachableError) return false;
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#events[Symbol.dispose]();
    this.#client.close();
  }
}
