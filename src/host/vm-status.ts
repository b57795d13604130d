// `status`: tells how a VM stands: monitor, guest agent, disks and their sets. Asks both sides and says what did not
// answer; only reads.
import { defined } from '../defined.js';
import type { ErrorCode } from '../error-codes.js';
import { BridgeError, describeError } from '../errors.js';
import type { CoordinatorStatus } from '../consistency.js';
import { runQmp } from '../qmp/commands.js';
import type { AgentLimits, OpenGuestAgent } from './guest/guest-agent.js';
import { fileKey } from './images/same-file.js';
import { imageKey } from './images/socket-owner.js';
import { identifyOpen, readableStore } from './sets/find-vm.js';
import { overlaySizes, type OverlaySize } from './sets/overlay-sizes.js';
import { startedWrong, viewSet } from './sets/set-view.js';
import type { VmIdentity } from './vm/identity.js';
import { openHypervisor } from './vm/open-hypervisor.js';
import type { Vm } from './vm/vm.js';

interface Trouble {
  readonly code: ErrorCode;
  readonly message: string;
}

interface MonitorStatus {
  /** Which VM it is. */
  readonly identity: VmIdentity;
  readonly qemu: string;
  /** QEMU's run state. */
  readonly status: string;
  readonly disks: readonly {
    readonly id: string;
    readonly node: string;
    readonly file: string;
    readonly format: string;
    readonly readOnly: boolean;
    readonly serial?: string;
    readonly pciAddress?: string;
    /** The set whose overlay it writes to. */
    readonly set?: string;
    /** Why it cannot be cut as it is. */
    readonly trouble?: string;
  }[];
  /** How large the overlays of the VM's sets are. */
  readonly overlays: readonly OverlaySize[];
  /** Disks that the VM was started from an older image of, in sentences. */
  readonly startedWrong: readonly string[];
  readonly jobs: readonly { readonly id: string; readonly type: string; readonly status: string }[];
}

interface AgentStatus extends CoordinatorStatus {
  readonly kind: 'bridge' | 'stock';
  readonly version: string;
}

export interface VmStatus {
  readonly vm: Vm;
  readonly monitor: MonitorStatus | { readonly error: Trouble };
  readonly agent: AgentStatus | { readonly error: Trouble };
}

export interface StatusOptions {
  readonly vm: Vm;
  readonly stateDir: string;
  readonly monitorTimeoutMs: number;
  readonly agentLimits: AgentLimits;
  readonly openAgent: OpenGuestAgent;
}

/** Never throws for a side that does not answer: that is what it reports. */
export async function readStatus(options: StatusOptions): Promise<VmStatus> {
  const [monitor, agent] = await Promise.all([orTrouble(monitorStatus(options)), orTrouble(agentStatus(options))]);
  return { vm: options.vm, monitor, agent };
}

async function monitorStatus({ vm, stateDir, monitorTimeoutMs }: StatusOptions): Promise<MonitorStatus> {
  await using monitor = await openHypervisor(vm.monitor, { timeoutMs: monitorTimeoutMs, onlyAsked: true });
  const identity = await identifyOpen(monitor, vm);
  const { manifests } = await (await readableStore(stateDir, identity, vm)).readAll();
  const overlays = new Map<string, string>();
  for (const { set, disks } of manifests) {
    for (const { overlay, merged } of disks) if (!merged) overlays.set(await fileKey(overlay.file), set);
  }
  const sizes: OverlaySize[] = [];
  const wrong: string[] = [];
  for (const manifest of manifests) {
    sizes.push(...(await overlaySizes(manifest)));
    // Another process at the set does not make an old image the newest.
    const view = await viewSet(manifest, { monitors: [monitor], isRunning: true, isBusy: false });
    wrong.push(...startedWrong(view));
  }
  const { major, minor, micro } = monitor.version;
  const { status } = await runQmp(monitor, 'query-status', {});
  const jobs = await runQmp(monitor, 'query-jobs', {});
  const disks = await monitor.disks();
  const layers = await Promise.all(disks.map(({ file }) => imageKey(monitor.path, file)));
  return {
    identity,
    qemu: `${major}.${minor}.${micro}`,
    status,
    overlays: sizes,
    startedWrong: wrong,
    disks: disks.map(({ id, node, file, format, readOnly, serial, pciAddress, trouble }, index) => {
      const set = overlays.get(layers[index] ?? '');
      return {
        id,
        node,
        file,
        format,
        readOnly,
        ...defined({ serial, pciAddress, set, trouble }),
      };
    }),
    jobs: jobs.map(({ id, type, status: jobStatus }) => ({ id, type, status: jobStatus })),
  };
}

async function agentStatus({ vm, agentLimits, openAgent }: StatusOptions): Promise<AgentStatus> {
  if (vm.agent === undefined) throw new BridgeError('E_NO_AGENT', 'no guest-agent socket was given (--qga)');
  await using agent = await openAgent(vm.agent, agentLimits);
  return { kind: agent.kind, version: agent.version, ...(await agent.coordinator.status()) };
}

async function orTrouble<T>(work: Promise<T>): Promise<T | { readonly error: Trouble }> {
  try {
    return await work;
  } catch (error) {
    const code = error instanceof BridgeError ? error.code : 'E_INTERNAL';
    return { error: { code, message: describeError(error) } };
  }
}
