// A guest agent on a unix socket that speaks bridge-* as ours does, or guest-fsfreeze-* alone as qemu-ga does, and holds
// nothing: the host tool is tested against it where there is no guest. It can be told to misbehave. It logs each command
// and when it came.
import { createServer, type Server, type Socket } from 'node:net';
import { defined } from '../../src/defined.js';
import type { FreezeReport } from '../../src/consistency.js';
import { freezeReport } from './freeze-reports.js';

/**
 * answers      as it should
 * silent       accepts and says nothing
 * loses-freeze freezes, and never answers that
 * refuses      no freeze: a required writer failed
 * hangs        a freeze that never comes to an end (and is not frozen)
 * busy         somebody else holds the guest
 * expires      thaws itself before it is told to
 * keeps-frozen will not thaw
 * gives-up     ends the session without a confirmed thaw: idle, but it owes that error
 */
export type AgentMood =
  'answers' | 'silent' | 'loses-freeze' | 'refuses' | 'hangs' | 'busy' | 'expires' | 'keeps-frozen' | 'gives-up';

interface Request {
  readonly execute: string;
  readonly arguments?: Record<string, unknown>;
  readonly id?: unknown;
}

export class FakeAgent implements AsyncDisposable {
  readonly path: string;
  mood: AgentMood = 'answers';
  /** `stock`: a qemu-ga, with a filesystem on each disk of `stockSerials`. */
  kind: 'bridge' | 'stock' = 'bridge';
  stockSerials: readonly string[] = [];
  /** More of its filesystems, on disks by serial, that no kernel can freeze. */
  unfreezable: readonly { readonly serial: string; readonly mountpoint: string; readonly type: string }[] = [];
  version = '0.1.0-fake';
  /** The UUID that its guest reads in /sys/class/dmi/id/product_uuid. Without one its commands for files are switched off. */
  productUuid: string | undefined;
  writers: readonly object[] = [];
  /** What it answers to bridge-complete; an Error refuses it. Without it the command is unknown, as to older agents. */
  completion: { readonly writers: readonly object[] } | Error | undefined;
  /** Why it refuses, when it does. */
  refusal = 'writer 50-db failed: \u001b[2Jno';
  /** Its report of a freeze that went well; state, session and requester are filled in. */
  report: FreezeReport = freezeReport();
  /** CLOCK_MONOTONIC milliseconds of each command. */
  readonly log: { readonly command: string; readonly atMs: number; readonly args: Record<string, unknown> }[] = [];
  /** Runs while the guest is held, before the freeze is answered. */
  onFreeze: () => Promise<void> | void = () => undefined;
  /** Runs before a thaw is looked at. */
  onThaw: () => Promise<void> | void = () => undefined;
  #held: { readonly session: string; readonly requester: string } | undefined;
  #last: FreezeReport | undefined;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(path: string) {
    this.path = path;
    this.#server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => this.#sockets.delete(socket));
      let pending = '';
      // latin1: 0xFF, which begins a sync, is no UTF-8.
      socket.on('data', (chunk) => {
        pending += chunk.toString('latin1');
        for (let end = pending.indexOf('\n'); end >= 0; end = pending.indexOf('\n')) {
          const line = pending.slice(0, end).replaceAll('\u00ff', '').trim();
          pending = pending.slice(end + 1);
          if (line !== '') void this.#serve(socket, line);
        }
      });
    });
  }

  static async listen(path: string): Promise<FakeAgent> {
    const agent = new FakeAgent(path);
    await new Promise<void>((resolve, reject) => {
      agent.#server.once('error', reject);
      agent.#server.listen(path, resolve);
    });
    return agent;
  }

  get frozen(): boolean {
    return this.#held !== undefined;
  }

  /** Clients connected now. */
  get clients(): number {
    return this.#sockets.size;
  }

  get commands(): string[] {
    return this.log.map(({ command }) => command);
  }

  /** As a libvirt does that gives up waiting, and never thaws. */
  freezeBehindOurBack(): void {
    this.#held = { session: 'foreign', requester: 'somebody' };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
    });
  }

  async #serve(socket: Socket, line: string): Promise<void> {
    if (this.mood === 'silent') return;
    // A 64-bit sync id would lose its last digits in a JavaScript number.
    const sync = /"id"\s*:\s*(\d+)/.exec(line)?.[1];
    const request = JSON.parse(line) as Request;
    this.log.push({
      command: request.execute,
      atMs: Number(process.hrtime.bigint() / 1000n) / 1000,
      args: request.arguments ?? {},
    });
    if (request.execute === 'guest-sync-delimited') {
      socket.write(Buffer.concat([Buffer.from([0xff]), Buffer.from(`{"return": ${sync ?? '0'}}\n`)]));
      return;
    }
    let reply: object | undefined;
    try {
      const { execute } = request;
      const isPlain = this.kind === 'stock';
      if (execute === 'bridge-thaw' || (isPlain && execute === 'guest-fsfreeze-thaw')) await this.onThaw();
      const result = this.#answerForFiles(execute) ?? (isPlain ? this.#answerAsStock(execute) : this.#answer(request));
      if (execute === 'bridge-freeze' || (isPlain && execute === 'guest-fsfreeze-freeze')) await this.onFreeze();
      reply = result === undefined ? undefined : { return: result, id: request.id };
    } catch (error) {
      reply = { error: { class: 'GenericError', desc: (error as Error).message }, id: request.id };
    }
    if (reply !== undefined) socket.write(`${JSON.stringify(reply)}\n`);
  }

  #answerForFiles(execute: string): object | number | undefined {
    if (this.productUuid === undefined || !execute.startsWith('guest-file-')) return undefined;
    if (execute === 'guest-file-open') return 1000;
    if (execute === 'guest-file-close') return {};
    const text = `${this.productUuid}\n`;
    return { count: text.length, 'buf-b64': Buffer.from(text).toString('base64'), eof: true };
  }

  #answerAsStock(execute: string): object | number | string | undefined {
    const { length } = this.stockSerials;
    switch (execute) {
      case 'guest-info':
        return {
          version: '7.2.22',
          supported_commands: [{ name: 'guest-fsfreeze-freeze', enabled: true, 'success-response': true }],
        };
      case 'guest-fsfreeze-status':
        return this.frozen ? 'frozen' : 'thawed';
      case 'guest-get-fsinfo':
        return [
          ...this.stockSerials.map((serial) => ({ serial, mountpoint: `/${serial}`, type: 'ext4' })),
          ...this.unfreezable,
        ].map(({ serial, mountpoint, type }, index) => ({
          name: `vd${index}`,
          mountpoint,
          type,
          disk: [
            {
              'pci-controller': { domain: -1, bus: -1, slot: -1, function: -1 },
              'bus-type': 'virtio',
              bus: 0,
              target: 0,
              unit: 0,
              serial,
            },
          ],
        }));
      case 'guest-fsfreeze-freeze':
        if (this.mood === 'hangs') return undefined;
        this.#held = { session: 'stock', requester: 'stock' };
        return this.mood === 'loses-freeze' ? undefined : length;
      case 'guest-fsfreeze-thaw': {
        if (this.mood === 'keeps-frozen') throw new Error('the disk does not answer');
        const count = this.frozen ? length : 0;
        this.#held = undefined;
        return count;
      }
      default:
        throw new Error(`The command ${execute} has not been found`);
    }
  }

  #answer({ execute, arguments: args = {} }: Request): object | number | undefined {
    switch (execute) {
      case 'guest-info':
        return {
          version: this.version,
          supported_commands: ['bridge-freeze', ...(this.completion === undefined ? [] : ['bridge-complete'])].map(
            (name) => ({ name, enabled: true, 'success-response': true }),
          ),
        };
      case 'bridge-complete':
        if (this.completion instanceof Error) throw this.completion;
        return { completion: { session: args['session'], outcome: args['outcome'], ...this.completion } };
      case 'bridge-status':
        return { status: this.#status(), ...defined({ report: this.#last }) };
      case 'bridge-freeze':
        return this.#freeze(String(args['session']), String(args['requester']));
      case 'bridge-renew':
        return { 'remaining-ms': Number(args['lease-ms']) };
      case 'bridge-thaw':
        return { report: this.#thaw(String(args['session'])) };
      case 'guest-fsfreeze-thaw':
        return this.#thawAny();
      case 'bridge-writers':
        return { writers: this.writers };
      default:
        throw new Error(`The command ${execute} has not been found`);
    }
  }

  #status(): object {
    if (this.mood === 'busy') return { state: 'frozen', session: 'theirs', requester: 'a backup in the guest' };
    if (this.#held === undefined) return { state: 'idle' };
    return { state: 'frozen', ...this.#held, remainingMs: 1000 };
  }

  #freeze(session: string, requester: string): object | undefined {
    if (this.mood === 'hangs') return undefined;
    if (this.mood === 'refuses') {
      this.#last = {
        ...freezeReport(),
        session,
        requester,
        outcome: 'failed',
        level: 'none',
        error: this.refusal,
      };
      throw new Error(this.refusal);
    }
    this.#held = { session, requester };
    const report: FreezeReport = { ...this.report, session, requester, state: 'frozen' };
    this.#last = report;
    return this.mood === 'loses-freeze' ? undefined : { report };
  }

  #thawAny(): number {
    const count = this.#held === undefined ? 0 : 1;
    const last = this.#held === undefined ? this.#last : this.#thaw(this.#held.session);
    if (last?.state === 'frozen') throw new Error('nobody confirmed the thaw of /data');
    return count;
  }

  #thaw(session: string): FreezeReport {
    if (this.mood === 'gives-up' && this.#last?.session === session) {
      this.#held = undefined;
      this.#last = { ...this.#last, state: 'frozen', outcome: 'broken', level: 'none', error: 'thaw not confirmed' };
      return this.#last;
    }
    if (this.mood === 'keeps-frozen') throw new Error('the disk does not answer');
    if (this.#held?.session !== session) {
      if (this.#last?.session === session && this.#last.state === 'thawed') return this.#last;
      throw new Error(`session ${session} is not known`);
    }
    const requester = this.#held.requester;
    this.#held = undefined;
    const report: FreezeReport = { ...this.report, session, requester, state: 'thawed' };
    this.#last =
      this.mood === 'expires'
        ? { ...report, outcome: 'expired', level: 'crash', error: 'thawed after 10 s, before the requester asked' }
        : report;
    return this.#last;
  }
}
