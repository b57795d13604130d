// The list of failures in qga/README.md, as test/vm/failures.test.ts and test/vm/libvirt-failures.test.ts see them.
import { failures } from './failures.js';
import { between, markdownList } from './markdown-list.js';

/** The text with the list in it as it should be. */
export function withFailures(readme: string): string {
  const items = Object.values(failures).map(({ fault, stock, agent, tool }) => ({
    text: `**${fault}**`,
    below: [`libvirt, stock qemu-ga: ${stock}`, `libvirt, our agent: ${agent}`, `our host tool, our agent: ${tool}`],
  }));
  return between(readme, 'failures', markdownList(items));
}
