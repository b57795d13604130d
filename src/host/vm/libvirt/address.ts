// Names a libvirt domain by one string where a socket path would be, so that manifests and journals find the domain
// again: `libvirt:NAME`, with libvirt's URI behind it if it is not virsh's own choice. Also tells whether that URI
// leads to this host, where the tool finds the domain's images. Specification: libvirt's "Connection URIs", "Remote
// URIs".
import { hostname } from 'node:os';

export interface LibvirtAddress {
  /** Name, id or UUID of the domain. */
  readonly domain: string;
  /** `qemu:///system`; undefined: what virsh chooses. */
  readonly uri: string | undefined;
}

const PREFIX = 'libvirt:';
const CONNECT = '?connect=';

/** The address; undefined for a path. */
export function parseLibvirtAddress(where: string): LibvirtAddress | undefined {
  if (!where.startsWith(PREFIX)) return undefined;
  const rest = where.slice(PREFIX.length);
  const at = rest.indexOf(CONNECT);
  if (at === -1) return { domain: rest, uri: undefined };
  return { domain: rest.slice(0, at), uri: decodeURIComponent(rest.slice(at + CONNECT.length)) };
}

export function libvirtAddress({ domain, uri }: LibvirtAddress): string {
  return `${PREFIX}${domain}${uri === undefined ? '' : `${CONNECT}${encodeURIComponent(uri)}`}`;
}

const uriPattern =
  /^[a-z0-9]+(?:\+(?<transport>[a-z0-9]+))?:\/\/(?:[^@/?#]*@)?(?<host>\[[^\]]*\]|[^:/?#]*)(?<port>:\d+)?/i;
const loopback = ['', 'localhost', '127.0.0.1', '[::1]'];

/**
 * The host that a URI of libvirt leads to; undefined if it is this one. A port of the loopback may be a tunnel's, and
 * where another program (`ext`) leads nobody knows: these are other hosts.
 */
export function otherHost(uri: string): string | undefined {
  const { transport = '', host = '', port = '' } = uriPattern.exec(uri)?.groups ?? {};
  if (transport === 'ext') return host === '' ? 'the host that its command leads to' : host;
  if (loopback.includes(host) && port !== '') return `the host behind ${host}${port}`;
  return loopback.includes(host) || host === hostname() ? undefined : host;
}
