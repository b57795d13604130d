// A virsh for the tool that hands on what it is told until one command, and stops there: before it, or when libvirt has
// carried it out and the tool has not heard of it. Then the tool can be killed, or the world changed. Or it goes on, with a
// command of the test's own right behind.
import { existsSync, writeFileSync } from 'node:fs';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';

const REACHED_MS = 30_000;

// A tool that was killed lets go of us: then virsh gets its end.
const SCRIPT = `#!/bin/sh
exec 3<&0
while IFS= read -r line <&3; do
  case "$line" in
  *"$FSB_STOP_AT"*)
    if [ "$FSB_STOP_PASSES" -gt 0 ]; then
      FSB_STOP_PASSES=$((FSB_STOP_PASSES - 1))
      printf '%s\\n' "$line"
      continue
    fi
    if [ "$FSB_STOP" = with ]; then printf '%s\\n%s\\n' "$line" "$FSB_STOP_LINE"; continue; fi
    if [ "$FSB_STOP" = after ]; then printf '%s\\n' "$line"; fi
    : >"$FSB_STOP_DIR/reached"
    while [ ! -e "$FSB_STOP_DIR/go" ] && kill -0 "$PPID" 2>/dev/null; do sleep 0.05; done
    if [ "$FSB_STOP" = before ]; then printf '%s\\n' "$line"; fi
    ;;
  *) printf '%s\\n' "$line" ;;
  esac
done | "$FSB_VIRSH" "$@"
`;

export interface VirshStep {
  /** Words of its line: `'backup-begin'`. */
  readonly words: string;
  readonly when: 'before' | 'after' | 'with';
  /** How many lines with these words pass before it; none unless it is given. */
  readonly passes?: number;
  /** The command behind it, for `with`. */
  readonly line?: string;
}

export class StoppingVirsh {
  readonly #dir: string;
  readonly #virsh: string;
  readonly #step: VirshStep;

  private constructor(dir: string, virsh: string, step: VirshStep) {
    this.#dir = dir;
    this.#virsh = virsh;
    this.#step = step;
  }

  static async make(dir: string, step: VirshStep): Promise<StoppingVirsh> {
    await mkdir(dir);
    await writeFile(path.join(dir, 'virsh'), SCRIPT);
    await chmod(path.join(dir, 'virsh'), 0o755);
    // Not another one of these.
    const virsh = process.env['FSB_VIRSH'] ?? (await execa('sh', ['-c', 'command -v virsh'])).stdout;
    return new StoppingVirsh(dir, virsh, step);
  }

  /** The environment of a tool; one that runs in this process has ours. */
  get environment(): Readonly<Record<string, string>> {
    return {
      PATH: `${this.#dir}:${process.env['PATH'] ?? ''}`,
      FSB_VIRSH: this.#virsh,
      FSB_STOP_AT: this.#step.words,
      FSB_STOP: this.#step.when,
      FSB_STOP_PASSES: String(this.#step.passes ?? 0),
      FSB_STOP_LINE: this.#step.line ?? '',
      FSB_STOP_DIR: this.#dir,
    };
  }

  async reached(): Promise<void> {
    const end = performance.now() + REACHED_MS;
    while (!existsSync(path.join(this.#dir, 'reached'))) {
      if (performance.now() > end) throw new Error(`virsh was not told ${this.#step.words} within ${REACHED_MS} ms`);
      await sleep(20);
    }
  }

  goOn(): void {
    writeFileSync(path.join(this.#dir, 'go'), '');
  }
}
