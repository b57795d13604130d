// A provider that is a program: one call for each verb, a JSON object on its standard input, one on its standard output
// (../README.md, "Providers"). `take` alone lives longer: it is started before anything is held, and cuts at a word, so
// that nothing is started while applications wait.
import { execa } from 'execa';
import * as v from 'valibot';
import { withLimit } from '../../deadline.js';
import { CutError, describeError } from '../../errors.js';
import type { ProcessId } from '../../linux/process-stat.js';
import { processNote } from '../journal.js';
import { endedWithin, runProgram, SEARCH_PATH } from '../program.js';
import type { Volume } from '../volume.js';
import type { Made, MountSpec, Probe, Provider, SizeWish, Snapshot, SnapshotStatus } from './provider.js';

const NOT_MINE = 3;
/** Less than a section lasts: what is left of that is the way back. */
const TAKE_LIMIT_MS = 20_000;

const probeSchema = v.object({ underFreeze: v.boolean() });
const planSchema = v.object({ name: v.string(), cowBytes: v.optional(v.number()) });
const mountSchema = v.object({ device: v.string(), type: v.string(), options: v.array(v.string()) });
const statusSchema = v.object({
  state: v.picklist(['whole', 'lost', 'gone']),
  usedBytes: v.optional(v.number()),
  totalBytes: v.optional(v.number()),
});
const extendSchema = v.object({ extended: v.boolean() });

export class ExternalProvider implements Provider {
  readonly name: string;
  readonly listsAll = false;
  readonly #path: string;
  readonly #unsafe: string | undefined;

  /** `unsafe`: why root must not run it. */
  constructor(name: string, path: string, unsafe: string | undefined) {
    this.name = name;
    this.#path = path;
    this.#unsafe = unsafe;
  }

