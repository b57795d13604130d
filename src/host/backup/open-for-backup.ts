// Opens what a backup is made of: the VM that runs, or what stands in for one that is shut off (shut-off-vm.ts), to be backed up
// or only looked at.
import { defined } from '../../defined.js';
import type { QmpConnectOptions } from '../../qmp/client.js';
import type { Repository } from '../repository/repository.js';
import { identifyOpen } from '../sets/find-vm.js';
import { openAndLockVm, type OpenVm } from '../sets/vm-lock.js';
import type { Hypervisor } from '../vm/hypervisor.js';
import type { VmIdentity } from '../vm/identity.js';
import { meansShutOff } from '../vm/monitors.js';
import { openHypervisor } from '../vm/open-hypervisor.js';
import type { BackupOptions } from './backup-at.js';
import type { BackupPlan } from './backup-plan.js';
import { openShutOffVm, type ShutOffVm } from './shut-off-vm.js';

/** The plan in the VM's own words. */
export function shutOffPlan(plan: BackupPlan, { drives, knownBy, leftOut, missing }: ShutOffVm): BackupPlan {
  const planned = plan.planned.map((each) => {
    const { id, serial } = drives.find(({ device }) => device === each.disk.device) ?? each.disk;
    return { ...each, disk: { ...each.disk, id, ...defined({ serial }) } };
  });
  const whyNoAgent = `the VM is shut off: nothing writes to its disks, which are taken to be those of ${knownBy}`;
  const own = { leftOut: [...plan.leftOut, ...leftOut], missing: [...plan.missing, ...missing] };
  return { ...plan, ...own, planned, status: 'shut off', whyNoAgent };
}

/** The VM, or what stands in for it while it is shut off. */
export async function openForBackup(
  options: BackupOptions,
  repository: Repository | undefined,
  connect: QmpConnectOptions,
): Promise<OpenVm | ShutOffVm> {
  const request = { ...options, operation: 'backup', waitMs: options.lockWaitMs } as const;
  const { monitor } = options.vm;
  try {
    return await openAndLockVm(request, connect);
  } catch (error) {
    if (!(await meansShutOff(error, monitor))) throw error;
    return await openShutOffVm(request, repository, { named: options.disks, connect, access: 'write' }, error);
  }
}

/** There is no guest that could be held, and none that would have to be. */
export function shutOffOptions(options: BackupOptions, { drives }: ShutOffVm): BackupOptions {
  const { asked, allowLower } = options.requirement;
  const disks = drives.map(({ device }) => device);
  return { ...options, disks, requirement: { asked: asked === 'auto' ? 'crash' : asked, allowLower } };
}

/** A VM to be looked at. */
export interface LookedAtVm extends AsyncDisposable {
  readonly hypervisor: Hypervisor;
  readonly identity: VmIdentity;
}

/**
 * The same, to change neither disks nor repository: a VM that runs is not locked; one that is shut off is, as by any command
 * that works on it, and its images are opened for reading alone.
 */
export async function openToLook(
  options: BackupOptions,
  repository: Repository | undefined,
): Promise<LookedAtVm | ShutOffVm> {
  const { vm, disks, lockWaitMs } = options;
  const connect = { timeoutMs: options.monitorTimeoutMs };
  let hypervisor: Hypervisor;
  try {
    hypervisor = await openHypervisor(vm.monitor, connect);
  } catch (error) {
    if (!(await meansShutOff(error, vm.monitor))) throw error;
    const request = { ...options, operation: 'backup', waitMs: lockWaitMs } as const;
    return await openShutOffVm(request, repository, { named: disks, connect, access: 'read' }, error);
  }
  const close = (): PromiseLike<void> => hypervisor[Symbol.asyncDispose]();
  try {
    return { hypervisor, identity: await identifyOpen(hypervisor, vm), [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}
