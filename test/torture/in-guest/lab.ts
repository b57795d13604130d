// A user-mode guest with volumes to cut, a writer that shows when it is held, and a folder of the host's in which programs
// of the guest note what they did: so it is judged from outside.
import { mkdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import * as v from 'valibot';
import type { GuestProcess } from '../../../src/testing/guest-exec.js';
import type { KernelVersion, UserModeGuest } from '../../../src/testing/index.js';
import { addWriter, userModeAgent } from '../../support/agent-guest.js';
import { setUpVolumes } from '../../support/in-guest.js';
import type { Written } from './judge.js';
import { LAB_WRITER, ORDERED, STRIKE, WRITES } from './programs.js';

const FOLDER = '/run/fsb-lab';
const STRIKE_LIMIT_MS = 120_000;

const toldSchema = v.object({
  /** Exit code, or 128 + the signal. */
  code: v.number(),
  /** Seconds. */
  took: v.number(),
  heldAt: v.optional(v.number()),
  heldTo: v.optional(v.number()),
  /** In which state it struck; absent if it found no instant. */
  where: v.optional(v.string()),
  /** Seconds of the guest's clock: when the requester was killed, or lvm was let go on. */
  at: v.optional(v.number()),
});
type Told = v.InferOutput<typeof toldSchema>;

/** Seconds that an undisturbed run takes. */
export interface Lengths {
  readonly totalS: number;
  readonly heldS: number;
}

export class Lab implements AsyncDisposable {
  readonly guest: UserModeGuest;
  readonly #shared: { readonly host: string; readonly guest: string };

  private constructor(guest: UserModeGuest, shared: { readonly host: string; readonly guest: string }) {
    this.guest = guest;
    this.#shared = shared;
  }

  static async boot(kernel: KernelVersion): Promise<Lab> {
    const guest = await userModeAgent({ kernel });
    try {
      await setUpVolumes(guest);
      await addWriter(guest, '30-lab', LAB_WRITER);
      const programs = { strike: STRIKE, writes: WRITES, ordered: ORDERED };
      await guest.exec(['/bin/mkdir', '-p', FOLDER]);
      for (const [name, input] of Object.entries(programs))
        await guest.exec(['/usr/bin/tee', `${FOLDER}/${name}`], { input });
      return new Lab(guest, await guest.sharedFolder());
    } catch (cause) {
      await guest[Symbol.asyncDispose]();
      throw cause;
    }
  }

  /** `exec` over `paths`, with STRIKE beside it (programs.ts). */
  async strike(act: readonly [string, string, number], options: readonly string[], paths: readonly string[]) {
    const [name, from, delayS] = act;
    const words = ['/usr/bin/fsfreeze-snapshot', 'exec', ...options, ...paths, '--', '/bin/sleep', '1'];
    const { stdout } = await this.guest.exec(
      ['/usr/bin/perl', `${FOLDER}/strike`, name, from, String(Math.round(delayS * 1e6)), ...words],
      { timeoutMs: STRIKE_LIMIT_MS },
    );
    const told: Told = v.parse(toldSchema, JSON.parse(stdout));
    const { stdout: said } = await this.guest.exec(['/bin/cat', '/run/fsb-strike.err']);
    return { ...told, said: said.trim() };
  }

  /** Throws if an undisturbed run fails, or if no writer was held. */
  async lengths(paths: readonly string[]): Promise<Lengths> {
    const { code, took, heldAt, heldTo, said } = await this.strike(['watch', 'start', 0], [], paths);
    if (code !== 0 || heldAt === undefined || heldTo === undefined)
      throw new Error(`an undisturbed exec over ${paths.join(' ')}: exit code ${code}: ${said}`);
    return { totalS: took, heldS: heldTo - heldAt };
  }

  /** Begins durable writes to each of them; `end` stops them and gives what the host saw of them. */
  async writes(name: string, directories: readonly string[]) {
    const running = await this.#noting(name, 'writes', directories);
    const stamps = async (file: string): Promise<number[]> => await this.#numbers(name, file);
    return {
      end: async (): Promise<{ readonly written: readonly Written[]; readonly time: readonly number[] }> => {
        await running.kill();
        const written = directories.map(async (directory) => {
          return { directory, at: await stamps(directory.replaceAll('/', '_')) };
        });
        return { written: await Promise.all(written), time: await stamps('time') };
      },
    };
  }

  /** Begins ordered writes; `acknowledged` is the last number that the host was told. */
  async ordered(name: string, pair: readonly string[]) {
    const running = await this.#noting(name, 'ordered', pair);
    return {
      acknowledged: async (): Promise<number> => (await this.#numbers(name, 'ordered')).at(-1) ?? 0,
      end: async (): Promise<void> => {
        await running.kill();
      },
    };
  }

  async #noting(name: string, program: 'writes' | 'ordered', directories: readonly string[]): Promise<GuestProcess> {
    await mkdir(path.join(this.#shared.host, name), { recursive: true });
    const folder = `${this.#shared.guest}/${name}`;
    const out = program === 'ordered' ? `${folder}/ordered` : folder;
    return await this.guest.start(['/usr/bin/perl', `${FOLDER}/${program}`, out, ...directories]);
  }

  /** The last line may be being written. */
  async #numbers(name: string, file: string): Promise<number[]> {
    const text = await readFile(path.join(this.#shared.host, name, file), 'utf8').catch(() => '');
    return text.split('\n').slice(0, -1).map(Number);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.guest[Symbol.asyncDispose]();
  }
}
