// Calls the guest agent of a libvirt domain. libvirt owns the connection, so commands go through it (`virsh
// qemu-agent-command`), one at a time, each with a limit. libvirt also notices when the agent closes its port, finds
// its place in the stream again after a time-out, and passes errors on as text.
import { unlessAborted } from '../../../deadline.js';
import { BridgeError, UnreachableError, type Outcome } from '../../../errors.js';
import { checkReply, type AgentCaller } from '../../../qga/client.js';
import type { ArgsInput, CommandName, Returns } from '../../../qga/commands.js';
import { RemoteError } from '../../../rpc/errors.js';
import type { CallOptions } from '../../../rpc/client.js';
import { encode } from '../../../wire/encode.js';
import type { LibvirtAddress } from './address.js';
import { Virsh, VirshError } from './virsh.js';

/** How long virsh may take past libvirt's own limit, before a virsh whose libvirtd does not answer is killed. */
const GRACE_MS = 5000;

const refused = /unable to execute QEMU agent command '[^']*': (.*)$/s;
const isUnknownCommand = /^The command \S+ has not been found|has been disabled/;
const notConfigured = /QEMU guest agent is not configured|agent is not configured/i;
const notConnected = /QEMU guest agent is not connected|agent is not connected/i;
/** libvirt's words when the agent job of the domain is taken: the command was not sent. */
const isBusy = /cannot acquire state change lock/i;
const notAnswered = /guest agent is not responding|guest agent disappeared|agent not available/i;

export class LibvirtAgent implements AgentCaller {
  readonly peer: string;
  readonly #virsh: Virsh;

  private constructor(virsh: Virsh) {
    this.#virsh = virsh;
    this.peer = `guest agent of ${virsh.where}`;
  }

  /** Connects to nothing: libvirt is asked with the first command. */
  static open(address: LibvirtAddress): LibvirtAgent {
    return new LibvirtAgent(new Virsh(address));
  }

  /**
   * Throws as QgaClient.call does: a RemoteError for what the agent refused, else `outcome` tells whether it was
   * carried out.
   */
  async call<N extends CommandName>(name: N, args: ArgsInput<N>, options: CallOptions): Promise<Returns<N>> {
    const { timeoutMs, signal } = options;
    if (signal?.aborted === true) throw this.#givenUp(name, signal, 'none');
    const seconds = Math.max(1, Math.ceil(timeoutMs / 1000));
    const words = ['--timeout', String(seconds), '--cmd', encode({ execute: name, arguments: args })];
    const work = this.#virsh.run('qemu-agent-command', words, seconds * 1000 + GRACE_MS);
    // A command that was sent cannot be taken back: libvirt sends the next one when it is answered, or has timed out.
    const givenUp = (): BridgeError => this.#givenUp(name, signal, 'unknown');
    const text = await unlessAborted(work, signal, givenUp).catch((error: unknown) => {
      throw error instanceof VirshError ? this.#meaning(error) : error;
    });
    return checkReply(this.peer, name, this.#returned(name, text));
  }

  /** Ends virsh; libvirt keeps its connection to the agent. */
  async close(): Promise<void> {
    await this.#virsh[Symbol.asyncDispose]();
  }

  #returned(name: CommandName, text: string): unknown {
    let reply: unknown;
    try {
      reply = JSON.parse(text);
    } catch {
      reply = undefined;
    }
    if (typeof reply === 'object' && reply !== null && 'return' in reply) return reply.return;
    throw new UnreachableError('E_REPLY', `${this.peer}: the answer to ${name} is none of an agent`, {
      outcome: 'unknown',
    });
  }

  #meaning(error: VirshError): Error {
    const { reason } = error;
    const desc = refused.exec(reason)?.[1];
    if (desc !== undefined)
      return new RemoteError(isUnknownCommand.test(desc) ? 'CommandNotFound' : 'GenericError', desc);
    if (notConfigured.test(reason)) {
      const hint = 'the domain has no channel org.qemu.guest_agent.0';
      return new UnreachableError('E_NO_AGENT', `${this.peer}: ${hint}`, { cause: error });
    }
    if (notConnected.test(reason)) {
      const hint = 'nobody in the guest has its channel open (is the agent running?)';
      return new UnreachableError('E_NO_AGENT', `${this.peer}: ${hint}`, { cause: error });
    }
    if (isBusy.test(reason)) {
      return new UnreachableError('E_AGENT_BUSY', `${this.peer}: another command to it is under way`, { cause: error });
    }
    if (notAnswered.test(reason)) {
      return new UnreachableError('E_AGENT_SILENT', `${this.peer} does not answer`, {
        cause: error,
        outcome: 'unknown',
      });
    }
    return error;
  }

  #givenUp(name: CommandName, signal: AbortSignal | undefined, outcome: Outcome): BridgeError {
    return new BridgeError('E_ABORTED', `${this.peer}: ${name}: given up`, { outcome, cause: signal?.reason });
  }
}
