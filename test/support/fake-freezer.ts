// A freezer that freezes nothing: speaks the protocol of qga/freezer/README.md on a unix socket in this process, with
// the answers that a test gives it. It keeps the state, the lease and the lock as the real one does.
import { createServer, type Server, type Socket } from 'node:net';
import { freezerText, freezerWord } from '../../src/freeze/freezer/lines.js';

export interface FakeFreezerOptions {
  /** The errno of an open, by mount point; likewise those of syncfs, FIFREEZE and FITHAW below. */
  readonly openErrno?: Readonly<Record<string, number>>;
  readonly syncErrno?: Readonly<Record<string, number>>;
  /** The first sync of it returns, slowly; what it answers to the second, which had not by its budget: told with the freeze. */
  readonly lateSyncErrno?: Readonly<Record<string, number>>;
  /** Mount points whose sync never returns; later sessions are refused them. */
  readonly syncHangs?: readonly string[];
  readonly freezeErrno?: Readonly<Record<string, number>>;
  readonly thawErrno?: Readonly<Record<string, number>>;
  /** How long FIFREEZE and sync take. */
  readonly freezeMs?: number;
  readonly syncMs?: number;
  /** The pid that hello tells; by default one that is nobody's, which nobody may kill. */
  readonly identity?: { readonly pid: number; readonly startTime: string };
  /** Called with each request line, and `FIFREEZE PATH`, `FITHAW PATH` as they happen. */
  readonly log?: (line: string) => void;
  /** `error thaw` this often before it is done. */
  readonly lateThaws?: number;
  /** It dies right after having said so. */
  readonly diesAtLateThaw?: boolean;
  /** Mount points whose FIFREEZE never returns. */
  readonly hangs?: readonly string[];
  /** Mount points whose FITHAW never returns: `error thaw` at first, and given up when it is asked again. */
  readonly givesUpThaw?: readonly string[];
  /** Mount points whose FIFREEZE has not returned within the limit, and does right after; one that `hangs` never does. */
  readonly late?: readonly string[];
  /** The answer to a freeze comes, as if all were well, when the thaw is asked for, before its own. */
  readonly answersFreezeLate?: boolean;
}

interface FakeFilesystem {
  readonly group: number;
  readonly path: string;
  frozen: boolean;
}

const now = (): bigint => process.hrtime.bigint();
const ns = (ms: number): bigint => BigInt(Math.round(ms * 1e6));

export class FakeFreezer {
  readonly #options: FakeFreezerOptions;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #holder: Socket | undefined;
  #session = '';
  #owner = '';
  #state = 'idle';
  #since = 0n;
  #first = 0n;
  #deadline = 0n;
  #leaseMaxMs = 0;
  #expired = false;
  #criticalUntil = 0n;
  #asked: 'sync' | 'freeze' | undefined;
  #filesystems: FakeFilesystem[] = [];
  #lease: NodeJS.Timeout | undefined;
  #work: NodeJS.Timeout | undefined;
  #late: number;
  #syncs = 0;
  #thawAsked = false;
  #gaveUp = false;
  readonly #hung = new Map<string, string>();
  /** From now on it answers nothing and does nothing. */
  silent = false;
  /** Most connections at a time so far. */
  mostConnections = 0;

