// The guest fixture as tests import it, ours and other people's: `fsfreeze-bridge/testing`. Manual: README.md.
export type { ErrorCode } from '../error-codes.js';
export { BridgeError, DeadlineError, UnreachableError, UsageError, type Facts, type Outcome } from '../errors.js';
export { AgentChannel } from './agent-channel.js';
export { bootGuest } from './boot.js';
export type { BootOptions } from './boot-options.js';
export { cacheDirectory } from './cache.js';
export { createBlank, createOverlay, type DiskFile, type DiskFormat, type GuestDisk } from './disks.js';
export {
  armInGuest,
  armSignal,
  guestPid,
  MOMENTS,
  signalGuest,
  stallDisk,
  type Armed,
  type FaultSignal,
  type ProcessName,
} from './faults.js';
export type { Capability, Guest, GuestKind, HotplugOptions } from './guest.js';
export type { ExecOptions, ExecResult, GuestProcess } from './guest-exec.js';
export {
  installDebs,
  installedGuest,
  installedImage,
  savedGuest,
  waitForAgent,
  type InstallOptions,
} from './guest-states.js';
export type { GuestImage } from './guest-image.js';
export { guestImage } from './image.js';
export { chooseAccelerator, type Accelerator } from './qemu/accelerator.js';
export type { QemuGuest } from './qemu/qemu-guest.js';
export { restoreGuest, saveState } from './qemu/saved-state.js';
export { KERNEL_VERSIONS, type KernelVersion } from './recipes.js';
export { proxySocket, type SocketProxy } from './socket-proxy.js';
export { startStallProbe, type ProbedGuest, type StallGap, type StallProbe } from './stall-probe.js';
export type { UserModeGuest } from './user-mode/user-mode-guest.js';
