// The domain of a run of `torture -- backup --libvirt`, its repository, and what is known of both. Its guest writes nothing
// while a backup begins, so that what the disks held before is what the run must hold.
import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { RunManifest } from '../../../src/host/repository/run-manifest.js';
import { bridgeResult, toolProcess } from '../../support/agent-guest.js';
import { BackedUpDomain, twoDisks } from '../../support/backed-up-domain.js';
import type { LibvirtHost } from '../../support/libvirt.js';
import type { State } from '../../support/restored-runs.js';
import type { Run } from '../../support/run-tool.js';
import { StoppingVirsh } from '../../support/stopping-virsh.js';
import type { Complaint } from '../backup/judge.js';
import { ended, type Done } from '../backup/outcome.js';
import type { DomainStrike, DrawnWrite } from './draw.js';

/** Nothing of the tool may take longer on disks of a few megabytes. */
const CALL_LIMIT_MS = 120_000;
const BEGUN_MS = 10_000;
const ORPHAN_MS = 300;

export class DomainPlace implements AsyncDisposable {
  readonly vm: BackedUpDomain;
  on = true;
  /** Snapshot sets that are there, the oldest first, with what the disks held at their cuts. */
  readonly sets: { readonly name: string; readonly state: State }[] = [];
  /** Runs that were seen to be there; forgotten since; of which a file was damaged. */
  readonly seen = new Set<string>();
  readonly forgotten = new Set<string>();
  readonly harmed = new Set<string>();
  readonly complaints: Complaint[] = [];
  readonly kinds = { full: 0, incremental: 0 };
  compared = 0;

  private constructor(vm: BackedUpDomain) {
    this.vm = vm;
  }

  static async build(host: LibvirtHost, name: string): Promise<DomainPlace> {
    return new DomainPlace(await BackedUpDomain.start(host, name, twoDisks));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.vm[Symbol.asyncDispose]();
  }

  async write({ disk, at, kilobytes }: DrawnWrite, pattern: number): Promise<void> {
    const { target, megabytes } = twoDisks[Math.floor(disk * twoDisks.length)] ?? { target: 'none', megabytes: 0 };
    await this.vm.write(target, pattern, Math.floor(at * (megabytes * 1024 - kilobytes)), kilobytes);
  }

  async start(): Promise<void> {
    if (!this.on) await this.vm.domain.virsh('start');
    this.on = true;
  }

  async stop(how: 'kill' | 'quit'): Promise<void> {
    if (this.on) await (how === 'kill' ? this.vm.kill() : this.vm.shutOff());
    this.on = false;
  }

  /** Runs the tool on the domain, and judges how it ends. */
  async call(words: readonly string[]): Promise<Run> {
    return this.#judged(words, await this.vm.domain.bridge(words, { signal: AbortSignal.timeout(CALL_LIMIT_MS) }));
  }

  async onRepository(...words: readonly string[]): Promise<Run> {
    return this.#judged(words, await this.vm.backup(...words));
  }

  #judged(words: readonly string[], run: Run): Run {
    const text = `${words.filter((word) => !word.startsWith('/')).join(' ')}: ${run.error.message}`;
    if (run.code === 1 || run.error.code === 'E_INTERNAL') this.complaints.push({ kind: 'internal error', text });
    return run;
  }

  /** Runs that are listed. */
  async listed(): Promise<string[]> {
    return existsSync(`${this.vm.repository}/repository.json`) ? await this.vm.listed() : [];
  }

  manifest(run: string): RunManifest {
    return JSON.parse(readFileSync(this.vm.stored(run, 'manifest.json'), 'utf8')) as RunManifest;
  }

  async backUp(words: readonly string[], strike?: DomainStrike, write?: () => Promise<void>): Promise<Done> {
    const before = this.vm.state();
    const call = this.vm.words(...words);
    const { run, struck } =
      strike === undefined ? { run: await this.call(call), struck: false } : await this.#strike(call, strike, write);
    const made = (await this.listed()).filter((name) => !this.seen.has(name));
    for (const name of made) {
      this.seen.add(name);
      this.vm.states.set(name, before);
      for (const { kind } of this.manifest(name).disks) this.kinds[kind]++;
    }
    if (run === undefined)
      return { outcome: struck ? 'struck' : 'done', why: made.length > 0 ? 'its run is there' : '' };
    const says = run.error.code === 'none' ? [String(run.json['run'])] : [];
    if (says.join() !== made.join()) {
      const text = `a backup told of ${says.join() || `no run (${run.error.message})`}, and ${made.join() || 'none'} is there`;
      this.complaints.push({ kind: says.length > made.length ? 'run lost' : 'wrong answer', text });
    }
    const { outcome, why } = ended(run);
    const isStruck = struck && (outcome === 'refused' || strike?.ending === 'guest writes');
    return { outcome: isStruck ? 'struck' : outcome, why };
  }

  /** The tool as users get it, and what happens to it at a line of its talk with virsh; no answer if it was killed. */
  async #strike(
    call: readonly string[],
    { ending, step }: DomainStrike,
    write: (() => Promise<void>) | undefined,
  ): Promise<{ readonly run: Run | undefined; readonly struck: boolean }> {
    const virsh = await StoppingVirsh.make(this.vm.path(`bin-${crypto.randomUUID()}`), step);
    const { domain } = this.vm;
    const earlier = await this.vm.checkpoints();
    const vm = ['--vm', `libvirt:${domain.name}`, '--connect', domain.host.uri, '--state-dir', `${domain.dir}/state`];
    const child = toolProcess([...call, ...vm], { env: virsh.environment, timeoutMs: CALL_LIMIT_MS });
    const answer = bridgeResult(child);
    let struck = await Promise.race([virsh.reached().then(() => true), answer.then(() => false)]);
    if (struck) {
      if (ending === 'guest writes') await this.#begun(earlier);
      if (ending === 'guest writes') await write?.();
      if (ending === 'tool killed') child.kill('SIGKILL');
      if (ending === 'interrupted') child.kill('SIGTERM');
      if (ending === 'QEMU killed') await this.stop('kill');
      if (ending === 'job aborted') struck = (await domain.host.virsh(['domjobabort', domain.name])).exitCode === 0;
    }
    virsh.goOn();
    const { exitCode, json } = await answer;
    const { signal, timedOut } = await child;
    if (timedOut) this.complaints.push({ kind: 'hang', text: `backup: no end within ${CALL_LIMIT_MS} ms` });
    if (signal !== undefined) {
      // What its virsh had been told is carried out without it.
      await sleep(ORPHAN_MS);
      return { run: undefined, struck };
    }
    const error = (json as { error?: Run['error'] }).error ?? { code: 'none', message: 'none' };
    const run = { code: exitCode ?? 1, json: json as Run['json'], error } as Run;
    return { run: this.#judged(call, run), struck };
  }

  /** libvirt carries out what it was told: the disks are cut when there is a checkpoint of a run that nobody has seen. */
  async #begun(earlier: readonly string[]): Promise<void> {
    const isNew = (name: string): boolean =>
      !earlier.includes(name) && ![...this.seen].some((run) => name.endsWith(run));
    const end = performance.now() + BEGUN_MS;
    while (!(await this.vm.checkpoints()).some(isNew)) {
      if (performance.now() > end) throw new Error(`libvirt began no backup within ${BEGUN_MS} ms`);
      await sleep(20);
    }
  }
}
