// How long a guest may stay frozen here: the configured maximum, and less where the kernel would panic before.
import { readFileSync } from 'node:fs';

/** Tasks wait from the first FIFREEZE on, and the kernel's check may come early by its own rounding. */
const HUNG_TASK_MARGIN_MS = 10_000;

/** The longest lease that is safe, in milliseconds (Documentation/admin-guide/sysctl/kernel.rst, hung_task_*). */
export function longestLeaseMs(configuredMs: number, procSys = '/proc/sys/kernel'): number {
  const setting = (name: string): number => {
    try {
      return Number(readFileSync(`${procSys}/${name}`, 'latin1').trim());
    } catch {
      return 0;
    }
  };
  const timeoutMs = setting('hung_task_timeout_secs') * 1000;
  if (setting('hung_task_panic') === 0 || !(timeoutMs > 0)) return configuredMs;
  return Math.min(configuredMs, Math.max(timeoutMs / 2, timeoutMs - HUNG_TASK_MARGIN_MS));
}
