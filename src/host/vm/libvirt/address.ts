// How a libvirt domain is named where a socket path would be: `libvirt:NAME`, with libvirt's URI behind it if it is not
// virsh's own choice. One string, so that manifests and journals find the domain again.

export interface LibvirtAddress {
  /** Name, id or UUID of the domain. */
  readonly domain: string;
  /** `qemu:///system`; undefined: what virsh chooses. */
  readonly uri: string | undefined;
}

const PREFIX = 'libvirt:';
const CONNECT = '?connect=';

/** Undefined if it is none: a path. */
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
