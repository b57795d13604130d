// What the agent says of itself. Constants, not files: the single executable reads nothing at run time.
import type { Compat } from '../qga/server.js';

/** Ours, as in package.json (a test compares them). */
export const agentVersion = '0.1.0';

/** What guest-info answers: clients look at the number in front, people at the rest. */
export function reportedVersion(compat: Compat): string {
  const qemu = compat === '7.2' ? '7.2.22' : '10.2.2';
  return `${qemu} (fsfreeze-bridge ${agentVersion})`;
}
