// What the parts of `recover` share while one VM is recovered: the VM's monitors and sets, what was found, and how a
// finding becomes a repair. The parts are recover-guest.ts, recover-sets.ts and recover-strays.ts.
import { ThawUnconfirmedError, describeError } from '../../errors.js';
import type { Finding, FindingStatus, NewFinding } from './finding.js';
import type { AgentLimits, OpenGuestAgent } from '../guest/guest-agent.js';
import type { Hypervisor } from '../vm/hypervisor.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import type { RecoverableVm } from './recover-targets.js';

interface RecoverLimits {
  readonly monitorTimeoutMs: number;
  /** How long to wait while another process works on the VM. */
  readonly lockWaitMs: number;
  readonly agentLimits: AgentLimits;
  /** How long each disk may take of a commit that is taken up again. */
  readonly commitMs: number;
}

export interface RecoverOptions {
  readonly vm: RecoverableVm;
  readonly stateDir: string;
  readonly limits: RecoverLimits;
  readonly openAgent: OpenGuestAgent;
  readonly dryRun: boolean;
  readonly signal: AbortSignal;
  readonly onProgress: (text: string) => void;
  /** The command line of this program for the VM: `fsfreeze-bridge WORDS --vm NAME ...`. */
  readonly command: (...words: readonly string[]) => string;
}

export class RecoveryRun {
  readonly options: RecoverOptions;
  readonly store: ManifestStore;
  /** The VM's monitors that answer; empty if it is shut off. */
  readonly monitors: readonly Hypervisor[];
  readonly findings: Finding[] = [];
  /** Sets that somebody is working on now. */
  readonly busy = new Set<string>();
  /** Sets whose guest is not known to be thawed. */
  readonly held = new Set<string>();
  /** False only if the VM is known to be shut off. */
  readonly isRunning: boolean;

  constructor(options: RecoverOptions, store: ManifestStore, monitors: readonly Hypervisor[], isRunning: boolean) {
    this.options = options;
    this.store = store;
    this.monitors = monitors;
    this.isRunning = isRunning;
  }

  note(status: FindingStatus, finding: NewFinding): void {
    this.findings.push({ commands: [], ...finding, vm: this.options.vm.name, status });
  }

  /**
   * Puts right what was found, unless this is a dry run. Gives whether it is put right. `work` may say what it did instead
   * of `did`; it throws if it must not go on, which is told of with `commands`. When interrupted, nothing is begun, and the
   * signal's reason is thrown.
   */
  async repair(finding: NewFinding, work: () => Promise<string | undefined>): Promise<boolean> {
    if (this.options.dryRun) {
      this.note('planned', finding);
      return false;
    }
    this.options.signal.throwIfAborted();
    try {
      const did = (await work()) ?? finding.did;
      this.note('done', { ...finding, did, commands: [] });
      return true;
    } catch (error) {
      const thawUnconfirmed = error instanceof ThawUnconfirmedError;
      this.note('failed', { ...finding, did: describeError(error), ...(thawUnconfirmed ? { thawUnconfirmed } : {}) });
      this.options.signal.throwIfAborted();
      return false;
    }
  }
}
