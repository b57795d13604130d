// Who answers QMP commands: a monitor socket (client.ts), or somebody who owns the monitor and passes questions on
// (libvirt). What reads the VM takes this; what needs events takes a QmpClient.
import type { QmpClient } from './client.js';

export type Monitor = Pick<QmpClient, 'path' | 'version' | 'execute'>;
