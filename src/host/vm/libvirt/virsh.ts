// Runs virsh's commands for one domain, and reads what its words mean, here and nowhere else: there is no usable
// binding for Node, and libvirt's error codes do not reach virsh's output. The words are English whatever the locale.
import { DeadlineError, BridgeError, UnreachableError, UsageError, type Outcome } from '../../../errors.js';
import type { LibvirtAddress } from './address.js';
import { VirshEnded, VirshShell } from './virsh-shell.js';

/** libvirt said no, in its own words. */
export class VirshError extends BridgeError {
  /** Without virsh's `error: ` before each line. */
  readonly reason: string;

  constructor(where: string, command: string, reason: string, outcome: Outcome) {
    super('E_LIBVIRT', `${where}, virsh ${command}: ${reason}`, { outcome });
    this.reason = reason;
  }
}

/** virsh's words after which nobody knows what libvirt did, or still does. */
const isLost = /Disconnected from|Reconnected to|client socket is closed|End of file|Connection reset|Broken pipe/i;
const isNotThere = /failed to connect to the hypervisor|no connection driver available/i;
const isUnknown = /failed to get domain|Domain not found/i;
const isNotRunning = /domain is not running/i;
/** The words before the guest's own text, which must not be taken for libvirt's. */
const isOfGuest = /^internal error: unable to execute QEMU agent command/;

/** Not one of the short names that libvirt.conf may give to them. */
const isUri = (text: string | undefined): text is string => text?.includes('://') === true;

/** Asks one thing after the other: what may have to wait has a Virsh of its own. */
export class Virsh implements AsyncDisposable {
  /** For messages. */
  readonly where: string;
  readonly domain: string;
  readonly #uri: string | undefined;
  #shell: VirshShell | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  constructor({ domain, uri }: LibvirtAddress) {
    this.domain = domain;
    this.where = `libvirt domain ${domain}`;
    this.#uri = uri;
  }

  /**
   * `virsh COMMAND DOMAIN WORDS`; what it prints. Throws a UsageError if there is no virsh, an UnreachableError if libvirt
   * does not answer, has no such domain or has it shut off (code `E_MONITOR` for these two), a DeadlineError of outcome
   * 'unknown' (libvirt may go on), else a VirshError. The limit begins when its turn comes.
   */
  async run(command: string, words: readonly string[], timeoutMs: number): Promise<string> {
    return await this.#inTurn(command, ['--domain', this.domain, ...words], timeoutMs);
  }

  /** Where libvirt is, as it is told, or as virsh chose. Throws what `run` does. */
  async uri(timeoutMs: number): Promise<string> {
    return isUri(this.#uri) ? this.#uri : (await this.#inTurn('uri', [], timeoutMs)).trim();
  }

  async #inTurn(command: string, words: readonly string[], timeoutMs: number): Promise<string> {
    const work = this.#turn.then(() => this.#ask(command, words, timeoutMs));
    this.#turn = work.catch(() => undefined);
    return await work;
  }

  async #ask(command: string, words: readonly string[], timeoutMs: number): Promise<string> {
    if (this.#shell === undefined || this.#shell.ended) this.#shell = new VirshShell(this.#uri);
    let text: string;
    try {
      text = await this.#shell.run([command, ...words], timeoutMs);
    } catch (error) {
      this.#forget();
      if (error instanceof VirshEnded) throw this.#failure(command, error.words, 'unknown');
      if (!(error instanceof DeadlineError)) throw error;
      throw new DeadlineError(`${this.where}, virsh ${command}`, timeoutMs, { outcome: 'unknown' });
    }
    const complaints = text.split('\n').filter((line) => line.startsWith('error: '));
    if (complaints.length === 0) return text;
    const reason = complaints.map((line) => line.slice('error: '.length).trim()).join('; ');
    if (isOfGuest.test(reason)) throw new VirshError(this.where, command, reason, 'none');
    const wasLost = isLost.test(reason);
    if (wasLost) this.#forget();
    throw this.#failure(command, reason, wasLost ? 'unknown' : 'none');
  }

  /** Ends what is under way, too. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#forget();
    return Promise.resolve();
  }

  #forget(): void {
    this.#shell?.close();
    this.#shell = undefined;
  }

  #failure(command: string, reason: string, outcome: Outcome): BridgeError {
    const domain = `domain ${JSON.stringify(this.domain)}`;
    const at = this.#uri === undefined ? '' : ` at ${this.#uri}`;
    if (/virsh: not found/.test(reason)) {
      return new UsageError('E_VIRSH', 'virsh is not installed (Debian: libvirt-clients)');
    }
    if (isNotThere.test(reason))
      return new UnreachableError('E_LIBVIRT', `libvirt does not answer${at}: ${reason.replace(/^error: /gm, '')}`);
    // A transient domain is gone when it is shut off.
    if (isUnknown.test(reason)) return new UnreachableError('E_MONITOR', `libvirt has no ${domain}${at}`);
    if (isNotRunning.test(reason)) return new UnreachableError('E_MONITOR', `${domain} is shut off`);
    return new VirshError(this.where, command, reason, outcome);
  }
}
