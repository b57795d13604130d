// Tells whether an address is that of another machine, as far as the kernel's own tables prove it. Pods, containers and
// guests of this machine have addresses too, and a service's address may lead to one of them. Reads only, and looks up
// no name.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { namesIn, readText } from './kernel-values.js';

interface Roots {
  readonly sysRoot: string;
  readonly procRoot: string;
}

/**
 * True only if packets to it leave through a physical network interface, unchanged: it is no address of this network
 * namespace, its route leads out of a network card (or a bond or VLAN of such), and nothing here may turn it into
 * another (NAT, IPVS). IPv6 is not looked into, and thus never known.
 */
export function isKnownOutside(address: string, { sysRoot, procRoot }: Roots): boolean {
  const number = ipv4(address);
  if (number === undefined) return false;
  const mayTranslate = ['nf_nat', 'ip_vs'].some((module) => existsSync(join(sysRoot, 'module', module)));
  // Without this list nobody knows which addresses are ours.
  const own = readText(join(procRoot, 'net/fib_trie'));
  if (mayTranslate || own === undefined || isLocal(address, own)) return false;
  const device = deviceTo(number, readText(join(procRoot, 'net/route')) ?? '');
  return device !== undefined && isPhysical(join(sysRoot, 'class/net', device));
}

function ipv4(address: string): number | undefined {
  const parts = address.split('.');
  if (parts.length !== 4 || !parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) < 256)) return undefined;
  return parts.reduce((number, part) => number * 256 + Number(part), 0);
}

// "|-- ADDRESS" and below it what it is; 127.0.0.0/8 is local as a whole.
function isLocal(address: string, trie: string): boolean {
  if (address.startsWith('127.')) return true;
  return trie.split('|-- ').some((leaf) => leaf.split(/\s/, 1)[0] === address && /\/32 host LOCAL/.test(leaf));
}

/** Device of the route with the longest mask, the lower metric of two that are alike. Numbers as in /proc/net/route. */
function deviceTo(address: number, table: string): string | undefined {
  const routes = table
    .split('\n')
    .slice(1)
    .flatMap((line) => {
      const [device, destination, , , , , metric, mask] = line.split('\t');
      if (device === undefined || destination === undefined || mask === undefined) return [];
      return [{ device, destination: littleEndian(destination), mask: littleEndian(mask), metric: Number(metric) }];
    })
    .filter(({ destination, mask }) => masked(address, mask) === destination)
    .sort((a, b) => b.mask - a.mask || a.metric - b.metric);
  return routes[0]?.device;
}

function masked(address: number, mask: number): number {
  return (address & mask) >>> 0;
}

function littleEndian(hex: string): number {
  return Buffer.from(hex.trim().padStart(8, '0'), 'hex').readUInt32LE();
}

/** A network card, or a bond or VLAN of such. A bridge and a tunnel may lead to what runs on this machine. */
function isPhysical(folder: string, depth = 0): boolean {
  if (existsSync(join(folder, 'device'))) return true;
  const type = /^DEVTYPE=(.+)$/m.exec(readText(join(folder, 'uevent')) ?? '')?.[1];
  if (depth > 3 || (type !== 'bond' && type !== 'vlan')) return false;
  const lower = namesIn(folder).filter((name) => name.startsWith('lower_'));
  const nets = join(folder, '..');
  return lower.length > 0 && lower.every((name) => isPhysical(join(nets, name.slice('lower_'.length)), depth + 1));
}
