// Faults that are done on the host, at the instant the guest tells.
import { FLOOD, type FaultName } from '../vm/faults/faults.js';
import type { Lab } from '../vm/faults/lab.js';
import type { Requester } from '../vm/faults/requesters.js';

export interface HostAct {
  readonly undo?: () => PromiseLike<void> | void;
}

/** Does it. Throws for a fault that is not the host's to do. */
export async function hostAct(lab: Lab, { tool }: Requester, name: FaultName): Promise<HostAct> {
  if (name === 'QEMU paused and continued') {
    const { machine } = lab;
    await machine.pause();
    return { undo: () => machine.resume() };
  }
  if (name === 'QEMU SIGKILL') {
    await lab.machine.kill();
    return {};
  }
  if (tool === undefined) throw new Error(`${name}: the requester is not the host tool`);
  const { monitor, channel } = tool;
  // eslint-disable-next-line @typescript-eslint/switch-exhaustiveness-check -- the others are done in the guest
  switch (name) {
    case 'host tool SIGKILL':
      tool.kill('SIGKILL');
      return {};
    case 'host tool SIGSTOP':
      tool.kill('SIGSTOP');
      return {
        undo: () => {
          tool.kill('SIGCONT');
        },
      };
    case 'agent channel closed':
      channel.cut();
      return {};
    case 'agent channel stalls':
      channel.holdReplies();
      channel.inject(FLOOD);
      return {
        undo: () => {
          channel.cut();
          channel.releaseReplies();
        },
      };
    case 'monitor lost':
      monitor.cut();
      return {};
    default:
      throw new Error(`${name} is not done on the host`);
  }
}
