// The guest fixture, as tests (ours and other people's) import it.
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
export { Guest, type Capability, type GuestKind, type HotplugOptions } from './guest.js';
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
export { Monitor, type MonitorEvent } from './qemu/monitor.js';
export type { QemuGuest } from './qemu/qemu-guest.js';
export { restoreGuest, saveState } from './qemu/saved-state.js';
export { KERNEL_VERSIONS, type KernelVersion } from './recipes.js';
export { proxySocket, type SocketProxy } from './socket-proxy.js';
export { startStallProbe, type StallGap, type StallProbe } from './stall-probe.js';
export type { UserModeGuest } from './user-mode/user-mode-guest.js';
