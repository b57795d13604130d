// The lock of a VM, STATE_DIR/VM/lock.json: one over all that changes the VM, its sets or its disks. Who takes it also
// writes down how the VM was reached, and brings home the sets that an older version left elsewhere.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Deadline } from '../../deadline.js';
import { BridgeError, UsageError, describeError } from '../../errors.js';
import type { QmpConnectOptions } from '../../qmp/client.js';
import { exists, syncPath } from '../images/durable-file.js';
import type { Hypervisor } from '../vm/hypervisor.js';
import { identityKey, type VmIdentity } from '../vm/identity.js';
import { openHypervisor } from '../vm/open-hypervisor.js';
import type { Vm } from '../vm/vm.js';
import { LINKS, refreshLinks } from './current-images.js';
import { identify, identifyOpen, storeView, type FoundVm } from './find-vm.js';
import { knownAt } from './known-vms.js';
import { ManifestStore } from './manifest-store.js';
import { migrateOldSets, oldSetsOf } from './old-folders.js';
import { lockHolder, takeLock, waitUntilFree, type Operation, type OwnerLock } from './owner-lock.js';
import { noteReached } from './vm-record.js';

export interface LockRequest {
  readonly stateDir: string;
  readonly vm: Vm;
  readonly operation: Operation;
  readonly set?: string;
  /** How long to wait while another process works on the VM. */
  readonly waitMs: number;
  readonly signal?: AbortSignal;
  /** One line for people. */
  readonly onProgress: (text: string) => void;
}

/** The VM is ours to change, until this is disposed. */
export interface LockedVm extends AsyncDisposable {
  readonly identity: VmIdentity;
  readonly store: ManifestStore;
}

/**
 * Takes the VM's lock. Throws a UsageError: `E_VM_BUSY` names the process that works on the VM, `E_SET_BUSY` one of an older
 * version that works on one of its sets, `E_STATE_DIR` what cannot be made.
 */
export async function lockVm(request: LockRequest, { identity, isSure }: FoundVm): Promise<LockedVm> {
  const { stateDir, vm, operation, set, onProgress } = request;
  const key = identityKey(identity);
  const folder = join(stateDir, key);
  const store = new ManifestStore(stateDir, key, storeView(stateDir, identity, vm));
  if (!isSure && !(await exists(folder)) && (await oldSetsOf(stateDir, identity, vm.name)).length === 0) {
    // Nothing is known of it, and nothing is begun: no folder for what may be no VM.
    return { identity, store, [Symbol.asyncDispose]: () => Promise.resolve() };
  }
  let lock: OwnerLock | undefined;
  try {
    if ((await mkdir(folder, { recursive: true, mode: 0o750 })) !== undefined) await syncPath(stateDir);
    lock = await takeLock(lockFile(stateDir, identity), { operation, set }, lockOptions(request));
    await migrateOldSets(stateDir, identity, vm.name, onProgress);
    await noteReached(stateDir, identity, vm);
  } catch (cause) {
    await lock?.[Symbol.asyncDispose]();
    // Nothing was begun yet, so that what cannot be written speaks of the folder.
    if (cause instanceof BridgeError && cause.code !== 'E_WRITE') throw cause;
    throw new UsageError('E_STATE_DIR', `cannot work in ${folder}`, { cause });
  }
  const release = async (): Promise<void> => {
    // libvirt keeps the definition of a domain right.
    if (vm.monitor.kind === 'socket') {
      await refreshLinks(store, join(folder, LINKS)).catch((error: unknown) => {
        onProgress(`the links in ${join(folder, LINKS)} could not be brought up to date: ${describeError(error)}`);
      });
    }
    await lock[Symbol.asyncDispose]();
  };
  return { identity, store, [Symbol.asyncDispose]: release };
}

/** Finds out which VM it is, and takes its lock. Throws what `identify` and `lockVm` do. */
export async function findAndLockVm(request: LockRequest, timeoutMs: number): Promise<LockedVm> {
  const { monitor } = request.vm;
  if (monitor.kind === 'libvirt') {
    const { refuseImagesElsewhere } = await import('../vm/libvirt/other-host.js');
    await refuseImagesElsewhere(monitor);
  }
  await waitForOthers(request);
  return await lockVm(request, await identify(request.stateDir, request.vm, timeoutMs));
}

export interface OpenVm extends LockedVm {
  readonly hypervisor: Hypervisor;
}

/**
 * Opens the VM's monitor and takes its lock. Throws what `openHypervisor` does, unless who works on the VM keeps the monitor
 * from answering; what `lockVm` does; and a UsageError `E_OTHER_VM` if it is not the VM that was named.
 */
export async function openAndLockVm(request: LockRequest, options: QmpConnectOptions): Promise<OpenVm> {
  const deadline = new Deadline(request.waitMs);
  for (;;) {
    await waitForOthers({ ...request, waitMs: deadline.remainingMs });
    let hypervisor: Hypervisor;
    try {
      hypervisor = await openHypervisor(request.vm.monitor, options);
    } catch (error) {
      // Somebody has begun meanwhile.
      await waitForOthers({ ...request, waitMs: 0 });
      throw error;
    }
    let identity: VmIdentity | undefined;
    try {
      identity = await identifyOpen(hypervisor, request.vm);
      const locked = await lockVm({ ...request, waitMs: 0 }, { identity, isSure: true });
      const close = async (): Promise<void> => {
        await hypervisor[Symbol.asyncDispose]();
        await locked[Symbol.asyncDispose]();
      };
      return { ...locked, hypervisor, [Symbol.asyncDispose]: close };
    } catch (error) {
      await hypervisor[Symbol.asyncDispose]();
      const isBusy = error instanceof UsageError && error.code === 'E_VM_BUSY';
      if (!isBusy || identity === undefined || deadline.passed) throw error;
      // The monitor is closed while we wait: who has the lock may need it.
      const waitMs = deadline.remainingMs;
      await waitUntilFree(lockFile(request.stateDir, identity), lockOptions({ ...request, waitMs }));
    }
  }
}

/**
 * Before a monitor is opened: who works on the VM may have it, and it serves one at a time. Throws a UsageError `E_VM_BUSY`
 * if somebody still does after the wait.
 */
export async function waitForOthers(request: LockRequest): Promise<void> {
  const identity = await lastAt(request.stateDir, request.vm);
  if (identity !== undefined) await waitUntilFree(lockFile(request.stateDir, identity), lockOptions(request));
}

/** As `identify`, to read only: a monitor that somebody who works on the VM may have is not waited for. */
export async function identifyUnlessBusy(stateDir: string, vm: Vm, timeoutMs: number): Promise<FoundVm> {
  const identity = await lastAt(stateDir, vm);
  const isBusy = identity !== undefined && (await lockHolder(lockFile(stateDir, identity))) !== undefined;
  return isBusy ? { identity, isSure: false } : await identify(stateDir, vm, timeoutMs);
}

// The VM's name alone does not count: another VM that had it once must not be in the way. Which VM it is by now, its
// monitor will say.
async function lastAt(stateDir: string, vm: Vm): Promise<VmIdentity | undefined> {
  return vm.identity ?? (await knownAt(stateDir, vm))?.identity;
}

function lockFile(stateDir: string, identity: VmIdentity): string {
  return join(stateDir, identityKey(identity), 'lock.json');
}

function lockOptions({ vm, waitMs, signal }: LockRequest) {
  return { what: `VM ${vm.name}`, waitMs, signal };
}
