// The machine as the commands about snapshots see it: its providers, the agent, where runs are noted.
import { basename, dirname, join, resolve } from 'node:path';
import { rootSocketBeside } from '../../agent/channels.js';
import { lockForChange } from '../../freeze/session/device-change.js';
import { machineViewer } from '../../linux/machine-view.js';
import { lvmProviders } from '../../snapshot/lvm/provider.js';
import { SnapshotMachine } from '../../snapshot/machine.js';
import { runProgram } from '../../snapshot/program.js';
import { findPrograms } from '../../snapshot/providers/folders.js';
import type { GuestSettings } from './guest-settings.js';

/** `config`: as it was given. */
export function openMachine(
  settings: GuestSettings,
  config: string | undefined,
  note: (text: string) => void,
): SnapshotMachine {
  const { agentSocket } = settings;
  const lock = async (what: string, limitMs: number) => await lockForChange(settings.freeze, what, limitMs);
  return new SnapshotMachine({
    look: machineViewer({ mountinfoPath: '/proc/self/mountinfo', sysRoot: '/sys', udevRoot: '/run/udev' }),
    run: runProgram,
    providers: [...findPrograms(), ...lvmProviders(runProgram, lock)],
    runtimeDir: settings.runtimeDir,
    agentSocket: agentSocket === undefined ? undefined : rootSocketBeside(agentSocket),
    self: [...thisProgram(), ...(config === undefined ? [] : ['--config', resolve(config)])],
    note,
  });
}

/** The words that start this program: by its own name, which tells it from the agent, or as a script of Node's. */
function thisProgram(): readonly string[] {
  const { argv0, execPath, argv } = process;
  if (basename(argv0) !== 'fsfreeze-snapshot') return [execPath, argv[1] ?? ''];
  // It is started in another folder.
  return [argv0.includes('/') ? resolve(argv0) : join(dirname(execPath), 'fsfreeze-snapshot')];
}
