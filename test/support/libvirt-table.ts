// The list of virsh flows in qga/README.md: what test/vm/libvirt-flows.test.ts sees, or fails.
import { agentFlows } from './libvirt-agent-flows.js';
import { diskFlows } from './libvirt-disk-flows.js';
import type { Flow } from './libvirt-flow.js';
import { between, markdownList } from './markdown-list.js';

/** In the order in which they are run. */
export const flows: readonly Flow[] = [...agentFlows, ...diskFlows];

/** The text with the list in it as it should be. */
export function withFlows(readme: string): string {
  const items = flows.map(({ name, seen }) =>
    typeof seen === 'string'
      ? { text: `**${name}**: ${seen}`, below: [] }
      : { text: `**${name}**`, below: [`stock qemu-ga: ${seen.stock}`, `our agent: ${seen.ours}`, `why: ${seen.why}`] },
  );
  return between(readme, 'virsh flows', markdownList(items));
}
