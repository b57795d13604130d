// Agents in processes of their own, to be killed (test/fixtures/mortal-agent.ts), and the processes they leave.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';
import type { CoordinatorOptions } from '../../src/freeze/options.js';

/** As the agent is shipped: one CommonJS file. Gives its path. */
export async function buildMortalAgent(dir: string): Promise<string> {
  const outfile = join(dir, 'mortal-agent.cjs');
  const entry = join(import.meta.dirname, '../fixtures/mortal-agent.ts');
  await build({ entryPoints: [entry], bundle: true, platform: 'node', format: 'cjs', outfile, logLevel: 'error' });
  return outfile;
}

export class MortalAgent implements AsyncDisposable {
  readonly #child: ChildProcess;
  #said = '';

  constructor(program: string, task: 'hold' | 'thaw' | 'recover', options: CoordinatorOptions) {
    this.#child = spawn(process.execPath, [program, task, JSON.stringify(options)], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: {},
    });
    this.#child.stdout?.on('data', (text: Buffer) => {
      this.#said += text.toString();
    });
  }

  get said(): string {
    return this.#said;
  }

  async ended(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) await once(this.#child, 'exit');
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.ended();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

/** Neither gone nor a zombie. */
export function alive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** Pids of living processes that were started with this word in their environment. */
export function processesWith(word: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return pid !== process.pid && alive(pid) && readFileSync(`/proc/${pid}/environ`, 'utf8').includes(word);
      } catch {
        return false;
      }
    });
}
