// The interface to whoever answers QMP commands: a monitor socket (client.ts), or libvirt, which owns the monitor and passes
// questions on. Code that only reads the VM takes this; code that needs events takes a QmpClient.
import type { QmpClient } from './client.js';

export type Monitor = Pick<QmpClient, 'path' | 'version' | 'execute'>;
