// Interfaces from `ip -j` (iproute2), routes from /proc/net as qemu-ga reads them. An IPv4 address with a label of its
// own (`eth0:1`) makes an interface of that name, as getifaddrs(3) shows it to qemu-ga.
import { join } from 'node:path';
import * as v from 'valibot';
import { BridgeError } from '../../errors.js';
import { readValue } from '../../linux/kernel-values.js';
import type { Returns } from '../../qga/commands.js';
import { refuse } from '../../qga/server.js';
import { LOOK_LIMIT_MS, readKernelFile, type Sources } from '../kernel-files.js';
import { packageHint } from '../tools.js';
import { family } from './types.js';

type Interface = Returns<'guest-network-get-interfaces'>[number];
type Route = Returns<'guest-network-get-route'>[number];

const counters = v.object({ bytes: v.number(), packets: v.number(), errors: v.number(), dropped: v.number() });
/** The part of `ip -j -s address show` that is used here. ip may print `{}` between the links. */
const ipOutput = v.array(
  v.object({
    ifname: v.optional(v.string()),
    addr_info: v.optional(
      v.array(
        v.object({
          family: v.optional(v.string()),
          local: v.optional(v.string()),
          label: v.optional(v.string()),
          prefixlen: v.optional(v.number()),
        }),
      ),
      [],
    ),
    stats64: v.optional(
      v.object({ rx: v.object({ ...counters.entries, missed: v.optional(v.number(), 0) }), tx: counters }),
    ),
  }),
);
type Link = v.InferOutput<typeof ipOutput>[number];

export function networkHandlers(sources: Sources) {
  const { procRoot } = sources;
  return family({
    async 'guest-network-get-interfaces'() {
      const links = await ipLinks(sources);
      const found = new Map<string, Interface>();
      for (const link of links) addLink(found, link, sources.sysRoot);
      return [...found.values()];
    },
    'guest-network-get-route': () => [
      ...readKernelFile(join(procRoot, 'net/route')).split('\n').slice(1).flatMap(route4),
      // The file is not there if IPv6 is switched off.
      ...(readValue(join(procRoot, 'net/ipv6_route')) ?? '').split('\n').flatMap(route6),
    ],
  });
}

async function ipLinks({ run }: Sources): Promise<readonly Link[]> {
  let stdout: string;
  try {
    const result = await run('ip', ['-j', '-s', 'address', 'show'], { limitMs: LOOK_LIMIT_MS });
    if (result.exitCode !== 0) return refuse(`'ip -j -s address show' failed: ${result.output.trim()}`);
    stdout = result.stdout;
  } catch (error) {
    if (!(error instanceof BridgeError) || error.code !== 'E_NO_PROGRAM') throw error;
    return refuse(`the helper program 'ip'${packageHint('ip')} was not found`);
  }
  const parsed = v.safeParse(ipOutput, parseJson(stdout));
  if (!parsed.success) return refuse(`'ip -j' answered what is not understood: ${parsed.issues[0].message}`);
  return parsed.output;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text === '' ? '[]' : text);
  } catch {
    return undefined;
  }
}

function addLink(found: Map<string, Interface>, link: Link, sysRoot: string): void {
  const { ifname, stats64 } = link;
  if (ifname === undefined) return;
  const hardware = hardwareAddress(sysRoot, ifname);
  const named = (name: string): Interface => {
    const known = found.get(name) ?? { name, 'hardware-address': hardware };
    found.set(name, known);
    return known;
  };
  named(ifname);
  for (const { family, local, label, prefixlen } of link.addr_info) {
    if (local === undefined || prefixlen === undefined || (family !== 'inet' && family !== 'inet6')) continue;
    const one = named(family === 'inet' ? (label ?? ifname) : ifname);
    one['ip-addresses'] ??= [];
    one['ip-addresses'].push({
      'ip-address': local,
      'ip-address-type': family === 'inet' ? 'ipv4' : 'ipv6',
      prefix: prefixlen,
    });
    // A link without an address gets no statistics, and a label neither: the kernel counts by link.
    if (stats64 !== undefined && one.name === ifname) one.statistics = statistics(stats64);
  }
}

// As /proc/net/dev sums them up (net/core/net-procfs.c).
const statistics = ({ rx, tx }: NonNullable<Link['stats64']>): NonNullable<Interface['statistics']> => ({
  'rx-bytes': rx.bytes,
  'rx-packets': rx.packets,
  'rx-errs': rx.errors,
  'rx-dropped': rx.dropped + rx.missed,
  'tx-bytes': tx.bytes,
  'tx-packets': tx.packets,
  'tx-errs': tx.errors,
  'tx-dropped': tx.dropped,
});

/** The first six bytes; zeros for a link without an address, as SIOCGIFHWADDR has it. */
function hardwareAddress(sysRoot: string, name: string): string {
  const bytes = (readValue(join(sysRoot, 'class/net', name, 'address')) ?? '').split(':');
  return Array.from({ length: 6 }, (_, index) => (bytes[index] ?? '').padStart(2, '0')).join(':');
}

function route4(line: string): readonly Route[] {
  const [iface = '', destination, gateway, flags, refcnt, use, metric, mask, mtu, window, irtt] = line
    .trim()
    .split(/\s+/);
  if (irtt === undefined) return [];
  return [
    {
      iface,
      destination: ipv4(destination),
      metric: Number(metric),
      gateway: ipv4(gateway),
      mask: ipv4(mask),
      irtt: Number(irtt),
      flags: hex(flags),
      refcnt: Number(refcnt),
      use: Number(use),
      window: Number(window),
      mtu: Number(mtu),
      version: 4,
    },
  ];
}

function route6(line: string): readonly Route[] {
  const [destination = '', destinationBits, source = '', sourceBits, nexthop = '', metric, refcnt, use, flags, iface] =
    line.trim().split(/\s+/);
  if (iface === undefined) return [];
  return [
    {
      iface,
      destination: ipv6(destination),
      // Signed, as qemu-ga reads them.
      metric: hex(metric) | 0,
      flags: hex(flags) | 0,
      refcnt: hex(refcnt) | 0,
      use: hex(use) | 0,
      desprefixlen: String(hex(destinationBits)),
      source: ipv6(source),
      srcprefixlen: String(hex(sourceBits)),
      nexthop: ipv6(nexthop),
      version: 6,
    },
  ];
}

const hex = (text = ''): number => Number.parseInt(text, 16);

/** The kernel prints the number as the processor holds it: little-endian on all we are built for. */
function ipv4(text = ''): string {
  const value = hex(text);
  return [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24].join('.');
}

/** As inet_ntop(3): the longest run of two zero groups or more is left out. */
function ipv6(digits: string): string {
  const groups = (digits.match(/.{4}/g) ?? []).map((group) => Number.parseInt(group, 16).toString(16));
  let best = { at: -1, length: 1 };
  for (let at = 0; at < groups.length; at++) {
    let length = 0;
    while (groups[at + length] === '0') length++;
    if (length > best.length) best = { at, length };
  }
  if (best.at < 0) return groups.join(':');
  return `${groups.slice(0, best.at).join(':')}::${groups.slice(best.at + best.length).join(':')}`;
}
