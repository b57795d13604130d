// What a flow through virsh is, and how what was seen of it is put in words: those of the table in qga/README.md.
import type { VirshResult } from './libvirt.js';
import type { LibvirtDomain } from './libvirt-domain.js';
import type { AgentKind } from './libvirt-state.js';

interface Seen {
  /** Exit codes, and what virsh says. */
  readonly text: string;
  /** What has to be the same with both agents, whatever it is. */
  readonly fields?: unknown;
}

export interface Flow {
  readonly name: string;
  /** What is seen with both agents; or with each, and why not the same. */
  readonly seen: string | { readonly stock: string; readonly ours: string; readonly why: string };
  readonly run: (domain: LibvirtDomain, agent: AgentKind) => Promise<Seen>;
}

/** The exit code, and of what virsh prints the line that tells something. */
export function said({ exitCode, stdout, stderr }: VirshResult): string {
  const text = exitCode === 0 ? stdout : (stderr.split('\n').at(-1) ?? '');
  const line = text.replace(/^error: (internal error: )?(unable to execute QEMU agent command '[^']*': )?/, '');
  return line === '' ? String(exitCode) : `${String(exitCode)}: ${line}`;
}

/** The table that virsh prints, without its head. */
export function rowsOf(stdout: string): readonly (readonly string[])[] {
  const lines = stdout.split('\n').slice(2);
  return lines.filter((line) => line.trim() !== '').map((line) => line.trim().split(/\s{2,}/));
}

/** What an agent command returns, by way of `virsh qemu-agent-command`. */
export async function agentReturns(domain: LibvirtDomain, execute: string): Promise<unknown> {
  return (JSON.parse(await domain.run('qemu-agent-command', JSON.stringify({ execute }))) as { return: unknown })
    .return;
}
