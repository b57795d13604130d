// Flows through virsh as values, and the words for what was seen of one: those of the list in qga/README.md.
import type { VirshResult } from './libvirt.js';
import type { LibvirtDomain } from './libvirt-domain.js';
import type { AgentKind } from './libvirt-state.js';

interface Seen {
  /** Exit codes, and what virsh says. */
  readonly text: string;
  /** A value that has to be the same with both agents, whatever it is. */
  readonly fields?: unknown;
}

export interface Flow {
  readonly name: string;
  /** The words for what is seen with both agents; or with each, and why they differ. */
  readonly seen: string | { readonly stock: string; readonly ours: string; readonly why: string };
  readonly run: (domain: LibvirtDomain, agent: AgentKind) => Promise<Seen>;
}

/** What libvirt logs into standard error, beside virsh's own words: a stopped libvirtd answers no keepalive, for one. */
const LOG_LINE = /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+\+\d{4}: \d+: (debug|info|warning|error) : /;

/** The exit code, and of what virsh prints the line that tells something. */
export function said({ exitCode, stdout, stderr }: VirshResult): string {
  const lines = stderr.split('\n').filter((line) => !LOG_LINE.test(line));
  const text = exitCode === 0 ? stdout : (lines.at(-1) ?? '');
  const line = text.replace(/^error: (internal error: )?(unable to execute QEMU agent command '[^']*': )?/, '');
  return line === '' ? String(exitCode) : `${String(exitCode)}: ${line}`;
}

/** The table that virsh prints, without its head. */
export function rowsOf(stdout: string): readonly (readonly string[])[] {
  const lines = stdout.split('\n').slice(2);
  return lines.filter((line) => line.trim() !== '').map((line) => line.trim().split(/\s{2,}/));
}

/** The answer of an agent command, asked by `virsh qemu-agent-command`. */
export async function agentReturns(domain: LibvirtDomain, execute: string): Promise<unknown> {
  return (JSON.parse(await domain.run('qemu-agent-command', JSON.stringify({ execute }))) as { return: unknown })
    .return;
}
