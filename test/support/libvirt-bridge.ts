// The host tool, run as a user runs it, on a domain of the fixture's libvirtd.
import path from 'node:path';
import type { Manifest } from '../../src/host/sets/manifest.js';
import { bridgeResult, toolProcess } from './agent-guest.js';
import type { LibvirtDomain } from './libvirt-domain.js';
import type { LibvirtHost } from './libvirt.js';

/** The place of a domain, and a folder of its own. */
interface Place {
  readonly host: Pick<LibvirtHost, 'uri'>;
  readonly name: string;
  readonly dir: string;
}

/** Never throws for its exit code. */
export async function domainBridge(domain: Place, ...words: readonly string[]) {
  return await bridgeResult(domainBridgeProcess(domain, ...words));
}

/** As a process, for faults. */
export function domainBridgeProcess({ host, name, dir }: Place, ...words: readonly string[]) {
  const vm = ['--vm', `libvirt:${name}`, '--connect', host.uri];
  return toolProcess([...words, ...vm, '--state-dir', path.join(dir, 'state')]);
}

/** `snapshot create`, which must succeed. */
export async function createOn(domain: LibvirtDomain, set: string, ...words: readonly string[]): Promise<Manifest> {
  const { exitCode, json, stderr } = await domainBridge(domain, 'snapshot', 'create', '--name', set, ...words);
  if (exitCode !== 0) throw new Error(`snapshot create: ${String(exitCode)}: ${stderr}`);
  return json as Manifest;
}

/** The active image of each disk, by target, as libvirt has it. */
export async function images(
  { host, name }: { readonly host: LibvirtHost; readonly name: string },
  ...words: readonly string[]
): Promise<Record<string, string>> {
  const rows = (await host.run(['domblklist', name, ...words])).split('\n').slice(2);
  const pairs = rows.map((row) => row.trim().split(/\s+/)).filter(([target]) => target !== '');
  return Object.fromEntries(pairs.map(([target = '', file = '']) => [target, file]));
}