  async probe(volume: Volume): Promise<Probe> {
    if (this.#unsafe !== undefined) return { fits: false, reason: `${this.name}: ${this.#unsafe}` };
    try {
      const { exitCode, stdout, stderr } = await this.#run('probe', factsOf(volume));
      if (exitCode === 0) return { fits: true, ...this.#parse('probe', probeSchema, stdout) };
      const said = firstLine(stderr);
      return { fits: false, reason: `${this.name}: ${exitCode === NOT_MINE ? said || 'not its kind' : said}` };
    } catch (error) {
      return { fits: false, reason: describeError(error) };
    }
  }

  async plan(run: string, volumes: readonly Volume[], { size }: SizeWish): Promise<readonly Snapshot[]> {
    return await Promise.all(
      volumes.map(async (volume) => {
        const facts = { run, ...factsOf(volume), ...size };
        const { underFreeze } = this.#parse('probe', probeSchema, await this.#must('probe', facts));
        const planned = this.#parse('plan', planSchema, await this.#must('plan', facts));
        return new ExternalSnapshot(
          this.name,
          { volume, underFreeze, ...planned, facts: { ...facts, name: planned.name } },
          {
            path: this.#path,
            ask: async (verb, schema, given) => this.#parse(verb, schema, await this.#must(verb, given)),
          },
        );
      }),
    );
  }

  async made(): Promise<readonly Made[]> {
    return await Promise.resolve([]);
  }

  async removeLeft({ run, name }: Made): Promise<void> {
    if (this.#unsafe !== undefined) throw new CutError('E_PROVIDER', `${this.name} is not run: ${this.#unsafe}`);
    await this.#must('remove', { run, name });
  }

  async close(): Promise<void> {
    await Promise.resolve();
  }

  async #run(verb: string, facts: object) {
    return await runProgram([this.#path, verb], `${JSON.stringify(facts)}\n`);
  }

  async #must(verb: string, facts: object): Promise<string> {
    const { exitCode, stdout, stderr } = await this.#run(verb, facts);
    if (exitCode === 0) return stdout;
    throw new CutError('E_PROVIDER', `${this.#path} ${verb}: exit code ${exitCode}: ${firstLine(stderr)}`);
  }

  #parse<T>(verb: string, schema: v.GenericSchema<unknown, T>, text: string): T {
    const result = v.safeParse(v.pipe(v.string(), v.parseJson(), schema), text);
    if (result.success) return result.output;
    throw new CutError('E_PROVIDER', `${this.#path} ${verb}: not the answer expected: ${result.issues[0].message}`);
  }
}

interface ExternalParts {
  readonly volume: Volume;
  readonly underFreeze: boolean;
  readonly name: string;
  readonly cowBytes?: number | undefined;
  readonly facts: object;
}

interface Asking {
  readonly path: string;
  readonly ask: <T>(verb: string, schema: v.GenericSchema<unknown, T>, facts: object) => Promise<T>;
}

class ExternalSnapshot implements Snapshot {
  readonly provider: string;
  readonly volume: Volume;
  readonly name: string;
  readonly underFreeze: boolean;
  readonly waitsForUdev = true;
  readonly cowBytes?: number;
  readonly #facts: object;
  readonly #asking: Asking;
  #taking: Taking | undefined;

  constructor(provider: string, { volume, underFreeze, name, cowBytes, facts }: ExternalParts, asking: Asking) {
    this.provider = provider;
    this.volume = volume;
    this.underFreeze = underFreeze;
    this.name = name;
    if (cowBytes !== undefined) this.cowBytes = cowBytes;
    this.#facts = facts;
    this.#asking = asking;
  }

  async arm(): Promise<void> {
    this.#taking = new Taking(this.#asking.path);
    await this.#taking.say(JSON.stringify(this.#facts), 'ready');
  }

  get worker(): ProcessId | undefined {
    return this.#taking?.process;
  }

  async cut(): Promise<void> {
    if (this.#taking === undefined) throw new CutError('E_CUT', `${this.name} was not armed`);
    await this.#taking.say('take', 'taken');
  }

  async disarm(limitMs: number): Promise<boolean> {
    return (await this.#taking?.end(limitMs)) ?? true;
  }

  async mount(): Promise<MountSpec> {
    return await this.#asking.ask('mount', mountSchema, this.#facts);
  }

  async status(): Promise<SnapshotStatus> {
    const { state, usedBytes, totalBytes } = await this.#asking.ask('status', statusSchema, this.#facts);
    return {
      state,
      ...(usedBytes === undefined ? {} : { usedBytes }),
      ...(totalBytes === undefined ? {} : { totalBytes }),
    };
  }

  async extend(): Promise<boolean> {
    return (await this.#asking.ask('extend', extendSchema, this.#facts)).extended;
  }

  async remove(): Promise<void> {
    await this.disarm(TAKE_LIMIT_MS);
    await this.#asking.ask('remove', v.object({}), this.#facts);
  }
}

/** `PROGRAM take`, asked line by line. */
class Taking {
  readonly process: ProcessId;
  readonly #child;
  readonly #path: string;
  #said = '';
  #errors = '';
  #isOver = false;
  #onChange: () => void = () => undefined;

  constructor(path: string) {
    this.#path = path;
    this.#child = execa(path, ['take'], {
      stdin: 'pipe',
      env: { LC_ALL: 'C', PATH: SEARCH_PATH },
      buffer: false,
      reject: false,
      detached: true,
      cleanup: false,
    });
    this.process = processNote(this.#child.pid ?? 0);
    this.#child.stdin.on('error', () => undefined);
    this.#child.stdout.on('data', (data: Buffer) => {
      this.#said = (this.#said + data.toString()).slice(-1_000);
      this.#onChange();
    });
    this.#child.stderr.on('data', (data: Buffer) => {
      this.#errors = (this.#errors + data.toString()).slice(0, 1_000);
    });
    void this.#child.then(() => {
      this.#isOver = true;
      this.#onChange();
    });
  }

  /** One line to it; waits for the one that is its answer. Throws a CutError if it ends or says another, or nothing. */
  async say(line: string, answer: string): Promise<void> {
    const answered = new Promise<void>((resolve, reject) => {
      this.#onChange = () => {
        const [said, ...more] = this.#said.split('\n');
        if (more.length > 0 && said === answer) {
          this.#said = more.join('\n');
          resolve();
        } else if (more.length > 0 || this.#isOver) {
          const found = more.length > 0 ? `'${said ?? ''}'` : `its end: ${firstLine(this.#errors)}`;
          reject(new CutError('E_CUT', `${this.#path} take: expected '${answer}', found ${found}`));
        }
      };
    });
    this.#onChange();
    this.#child.stdin.write(`${line}\n`);
    await withLimit(`${this.#path} take`, TAKE_LIMIT_MS, answered, 'unknown');
  }

  /** Gives whether it has ended within `limitMs`. It is never broken off, and then keeps nobody waiting. */
  async end(limitMs: number): Promise<boolean> {
    this.#child.stdin.end();
    return (await endedWithin(limitMs, this.#child)) !== undefined;
  }
}

function factsOf({ mountpoint, device, source, type, readOnly }: Volume): object {
  return { mountpoint, device, source, type, readOnly };
}

function firstLine(text: string): string {
  return text.trim().split('\n')[0] ?? '';
}
