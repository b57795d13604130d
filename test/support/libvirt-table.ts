// The table of virsh flows in qga/README.md: what test/vm/libvirt-flows.test.ts sees, or fails.
import { agentFlows } from './libvirt-agent-flows.js';
import { diskFlows } from './libvirt-disk-flows.js';
import type { Flow } from './libvirt-flow.js';
import { between, markdownTable } from './markdown-table.js';

/** In the order in which they are run. */
export const flows: readonly Flow[] = [...agentFlows, ...diskFlows];

/** The text with the table in it as it should be. */
export function withFlows(readme: string): string {
  const rows = flows.map(({ name, seen }) =>
    typeof seen === 'string' ? [name, seen, 'the same', ''] : [name, seen.stock, seen.ours, seen.why],
  );
  const head = ['flow', 'stock qemu-ga', 'our agent', 'why different'];
  return between(readme, 'virsh flows', markdownTable(head, rows));
}
