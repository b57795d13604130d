// The guest fixture, as tests (ours and other people's) import it.
export { chooseAccelerator, type Accelerator } from './accelerator.js';
export { AgentChannel } from './agent-channel.js';
export { bootGuest, type BootOptions } from './boot.js';
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
export { Guest } from './guest.js';
export type { ExecOptions, ExecResult, GuestProcess } from './guest-exec.js';
export { installDebs, installedGuest, savedGuest, waitForAgent, type InstallOptions } from './guest-states.js';
export { guestImage, type GuestImage } from './image.js';
export { Monitor, type MonitorEvent } from './monitor.js';
export { restoreGuest, saveState } from './saved-state.js';
export { proxySocket, type SocketProxy } from './socket-proxy.js';
export { startStallProbe, type StallGap, type StallProbe } from './stall-probe.js';
