// What the steps of a backup are given.
import type { MonitorLog } from '../create/monitor-log.js';
import type { StepTimer } from '../create/step-timer.js';
import type { VmFolder } from '../repository/layout.js';
import type { RepositoryLock } from '../repository/repository-lock.js';
import type { Repository } from '../repository/repository.js';
import type { Runs } from '../repository/runs.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import type { BackupHost, Hypervisor, VmDescription } from '../vm/hypervisor.js';
import type { BackupPlan, BackupPlanOptions } from './backup-plan.js';
import type { TransferProgress } from '../../qmp/transfer-progress.js';

export interface BackupOptions extends BackupPlanOptions {
  readonly stateDir: string;
  /** How long to wait while another process works on the VM, or on its backups. */
  readonly lockWaitMs: number;
  readonly monitorTimeoutMs: number;
  readonly cutTimeoutMs: number;
  /** How long the guest may stay frozen without hearing from us. */
  readonly leaseMs: number;
  /** The folder of the repository, absolute; made if it is not there. */
  readonly repository: string;
  /** Make it although the VM is backed up to another one. */
  readonly init: boolean;
  /** Runs of each disk whose checkpoints the VM keeps. */
  readonly keepCheckpoints: number;
  readonly minFreeBytes: number;
  /** Bytes per second at most, for all disks together; `auto`: as fast as the requests of the guest let it. */
  readonly speed: number | 'auto' | undefined;
  /** A transfer that does not get on for so long is given up. */
  readonly stallMs: number;
  /** One line for people. Must not throw. */
  readonly onProgress: (text: string) => void;
  readonly onTransfer: (progress: TransferProgress) => void;
}

/** The values that the steps are given. */
export interface BackupAt {
  readonly options: BackupOptions;
  readonly repository: Repository;
  readonly folder: VmFolder;
  readonly runs: Runs;
  readonly lock: RepositoryLock;
  readonly hypervisor: Hypervisor;
  /** The VM beside its disks. */
  readonly describe: () => Promise<VmDescription>;
  readonly backups: BackupHost;
  readonly store: ManifestStore;
  readonly plan: BackupPlan;
  readonly timer: StepTimer;
  readonly monitorLog: MonitorLog;
}
