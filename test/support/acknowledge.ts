// Waits until the clients of a database were told of more commits.
import { expect } from 'vitest';
import type { Load } from '../../vm-images/demo/load.js';

export async function acknowledge({ transactions }: Load, count: number): Promise<void> {
  const goal = transactions.length + count;
  await expect.poll(() => transactions.length, { timeout: 60_000 }).toBeGreaterThan(goal);
}
