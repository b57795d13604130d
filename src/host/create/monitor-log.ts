// Notes the commands that are sent to a monitor until the disks are cut, as the manifest keeps them.
import type { QmpLogEntry } from '../../qmp/client.js';
import type { PointInTime } from '../sets/point-in-time.js';

export class MonitorLog {
  readonly commands: PointInTime['monitorLog'] = [];
  #isEnded = false;

  /** For a monitor's options. */
  readonly note = ({ direction, command, monotonicNs }: QmpLogEntry): void => {
    if (direction === 'sent' && !this.#isEnded) {
      this.commands.push({ command, sentMs: Number(monotonicNs / 1000n) / 1000 });
    }
  };

  /** What comes is asked over and over, for hours. */
  end(): void {
    this.#isEnded = true;
  }
}