  private constructor(options: FakeFreezerOptions) {
    this.#options = options;
    this.#late = options.lateThaws ?? 0;
    this.#server = createServer((socket) => {
      this.#serve(socket);
    });
  }

  static async listen(path: string, options: FakeFreezerOptions = {}): Promise<FakeFreezer> {
    const freezer = new FakeFreezer(options);
    await new Promise<void>((resolve, reject) => {
      freezer.#server.once('error', reject);
      freezer.#server.listen(path, () => {
        resolve();
      });
    });
    return freezer;
  }

  get frozen(): string[] {
    return this.#filesystems.filter(({ frozen }) => frozen).map(({ path }) => path);
  }

  get state(): string {
    return this.#state;
  }

  /** As a SIGKILL would: connections end, what is frozen stays frozen. */
  die(): void {
    clearTimeout(this.#lease);
    clearTimeout(this.#work);
    this.silent = true;
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }

  async close(): Promise<void> {
    this.die();
    await new Promise((resolve) => setImmediate(resolve));
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    this.mostConnections = Math.max(this.mostConnections, this.#sockets.size);
    let rest = '';
    socket.setEncoding('latin1');
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#sockets.delete(socket);
      if (this.#holder === socket && !this.silent) this.#release();
    });
    socket.on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) if (!this.silent) this.#request(socket, line);
    });
  }

  #request(socket: Socket, line: string): void {
    this.#log(line);
    const [verb = '', ...words] = line.split(' ');
    const say = (answer: string): void => {
      if (!this.silent) socket.write(`${answer}\n`);
    };
    if (verb === 'hello') {
      const { pid, startTime } = this.#options.identity ?? { pid: 999_999_999, startTime: '1' };
      say(`ok hello 1 ${pid} ${startTime}`);
      return;
    }
    if (verb === 'status') {
      const deadline = this.#first === 0n ? 0n : this.#deadline;
      say(
        `ok status ${this.#state} ${freezerWord(this.#session)} ${freezerWord(this.#owner)} ${this.#since} ${this.#first} ${deadline} ${this.frozen.length}`,
      );
      return;
    }
    if (verb === 'hung') {
      for (const [path, session] of this.#hung) say(`hung sync ${now()} ${freezerWord(session)} ${freezerWord(path)}`);
      say('ok hung');
      return;
    }
    const holds = this.#holder === socket;
    if (holds && this.#expired && verb !== 'thaw' && !(verb === 'critical' && words[0] === 'off')) {
      say('error expired the\\040lease\\040ended');
      return;
    }
    if (verb === 'plan') {
      if (this.#holder !== undefined) {
        if (holds) say('error state already');
        else
          say(`error busy ${freezerWord(this.#owner)} ${this.#since} ${this.#first === 0n ? 0n : this.#deadline} held`);
        return;
      }
      const [session = '', owner = '', leaseMax = '0'] = words;
      this.#holder = socket;
      this.#session = freezerText(session);
      this.#owner = freezerText(owner);
      this.#leaseMaxMs = Number(leaseMax);
      this.#since = now();
      this.#state = 'planned';
      this.#syncs = 0;
      say('ok plan');
      return;
    }
    if (!holds) {
      say('error state no\\040session');
      return;
    }
    this.#held(verb, words, say);
  }

  #held(verb: string, words: readonly string[], say: (answer: string) => void): void {
    switch (verb) {
      case 'fs': {
        const [group = '0', , , path = ''] = words;
        const name = freezerText(path);
        const errno = this.#options.openErrno?.[name];
        if (this.#hung.has(name)) say('error fs 16 fs:\\040given\\040up');
        else if (errno !== undefined) say(`error fs ${errno} not\\040opened`);
        else {
          this.#filesystems.push({ group: Number(group), path: name, frozen: false });
          say(`ok fs ${this.#filesystems.length - 1}`);
        }
        return;
      }
      case 'sync':
        this.#asked = 'sync';
        this.#later(this.#options.syncMs ?? 1, () => {
          this.#asked = undefined;
          const { syncErrno, lateSyncErrno, syncHangs } = this.#options;
          this.#filesystems.forEach(({ path }, index) => {
            const isLate = lateSyncErrno?.[path] !== undefined;
            if (syncHangs?.includes(path) === true) this.#hung.set(path, this.#session);
            if (this.#hung.has(path) || (isLate && this.#syncs > 0)) say(`fs ${index} sync 110 ${now() - 1000n} 0`);
            else say(`fs ${index} sync ${syncErrno?.[path] ?? 0} ${now() - (isLate ? ns(500) : 1000n)} ${now()}`);
          });
          this.#syncs++;
          say('ok sync');
        });
        return;
      case 'freeze':
        this.#freeze(Number(words[0]), Number(words[1]), say);
        return;
      case 'renew': {
        if (this.#state !== 'frozen') {
          say(`error state ${this.#state}`);
          return;
        }
        const longest = this.#first + ns(this.#leaseMaxMs);
        const asked = now() + ns(Number(words[0]));
        this.#deadline = asked < longest ? asked : longest;
        this.#armLease();
        say(`ok renew ${this.#deadline}`);
        return;
      }
      case 'critical':
        this.#criticalUntil = words[0] === 'on' ? now() + ns(Number(words[1])) : 0n;
        if (this.#expired && this.#criticalUntil === 0n) this.#thawExpired();
        say('ok critical');
        return;
      case 'thaw':
        this.#thaw(say);
        return;
      default:
        say('error syntax unknown');
    }
  }

  #freeze(leaseMs: number, limitMs: number, say: (answer: string) => void): void {
    if (this.#filesystems.length === 0) {
      say('error state nothing\\040planned');
      return;
    }
    this.#state = 'freezing';
    this.#asked = 'freeze';
    this.#first = now();
    this.#deadline = this.#first + ns(leaseMs);
    this.#armLease();
    const inOrder = [...this.#filesystems].sort((a, b) => a.group - b.group);
    for (const filesystem of inOrder) {
      this.#log(`FIFREEZE ${filesystem.path}`);
      filesystem.frozen = (this.#options.freezeErrno?.[filesystem.path] ?? 0) === 0;
    }
    if (this.#options.answersFreezeLate === true) return;
    const late = this.frozen.filter((path) => this.#options.late?.includes(path) === true);
    if (late.length > 0) {
      this.#later(limitMs, () => {
        this.#asked = undefined;
        this.#gaveUp = true;
        this.#state = 'thawing';
        clearTimeout(this.#lease);
        this.#filesystems.forEach(({ path }, index) => {
          say(`fs ${index} freeze ${late.includes(path) ? `110 ${this.#first} 0` : `0 ${this.#first} ${now()}`}`);
        });
        say(`error freeze ${freezerWord(`freeze: not frozen within ${limitMs} ms, given up: ${late.join(', ')}`)}`);
      });
      return;
    }
    this.#later(this.#options.freezeMs ?? 1, () => {
      this.#asked = undefined;
      this.#state = 'frozen';
      this.#filesystems.forEach((filesystem, index) => {
        const lateSync = this.#options.lateSyncErrno?.[filesystem.path];
        if (lateSync !== undefined) say(`fs ${index} sync ${lateSync} ${this.#first} ${now()}`);
        say(`fs ${index} freeze ${this.#options.freezeErrno?.[filesystem.path] ?? 0} ${this.#first} ${now()}`);
      });
      say(`ok freeze ${this.frozen.length} ${this.#first} ${this.#deadline}`);
    });
  }

  #thaw(say: (answer: string) => void): void {
    if (this.#options.answersFreezeLate === true) {
      this.#asked = undefined;
      say(`ok freeze ${this.frozen.length} ${this.#first} ${this.#deadline}`);
    }
    if (this.#asked !== undefined) say(`error state ${this.#asked}:\\040ended\\040by\\040thaw`);
    this.#asked = undefined;
    clearTimeout(this.#work);
    if (this.#state === 'planned') {
      this.#release();
      say('ok thaw');
      return;
    }
    if (this.#expired) {
      if (this.frozen.length > 0) this.#thawExpired();
      say('error expired the\\040lease\\040ended');
      this.#release();
      return;
    }
    clearTimeout(this.#lease);
    this.#state = 'thawing';
    if (this.#late > 0) {
      this.#late--;
      say('error thaw not\\040all\\040is\\040thawed');
      if (this.#options.diesAtLateThaw === true) {
        setImmediate(() => {
          this.die();
        });
      }
      return;
    }
    const lines = this.#thawLines();
    for (const line of lines) say(line);
    if (this.#options.givesUpThaw !== undefined) {
      say(this.#thawAsked ? `ok thaw ${this.#options.givesUpThaw.length}` : 'error thaw not\\040all\\040is\\040thawed');
      if (this.#thawAsked) this.#release();
      this.#thawAsked = true;
      return;
    }
    const hung = lines.filter((line) => line.includes(' thaw 110 '));
    if (hung.length > 0 && this.#gaveUp) {
      say(`ok thaw ${hung.length}`);
      this.#release();
      return;
    }
    if (hung.length > 0) {
      say('error thaw not\\040all\\040is\\040thawed');
      return;
    }
    say('ok thaw');
    this.#release();
  }

  #thawLines(): string[] {
    return this.#filesystems.map((filesystem, index) => {
      if (this.#options.hangs?.includes(filesystem.path) === true) return `fs ${index} thaw 110 0 0 0`;
      if (this.#options.givesUpThaw?.includes(filesystem.path) === true) return `fs ${index} thaw 110 ${now()} 0 1`;
      const ours = filesystem.frozen;
      if (ours) this.#log(`FITHAW ${filesystem.path}`);
      filesystem.frozen = false;
      const errno = ours ? (this.#options.thawErrno?.[filesystem.path] ?? 0) : 0;
      return `fs ${index} thaw ${errno} ${now() - 1000n} ${now()} ${ours ? 1 : 0}`;
    });
  }

  #armLease(): void {
    clearTimeout(this.#lease);
    this.#lease = setTimeout(
      () => {
        this.#expire();
      },
      Number(this.#deadline - now()) / 1e6,
    );
  }

  #expire(): void {
    if (this.silent) return;
    this.#expired = true;
    this.#holder?.write(`event expired ${this.#first} ${now()}\n`);
    if (now() >= this.#criticalUntil) this.#thawExpired();
  }

  #thawExpired(): void {
    this.#state = 'thawing';
    const lines = this.#thawLines();
    this.#holder?.write([...lines, 'event thawed expired', ''].join('\n'));
  }

  #release(): void {
    clearTimeout(this.#lease);
    clearTimeout(this.#work);
    for (const { frozen, path } of this.#filesystems) if (frozen) this.#log(`FITHAW ${path}`);
    this.#filesystems = [];
    this.#holder = undefined;
    this.#state = 'idle';
    this.#session = this.#owner = '';
    this.#first = this.#deadline = 0n;
    this.#expired = this.#gaveUp = false;
    this.#asked = undefined;
  }

  #later(ms: number, act: () => void): void {
    this.#work = setTimeout(() => {
      if (!this.silent) act();
    }, ms);
  }

  #log(line: string): void {
    this.#options.log?.(line);
  }
}
